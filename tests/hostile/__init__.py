"""Bodies that nobody in their right mind sends, and what becomes of them: `python -m tests.hostile`."""
