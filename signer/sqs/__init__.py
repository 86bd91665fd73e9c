"""The queue entrance: settlement batches come in, signed ones go on, and what can never be signed is set aside."""
