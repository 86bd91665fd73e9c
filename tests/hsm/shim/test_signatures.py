"""Signatures: those that are wrong, those that are replayed, and what python-pkcs11 does to get one."""

import pkcs11
from pkcs11 import MGF, Mechanism

from softhsm.shim.client import Shim
from tests.hsm.conftest import SECOND_LABEL
from tests.hsm.shim.conftest import OpenClient
from tests.hsm.shim.raw import Client, private_key, sign

PSS = (Mechanism.SHA256, MGF.SHA256, 32)


def test_the_size_query_can_cost_a_round_trip(client: Client, shim: Shim) -> None:
    """C_Sign without a place for the signature is delayed for itself."""
    key = private_key(client.open_session())
    shim.delay("C_Sign:size", fixed_ms=0.05)
    sign(key)
    counts = shim.counts()
    assert (counts["C_Sign:size"].delayed, counts["C_Sign"].delayed) == (1, 0)


def test_the_time_inside_a_call_is_counted(client: Client, shim: Shim) -> None:
    """Signing uses the CPU, waiting for a slow HSM does not."""
    key = private_key(client.open_session())
    sign(key)
    signing_s = shim.counts()["C_Sign"].cpu_s
    shim.delay("C_FindObjectsInit", fixed_ms=200)
    private_key(client.open_session())
    waiting_s = shim.counts()["C_FindObjectsInit"].cpu_s
    assert signing_s > 0
    assert 0 < waiting_s < 0.2


def test_a_flipped_bit(client: Client, shim: Shim) -> None:
    """The signature differs in one bit from the right one, once."""
    key = private_key(client.open_session())
    good = sign(key)
    shim.spoil_signatures("flip", times=1)
    spoilt = int.from_bytes(sign(key), "big")
    assert (spoilt ^ int.from_bytes(good, "big")).bit_count() == 1
    assert sign(key) == good


def test_a_truncated_signature(client: Client, shim: Shim) -> None:
    """The last byte is missing."""
    key = private_key(client.open_session())
    good = sign(key)
    with shim.spoil_signatures("truncate"):
        assert sign(key) == good[:-1]


def test_the_signature_of_another_key(client: Client, shim: Shim) -> None:
    """It is that of the key whose label was named, and only as often as was said."""
    session = client.open_session()
    key, other = private_key(session), private_key(session, SECOND_LABEL)
    good, others = sign(key), sign(other)
    shim.sign_with_other_key(SECOND_LABEL, times=1)
    assert [sign(key), sign(key)] == [others, good]


def test_signatures_are_replayed(client: Client, shim: Shim) -> None:
    """The same key, mechanism and digest give the same signature again, even by PSS; another of them another."""
    session = client.open_session()
    key, other = private_key(session), private_key(session, SECOND_LABEL)

    def pss(key: pkcs11.PrivateKey, data: bytes) -> bytes:
        return bytes(key.sign(data, mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=PSS))  # type: ignore[attr-defined]

    data, more = b"\1" * 32, b"\2" * 32
    plain = sign(key)
    with shim.replay_signatures():
        first = pss(key, data)
        assert pss(key, data) == first
        assert len({first, pss(key, more), pss(other, data), sign(key)}) == 4
        assert [sign(key), sign(other)] == [plain, sign(other)]
    assert pss(key, data) != first


def test_no_signature_is_replayed_for_a_key_that_has_the_handle_now(open_client: OpenClient, shim: Shim) -> None:
    """The module numbers anew after C_Finalize: what was remembered by handles is forgotten."""
    key = private_key(open_client().open_session())
    shim.replay_signatures()
    wrong, handle = sign(key), key.handle
    other = private_key(open_client().open_session(), SECOND_LABEL)
    assert other.handle == handle
    assert sign(other) != wrong
