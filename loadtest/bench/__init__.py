"""The benchmark: what part of the module's own rate the service reaches, and what it costs beside it."""
