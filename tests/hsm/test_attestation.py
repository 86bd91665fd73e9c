"""What an auditor is shown about a key is what the token says, right or wrong."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signer.demo.stack import Token
from signer.hsm.attestation import Attestation, attest, rows
from signer.hsm.compliance import KeySpec
from signer.hsm.module import Module
from signer.signatures import fingerprint
from tests.hsm.conftest import GOOD_LABEL, spec

NOW = "2028-03-08T12:00:00.000000Z"


@pytest.fixture
def module(softhsm: Token, pin: str) -> Iterator[Module]:
    """Logged in."""
    with closing(Module(softhsm.module, softhsm.label)) as opened:
        opened.log_in(pin)
        yield opened


def attested(module: Module, wanted: KeySpec) -> Attestation:
    """Examine one key."""
    (attestation,) = attest(module, [wanted], "signer-dev", NOW)
    return attestation


def wrong(attestation: Attestation) -> dict[str, tuple[str, str]]:
    """What deviates, and was not waived: found and expected."""
    findings = [finding for finding in attestation.findings if not (finding.ok or finding.waived)]
    return {finding.subject: (finding.found, finding.expected) for finding in findings}


def test_a_good_key_is_shown_with_all_its_evidence(module: Module, softhsm: Token) -> None:
    """Token, Crypto User, moment, public key, and each property beside what it should be."""
    found = attested(module, spec())
    assert (found.compliant, wrong(found)) == (True, {})
    assert (found.token, found.crypto_user, found.examined_at) == (softhsm.label, "signer-dev", NOW)
    assert found.token_serial == module.token_serial
    assert found.public_key is not None
    key = load_pem_public_key(found.public_key.encode())
    assert found.fingerprint == fingerprint(key)  # type: ignore[arg-type] # compared, not used
    properties = "SIGN SENSITIVE EXTRACTABLE ALWAYS_SENSITIVE NEVER_EXTRACTABLE LOCAL".split()  # noqa: SIM905
    assert [finding.subject for finding in found.findings] == [
        *("private keys with the label", "key type", "key size", "public exponent", "fingerprint"),
        *properties,
    ]


@pytest.mark.parametrize(
    ("label", "deviation"),
    [
        ("absent", {"private keys with the label": ("0", "1")}),
        ("wrong-two", {"private keys with the label": ("several", "1")}),
        ("wrong-ec", {"key type": ("EC", "RSA")}),
        ("wrong-bits", {"key size": ("3072 bits", "2048 bits")}),
        ("wrong-sign", {"SIGN": ("False", "True")}),
    ],
)
def test_a_wrong_key_is_shown_with_what_is_wrong(
    module: Module, label: str, deviation: dict[str, tuple[str, str]]
) -> None:
    """It is evidence too: nothing raises, and exactly the deviation is marked."""
    found = attested(module, spec(label))
    assert not found.compliant
    assert wrong(found) == deviation


def test_a_key_that_is_not_the_pinned_one_is_shown_with_both_fingerprints(module: Module) -> None:
    """What was found, and what the settings expect."""
    pinned = "sha256:" + "0" * 64
    found = attested(module, spec(GOOD_LABEL, pinned))
    assert wrong(found) == {"fingerprint": (found.fingerprint, pinned)}


def test_a_waived_property_is_shown_as_such(module: Module) -> None:
    """Neither hidden nor called right."""
    found = attested(module, spec("wrong-extractable", None, "always_sensitive", "never_extractable"))
    verdicts = {row["subject"]: row["verdict"] for row in rows([found])}
    assert (verdicts["NEVER_EXTRACTABLE"], verdicts["EXTRACTABLE"], verdicts["SIGN"]) == ("waived", "WRONG", "ok")
