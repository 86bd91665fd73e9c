"""A signed batch is checked by its public key alone, and nothing that was changed in it passes."""

import base64
import copy
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from signer.errors import InvalidInputError
from signer.signatures import fingerprint, public_key_pem
from signer.verification import read_public_keys, verify_document

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signed(transaction: dict[str, Any]) -> dict[str, Any]:
    """Sign a transaction with a stock library, as any peer could."""
    if "payload" in transaction:
        content = base64.b64decode(transaction["payload"])
    else:
        content = rfc8785.dumps(transaction["message"])
    signature = {
        "algorithm": "RSASSA_PKCS1_V1_5_SHA_256",
        "key_alias": "settlement",
        "key_label": "label",
        "key_fingerprint": fingerprint(KEY.public_key()),
        "digest": base64.b64encode(hashlib.sha256(content).digest()).decode(),
        "value": base64.b64encode(KEY.sign(content, padding.PKCS1v15(), hashes.SHA256())).decode(),
        "signed_at": "2028-03-08T12:00:00.000000Z",
        "audit_id": "chain-1",
    }
    return {**transaction, "signature": signature}


BATCH: dict[str, Any] = {
    "schema": "signed-settlement-batch/1",
    "batch_id": "B",
    "key": "settlement",
    "transactions": [
        signed({"transaction_id": "T1", "message": {"amount": "1.00", "name": "Grünwald"}}),
        signed({"transaction_id": "T2", "payload": base64.b64encode(b"<xml/>").decode()}),
    ],
}
KEYS = read_public_keys([public_key_pem(KEY.public_key())])


def problems(document: Any, transaction_id: str | None = None) -> list[str | None]:
    """Verify and give what is wrong with each transaction."""
    return [item.problem for item in verify_document(json.dumps(document).encode(), KEYS, transaction_id)]


def test_a_signed_batch_verifies_whole_and_in_part() -> None:
    """Every transaction is valid in the batch, picked out of it by id, and in a file of its own."""
    assert problems(BATCH) == [None, None]
    assert problems(BATCH, "T2") == [None]
    assert problems(BATCH["transactions"][0]) == [None]


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("message", "amount"), "1.01", "digest differs"),
        (("signature", "digest"), base64.b64encode(b"x" * 32).decode(), "digest differs"),
        (("signature", "value"), base64.b64encode(b"x" * 256).decode(), "not valid"),
        (("signature", "value"), "not base64", "base64"),
        (("signature", "algorithm"), "RSASSA_PSS_SHA_256", "not valid"),
        (("signature", "algorithm"), "none", "unknown signing algorithm"),
        (("signature", "key_fingerprint"), "sha256:" + "0" * 64, "fingerprint"),
        (("signature", "audit_id"), None, "no complete signature"),
        (("payload",), "AAAA", "exactly one of"),
        (("signature",), "text", "no complete signature"),
        (("extra",), "text", "unknown member"),
        (("signature", "extra"), "text", "unknown member"),
        (("transaction_id",), 7, "no transaction_id"),
    ],
)
def test_whatever_is_changed_is_found(path: tuple[str, ...], value: object, problem: str) -> None:
    """Each change of content or signature is named, and the untouched sibling stays valid."""
    document = copy.deepcopy(BATCH)
    target: Any = document["transactions"][0]
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    first, second = problems(document)
    assert first is not None
    assert problem in first
    assert second is None


@pytest.mark.parametrize("transaction_id", [None, "T1"])
def test_an_id_that_stands_twice_is_valid_nowhere(transaction_id: str | None) -> None:
    """Each transaction with that id has the problem, asked for by name too; the others stay valid."""
    document = copy.deepcopy(BATCH)
    document["transactions"].append(signed({"transaction_id": "T1", "message": {"amount": "2.00"}}))
    found = problems(document, transaction_id)
    assert ["twice" in (problem or "") for problem in found] == (
        [True, False, True] if not transaction_id else [True] * 2
    )


def test_a_batch_with_an_unknown_member_is_refused() -> None:
    """It would travel unsigned beside the signatures and look signed; `algorithm` is a member we know."""
    assert problems({**BATCH, "algorithm": "RSASSA_PSS_SHA_256"}) == [None, None]
    with pytest.raises(InvalidInputError, match="unknown member"):
        problems({**BATCH, "extra": "text"})


# On brainpoolP160r1, a curve that the library does not support.
UNSUPPORTED = b"""-----BEGIN PUBLIC KEY-----
MEIwFAYHKoZIzj0CAQYJKyQDAwIIAQEBAyoABHVwNk+LNOnuxQEf16ZJevaHsLgm
WfZU3hUYKO3JyQ7vRBekewRQQk0=
-----END PUBLIC KEY-----
"""


@pytest.mark.parametrize("pem", [UNSUPPORTED, b"", b"\xff"])
def test_a_key_that_cannot_be_used_is_bad_input(pem: bytes) -> None:
    """A curve the library does not support is refused like any other file that holds no RSA key."""
    with pytest.raises(InvalidInputError, match="not an RSA public key"):
        read_public_keys([pem])


def test_a_key_is_chosen_by_its_fingerprint_and_never_guessed() -> None:
    """With another key only, nothing is valid; with both, the right one is found."""
    body = json.dumps(BATCH).encode()
    other = read_public_keys([public_key_pem(OTHER.public_key())])
    assert all(item.problem is not None for item in verify_document(body, other))
    both = read_public_keys([public_key_pem(OTHER.public_key()), public_key_pem(KEY.public_key())])
    assert all(item.problem is None for item in verify_document(body, both))


@pytest.mark.parametrize("body", [b"", b"7", b"{}", b'{"schema":"signed-settlement-batch/1","transactions":[]}'])
def test_a_file_without_signatures_is_no_success(body: bytes) -> None:
    """Nothing to verify is an error, never an empty success."""
    with pytest.raises(InvalidInputError):
        verify_document(body, KEYS)


def verify_in_a_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `signer verify` with an empty environment: no settings, no HSM, no AWS."""
    command = [sys.executable, "-m", "signer", "verify", *arguments]
    return subprocess.run(command, env={}, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_tells_by_its_exit_status(tmp_path: Path) -> None:
    """0 valid, 1 invalid, 65 not a signed batch; JSON on stdout when asked for."""
    batch, key = tmp_path / "batch.json", tmp_path / "key.pem"
    batch.write_text(json.dumps(BATCH))
    key.write_bytes(public_key_pem(KEY.public_key()))
    done = verify_in_a_process(str(batch), "--public-key", str(key), "--output", "json")
    assert (done.returncode, [row["result"] for row in json.loads(done.stdout)]) == (0, ["valid", "valid"])
    batch.write_text(json.dumps(BATCH).replace("1.00", "1.01"))
    assert verify_in_a_process(str(batch), "--public-key", str(key)).returncode == 1
    assert verify_in_a_process(str(batch), "--public-key", str(key), "--transaction", "T2").returncode == 0
    batch.write_text("{}")
    assert verify_in_a_process(str(batch), "--public-key", str(key)).returncode == 65
    assert verify_in_a_process(str(batch), "--public-key", str(batch)).returncode == 65
    assert verify_in_a_process(str(tmp_path / "absent"), "--public-key", str(key)).returncode == 65


def test_nothing_of_the_file_reaches_the_terminal_as_a_command(tmp_path: Path) -> None:
    """Control characters are replaced, and brackets are printed as they are: not one is markup."""
    wanted, key = "[red]T[/red]", tmp_path / "key.pem"
    key.write_bytes(public_key_pem(KEY.public_key()))
    file = tmp_path / "[red]batch.json"
    transactions = [
        signed({"transaction_id": f"\x1b]0;title\x07\x1b[2J\r\n\u202e\x9b31m\ud800{wanted}", "payload": "AAAA"}),
        signed({"transaction_id": wanted, "payload": "AAAA"}),
    ]
    file.write_text(json.dumps({**BATCH, "transactions": transactions}))
    done = verify_in_a_process(str(file), "--public-key", str(key))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(wanted) == 2
    assert all(char.isprintable() for char in done.stdout.replace("\n", ""))
    assert len(done.stdout.splitlines()) == 3
    done = verify_in_a_process(str(file) + "\x1b[2J", "--public-key", str(key))
    assert done.returncode == 65
    assert "[red]batch.json?[2J cannot be read" in done.stderr
