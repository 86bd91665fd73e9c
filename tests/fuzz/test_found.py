"""What fuzzing found once: it came out as an error of another kind, was quoted, or was taken for something else."""

import json

import pytest

from tests.fuzz.file_parsers import PARSERS as FILES
from tests.fuzz.mutations import CANARY, der_of, label_of, pem_of
from tests.fuzz.parsers import PARSERS
from tests.fuzz.store_parsers import PARSERS as STORES
from tests.pki import Authority

AUTHORITY = FILES["client authorities"].specimens[0]
LISTS = FILES["revocation lists"].specimens[0]
SUBJECT_ONLY = Authority("Root").issue("settlement").pem.encode()
LINES = STORES["audit log's last signature"].specimens[0]
ITEM = json.loads(STORES["ledger's item"].specimens[0])
DEEP = "[" * 9000


def altered(pem: bytes, old: bytes, new: bytes) -> bytes:
    """The same, with other octets in its DER."""
    der = der_of(pem)
    assert old in der
    assert len(old) == len(new)
    return pem_of(label_of(pem), der.replace(old, new))


def with_url(url: str) -> bytes:
    """Settings that fetch keys from there."""
    settings = FILES["settings"].specimens[0]
    assert b"https://issuer/jwks" in settings
    return settings.replace(b"https://issuer/jwks", url.encode())


def settings_with(line: str) -> bytes:
    """Settings that are good, but for one line."""
    return line.encode() + b"\n" + FILES["settings"].specimens[0]


VERSION = (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03")
FOUND = {
    "X.509 version 4": ("certificate", altered(SUBJECT_ONLY, *VERSION)),
    "X.509 version 4 by a balancer": (
        "balancer's headers",
        altered(SUBJECT_ONLY, *VERSION).replace(b"\n", b"%0A").replace(b" ", b"%20"),
    ),
    "a bit string for a name": ("certificate", altered(SUBJECT_ONLY, b"\x0c\nsettlement", b"\x03\nsettlement")),
    "an authority of version 4": ("client authorities", altered(AUTHORITY, *VERSION)),
    "an authority without a key": ("client authorities", altered(AUTHORITY, b"\x03\x42\x00\x04", b"\x03\x42\x00\x09")),
    "a revocation list of version 4": (
        "revocation lists",
        altered(LISTS, b"\x02\x01\x010\n\x06\x08", b"\x02\x01\x030\n\x06\x08"),
    ),
    "a revocation list of nobody": ("revocation lists", altered(LISTS, b"\x0c\x04Root", b"\x4c\x04Root")),
    "a key in S3 with half a character": (
        "S3 pointer's body",
        b'["software.amazon.payloadoffloading.PayloadS3Pointer",{"s3BucketName":"a-b","s3Key":"\\ud800"}]',
    ),
    "base64 that is not ASCII": (
        "quarantine entry's reasons",
        b'{"attributes": {"a": {"DataType": "Binary", "BinaryValue": "\\u0663"}}}',
    ),
    "a redrive policy without an end": ("redrive policy", b'{"maxReceiveCount": 1e999, "deadLetterTargetArn": ""}'),
    "a deep redrive policy": ("redrive policy", DEEP.encode()),
    "a deep latch": ("latch", DEEP.encode()),
    "deep settings": ("settings", f"a = {DEEP}".encode()),
    "a deep variable": ("settings in a variable", DEEP.encode()),
    "settings with a long number": ("settings", settings_with("signing_timeout_s = " + "9" * 5000)),
    "settings that name another file": ("settings", settings_with('_env_file = "other"')),
    "settings that read the command line": ("settings", settings_with('_cli_parse_args = ["--help"]')),
    "settings that name an argument": ("settings", settings_with("__pydantic_self__ = 1")),
    "a host that is no address": ("settings", with_url(f"https://[{CANARY}]/")),
    "a password in a URL": ("settings", with_url(f"https://user:{CANARY}\u2100@issuer/")),
    "a policy with a long number": ("policy", b"schema = " + b"9" * 5000),
    "holders that are none": ("ledger's holders", b"5"),
    "holders that are no JSON": ("ledger's holders", b"["),
    "holders that are deep": ("ledger's item", json.dumps({**ITEM, "former_holders": {"S": DEEP}}).encode()),
    "a holder of a year that is none": (
        "ledger's holders",
        b'[{"token": "t", "owner": "o", "claimed_at": 9999999999999999999999999999991835524801.5}]',
    ),
    "a holder of no number": ("ledger's holders", b'[{"token": "t", "owner": "o", "claimed_at": ' + b"9" * 400 + b"}]"),
    "a claim of a year that is none": ("ledger's item", json.dumps({**ITEM, "claimed_at": {"N": "1e12"}}).encode()),
    "a signature that is none": ("ledger's signature", b"[]"),
    "a signature that is no JSON": ("ledger's signature", b"{"),
    "an audit line that was changed": (
        "audit log's last signature",
        LINES.replace(b'"operation":"sign"', b'"operation":"sign'),
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_it_is_refused_with_the_error_that_is_documented(what: str) -> None:
    """And not quoted."""
    name, data = FOUND[what]
    assert PARSERS[name].check(data) == "refused"
