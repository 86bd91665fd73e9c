"""Every parser, given whatever comes: it gives a value or raises an error of ours, and the error quotes no input."""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signer import strict_json
from signer.api.certificates import read_certificate
from signer.api.idempotency import stand_in_id
from signer.api.requests import parse_search, parse_sign, parse_sign_batch, parse_verify
from signer.errors import SignerError
from signer.policy_file import parse_policy
from signer.policy_kills import parse_kills
from signer.transactions import parse_batch
from signer.verification import read_public_keys

CANARY: Final = "Canary7Canary"
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(CANARY),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just(CANARY), inner, max_size=4)
    ),
    max_leaves=20,
)
_MEMBERS: Final = (
    "schema", "batch_id", "key", "algorithm", "transactions", "transaction_id", "message", "payload", "digest",
    "signature", "reference", "dry_run", "keys", "callers",
)  # fmt: skip
_KNOWN = st.sampled_from(["settlement-batch/1", "RSASSA_PSS_SHA_256", "settlement", "AA==", "A" * 43 + "=", True])
_OBJECTS = st.recursive(
    _KNOWN | _VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_MEMBERS), inner)
)
_SEEDS: Final = (
    b'{"schema":"settlement-batch/1","batch_id":"B","key":"k","transactions":[{"transaction_id":"T","message":{}}]}',
    b'{"key":"settlement","payload":"AA==","signature":"AA=="}',
    b'{"key":"settlement","transactions":[{"reference":"L","transaction_id":"T","payload":"AA=="}]}',
    b'{"key":"settlement","transaction_id":"T","message":{"amount":"1.00"},"dry_run":true}',
    b'[callers."queue:inbound"]\nmax_batch = 1\n[callers."queue:inbound".keys.settlement]\n',
    b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
)


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """Something nearly right: a piece of it replaced."""
    seed = draw(st.sampled_from(_SEEDS))
    start = draw(st.integers(0, len(seed)))
    end = draw(st.integers(start, len(seed)))
    return seed[:start] + draw(st.binary(max_size=20)) + seed[end:]


INPUTS = st.binary(max_size=400) | _mutated() | (_VALUES | _OBJECTS).map(json.dumps).map(str.encode)
PARSERS: Final[dict[str, Callable[[bytes], Any]]] = {
    "strict_json": strict_json.parse,
    "canonical": lambda data: strict_json.canonical(strict_json.parse(data)),
    "sign": lambda data: parse_sign(data, "~once:1"),
    "sign_batch": lambda data: parse_sign_batch(data, 10, lambda index: f"~once:{index}"),
    "verify": parse_verify,
    "search": lambda data: parse_search([("digest", data.decode("latin-1"))]),
    "settlement_batch": lambda data: parse_batch(data, 10),
    "idempotency_key": lambda data: stand_in_id([data.decode("latin-1")], "somebody"),
    "certificate": lambda data: read_certificate(data.decode("latin-1")).check_dates(datetime(2028, 1, 1, tzinfo=UTC)),
    "public_key": lambda data: read_public_keys([data]),
    "policy": parse_policy,
    "kills": parse_kills,
}
# People write these two, and are told which member is wrong.
_NAMES_MEMBERS: Final = frozenset({"policy", "kills"})


def check(name: str, data: bytes) -> str:
    """Let one parser read; tells whether it took it. Raises whatever is none of its promises."""
    try:
        PARSERS[name](data)
    except SignerError as error:
        said = str(error)
    else:
        return "read"
    assert name in _NAMES_MEMBERS or CANARY not in said, said
    return "refused"


def run(seconds: float) -> Counter[tuple[str, str]]:
    """Go through the parsers, one after the other, until the time is over; gives how much each read and refused."""
    counts: Counter[tuple[str, str]] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name in PARSERS:
            _round(name, counts)
    return counts


def _round(name: str, counts: Counter[tuple[str, str]]) -> None:
    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(INPUTS)
    def read(data: bytes) -> None:
        counts[name, check(name, data)] += 1

    read()


def main() -> None:
    """Fuzz for so many seconds, and print the figures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=600.0)
    counts = run(arguments.parse_args().seconds)
    for (name, outcome), count in sorted(counts.items()):
        print(f"{name:20} {outcome:8} {count:>9,}")  # noqa: T201
    print(f"{sum(counts.values()):,} inputs, nothing found")  # noqa: T201


if __name__ == "__main__":
    main()
