"""`python -m signer`."""

from signer.cli import app

app()
