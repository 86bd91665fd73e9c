"""What the ledger knows, for the service that asks and changes nothing: beside its writer, and never in its way."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from signer.errors import ConfigurationError, LedgerUnavailableError, SignerError
from signer.ledger import claims, table
from signer.ledger.history import reading
from signer.ledger.record import Record
from signer.ports import Binding, Claim, Claimed, Signature, SignatureRegister
from signer.settings import LedgerSettings

MOST: Final = 100
"""Bindings in one answer about a digest."""


class FileRegister:
    """The register of the embedded ledger; a file taken away shows as `LedgerUnavailableError`."""

    def __init__(self, settings: LedgerSettings, wall_clock: Callable[[], float] = time.time) -> None:
        if settings.path is None:  # pragma: no cover - the settings exclude it
            raise AssertionError
        self._path = settings.path
        self._wall_clock = wall_clock

    def peek(self, claim: Claim) -> Signature | SignerError | None:
        """Give what the ledger would answer; see `SignatureRegister`."""
        return _answer(self._find(claim.transaction_id), claim, self._wall_clock())

    def by_transaction(self, transaction_id: str) -> list[Binding]:
        """Give every binding of a transaction; see `SignatureRegister`."""
        return _bindings(self._find(transaction_id))

    def by_digest(self, digest: bytes) -> list[Binding]:
        """Give the newest bindings of a digest; see `SignatureRegister`."""
        with _available(), reading(self._path) as connection:
            return _bindings(claims.find_digest(connection, digest, MOST))

    def _find(self, transaction_id: str) -> list[Record]:
        with _available(), reading(self._path) as connection:
            return claims.find_all(connection, transaction_id)


class TableRegister:
    """The register of a fleet's ledger."""

    def __init__(self, settings: LedgerSettings, wall_clock: Callable[[], float] = time.time) -> None:
        self._client = table.make_client(settings)
        self._name = settings.table or ""
        self._wall_clock = wall_clock

    def peek(self, claim: Claim) -> Signature | SignerError | None:
        """Give what the ledger would answer; see `SignatureRegister`."""
        now = self._wall_clock()
        return _answer(table.find_all(self._client, self._name, claim.transaction_id, now), claim, now)

    def by_transaction(self, transaction_id: str) -> list[Binding]:
        """Give every binding of a transaction; see `SignatureRegister`."""
        return _bindings(table.find_all(self._client, self._name, transaction_id, self._wall_clock()))

    def by_digest(self, digest: bytes) -> list[Binding]:
        """Give bindings of a digest; see `SignatureRegister`."""
        return _bindings(table.find_digest(self._client, self._name, digest, MOST, self._wall_clock()))

    def close(self) -> None:
        """Let go of its connections."""
        self._client.close()


@contextmanager
def open_register(settings: LedgerSettings) -> Iterator[SignatureRegister]:
    """Open the register of whichever ledger there is; raises `ConfigurationError`."""
    if settings.table is None:
        yield FileRegister(settings)
        return
    with closing(TableRegister(settings)) as register:
        yield register


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        # It was there when the service began.
        raise LedgerUnavailableError(error.message) from None


def _answer(records: list[Record], claim: Claim, now: float) -> Signature | SignerError | None:
    found = next((record for record in records if record.claim.key_alias == claim.key_alias), None)
    answer = None if found is None else found.answer_to(Claimed(claim, ""), now)
    return None if isinstance(answer, Claimed) else answer


def _bindings(records: list[Record]) -> list[Binding]:
    return [Binding(record.claim, record.signature) for record in records]
