"""A key is rotated under load, over two processes that share queue and ledger, and everything is proven."""
