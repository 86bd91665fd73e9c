"""Signs settlement transactions with keys that never leave an HSM."""

from importlib.metadata import version

__version__ = version("signer")
