"""Sign-once ledgers: the durable binding of a transaction to the one digest that may be signed for it."""
