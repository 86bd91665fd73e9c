"""TLS files that are wrong are no start; what is left out is not asked for."""

import pytest
from cryptography.hazmat.primitives import serialization

from signer.errors import ConfigurationError
from tests.integration.http_support import running
from tests.integration.tls_support import BAD_LISTS, Files, client, sign
from tests.pki import DAY, dns


def test_without_authorities_a_token_may_still_come(files: Files) -> None:
    """TLS for privacy alone: no certificate is asked for."""
    (files.directory / "jwks.json").write_text("{}")
    jwt = {"issuer": "https://issuer.example", "audience": "signer", "jwks_file": files.directory / "jwks.json"}
    with running(tls=files.settings(client_ca=None, client_crl=None), jwt=jwt) as entrance:
        with client(entrance, files.context(None)) as asking:
            answers = [sign(asking), asking.get("/v1/keys"), asking.get("/v1/keys/settlement/public-key")]
        assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(401, "credentials_missing")}


@pytest.mark.parametrize("wrong", ["certificate", "key", "client_ca", "client_crl"])
def test_a_file_that_is_not_there_is_no_start(files: Files, wrong: str) -> None:
    """Each file is named."""
    absent = {wrong: files.directory / "absent"}
    with pytest.raises(ConfigurationError, match=wrong), running(tls=files.settings(**absent)):
        pytest.fail("it must not start")


def test_a_key_that_everybody_may_read_is_no_start(files: Files) -> None:
    """It is as secret as the PIN."""
    files.key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"), running(tls=files.settings()):
        pytest.fail("it must not start")


def test_a_key_with_a_passphrase_does_not_ask_for_it(files: Files) -> None:
    """Nobody sits at the terminal of a service."""
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"canary"),
        )
    )
    with pytest.raises(ConfigurationError, match="are not PEM files"), running(tls=files.settings()):
        pytest.fail("it must not start")


def test_an_expired_certificate_of_our_own_is_no_start(files: Files) -> None:
    """No client would accept it."""
    old = files.root.issue("signer", [dns("localhost")], starts=-3 * DAY, ends=-DAY)
    certificate, key = old.write(files.directory, "old")
    with (
        pytest.raises(ConfigurationError, match="has expired"),
        running(tls=files.settings(certificate=certificate, key=key)),
    ):
        pytest.fail("it must not start")


def test_the_same_list_at_start_is_no_start(files: Files) -> None:
    """What would be passed over later is an error of configuration at first."""
    for name, content in BAD_LISTS:
        files.client_crl.write_bytes(content(files))
        with pytest.raises(ConfigurationError, match="client_crl"), running(tls=files.settings()):
            pytest.fail(name)
