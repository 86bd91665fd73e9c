"""SoftHSM for development, tests, CI and the demo: the library, its tokens and its keys. Never part of production."""
