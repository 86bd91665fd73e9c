"""What schemathesis loads: the checks of our own."""

from tests.fuzz import echo, tally

__all__ = ["echo", "tally"]
