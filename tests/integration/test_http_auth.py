"""Credentials meet settings: what is not taken is refused, tokens need privacy, `Host` is free where callers prove."""

from pathlib import Path

import httpx

from signer.policy import CallerPolicy, Policy
from tests.integration.http_support import Entrance, running, signing_request
from tests.issuer import AUDIENCE, ISSUER, Issuer
from tests.issuer import CALLER as JWT_CALLER

ISSUING = Issuer()
PROXY = {"networks": ["127.0.0.7/32"]}


def ask(entrance: Entrance, **headers: str) -> tuple[int, str | None]:
    answer = entrance.client.post("/v1/sign", json=signing_request(), headers=headers)
    return answer.status_code, answer.json().get("code")


def refused(entrance: Entrance, code: str) -> bool:
    return entrance.sample("signer_http_refused_credentials_total", code=code) > 0


def test_on_loopback_nobody_proves_anything() -> None:
    """Whoever is on this machine may ask, but not as somebody else, nor with what nobody would look at."""
    with running() as entrance:
        assert ask(entrance) == (200, None)
        assert ask(entrance, Authorization="Bearer a.b.c") == (401, "authorization_scheme_not_accepted")
        assert ask(entrance, **{"X-Amzn-Mtls-Clientcert-Leaf": "x"}) == (401, "forged_proxy_header")
        assert refused(entrance, "forged_proxy_header")
        assert {entry.caller for entry in entrance.audit.of("sign")} == {"http:loopback"}


def test_with_credentials_configured_nobody_is_loopback(tmp_path: Path) -> None:
    """Not even on loopback: the name is for a service that knows no others."""
    (tmp_path / "jwks.json").write_bytes(ISSUING.jwks())
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": tmp_path / "jwks.json"}
    for settings in ({"jwt": jwt}, {"proxy": PROXY}, {"jwt": jwt, "proxy": PROXY}):
        with running(**settings) as entrance:
            assert ask(entrance) == (401, "credentials_missing")
            assert entrance.client.get("/v1/keys").status_code == 401
            assert entrance.client.get("/v1/keys/settlement/public-key").status_code == 401
            assert entrance.client.get("/livez", headers={"Host": "signer.bank.example"}).status_code == 200


def test_a_token_past_the_balancer_is_refused(tmp_path: Path) -> None:
    """It came unencrypted, so anybody may have read it; what comes from the balancer came to it over TLS."""
    (tmp_path / "jwks.json").write_bytes(ISSUING.jwks())
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": tmp_path / "jwks.json"}
    bearer = {"Authorization": f"Bearer {ISSUING.token()}"}
    with running(jwt=jwt, proxy=PROXY) as entrance:
        assert ask(entrance, **bearer) == (401, "insecure_transport")
        transport = httpx.HTTPTransport(local_address="127.0.0.7")
        with httpx.Client(base_url=f"http://127.0.0.1:{entrance.port}", transport=transport) as balancer:
            refused = balancer.get("/v1/keys", headers=bearer)
            entrance.authority.replace(Policy({JWT_CALLER: CallerPolicy({})}))
            assert (refused.status_code, balancer.get("/v1/keys", headers=bearer).status_code) == (403, 200)


def test_a_refusal_says_how_to_do_better() -> None:
    """RFC 9110 and RFC 6750: a challenge with each 401, and with what the token lacks."""
    with running(proxy=PROXY) as entrance:
        answer = entrance.client.post("/v1/sign", json=signing_request())
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="signer"'
        answer = entrance.client.post("/v1/sign?access_token=x", json=signing_request())
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="signer", error="invalid_request"'
        assert "access_token" not in entrance.log.getvalue()
