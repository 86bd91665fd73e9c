"""Every way in to `/v1/sign` that must fail, with the code that it must fail with."""

import ssl
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.issuer import Issuer, bound_to
from tests.pki import Authority, Holder
from tests.service.entrance import BALANCER, Answer, Site, leaf

Try = Callable[[Site], Answer]
_STRANGE = Issuer()
_MINUTE = 60


@dataclass(frozen=True)
class Way:
    """Somebody tries to get in."""

    name: str
    code: str
    go: Try
    status: int | None = 401
    """None: there is no answer, for there is no request."""
    required: bool = False
    """Over the service that lets nobody connect without a certificate."""
    before: Try | None = None
    """What the same person does first, with success."""


def _handshake(name: str, code: str, go: Try) -> Way:
    return Way(name, code, go, status=None, required=True)


def _bearer(name: str, code: str, token: Callable[[Issuer], str]) -> Way:
    return Way(name, code, lambda site: site.bearer(token(site.issuer)))


def _claims(name: str, code: str, **changes: Any) -> Way:
    return _bearer(name, code, lambda issuer: issuer.token(**changes))


def _relative(name: str, code: str, claim: str, seconds: int) -> Way:
    return _bearer(name, code, lambda issuer: issuer.token(None, **{claim: int(time.time()) + seconds}))


def _header(name: str, code: str, **header: Any) -> Way:
    return _bearer(name, code, lambda issuer: issuer.token(header))


def _old_tls(site: Site) -> Answer:
    context = site.context(site.people.honest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("DEFAULT@SECLEVEL=0")
    return site.ask(context=context)


def _weak_cipher(site: Site) -> Answer:
    context = site.context(site.people.honest)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    return site.ask(context=context)


def _impostor(site: Site) -> Answer:
    """An end certificate plays authority for another one."""
    authority = Authority("settlement")
    authority.key, authority.certificate = site.people.honest.key, site.people.honest.certificate
    issued = authority.issue("settlement")
    return site.ask(
        Holder(issued.certificate, issued.key, (site.people.honest.certificate, site.people.middle.certificate))
    )


def _forged(site: Site, **options: Any) -> Answer:
    return site.ask(None, [leaf(site.people.honest)], **options)


def _balanced(name: str, code: str, headers: Callable[[Site], list[tuple[str, str]]]) -> Way:
    return Way(name, code, lambda site: site.ask(None, headers(site), source=BALANCER))


def _authorization(name: str, code: str, value: str) -> Way:
    return Way(name, code, lambda site: site.ask(None, [("Authorization", value)]))


def _in_query(name: str) -> Way:
    return Way(f"a token in the query string as {name}", "token_in_query",
               lambda site: site.ask(site.people.honest, target=f"/v1/sign?{name}=x"), 400)  # fmt: skip


def _allowed(name: str, code: str, status: int, **changes: Any) -> Way:
    """Somebody who is known asks for what is not granted."""
    return Way(name, code, lambda site: site.ask(site.people.honest, **changes), status)


HANDSHAKES = [
    _handshake("no certificate", "certificate_missing", lambda site: site.ask()),
    _handshake("an expired certificate", "certificate_expired", lambda site: site.ask(site.people.expired)),
    _handshake("a certificate of tomorrow", "certificate_not_yet_valid", lambda site: site.ask(site.people.early)),
    _handshake("an unknown authority", "certificate_authority_unknown", lambda site: site.ask(site.people.stranger)),
    _handshake("a namesake authority", "certificate_authority_unknown", lambda site: site.ask(site.people.namesake)),
    _handshake("a revoked certificate", "certificate_revoked", lambda site: site.ask(site.people.revoked)),
    _handshake("a server's certificate", "certificate_wrong_purpose", lambda site: site.ask(site.people.server)),
    _handshake("a certificate that issues another", "certificate_rejected", _impostor),
    _handshake("TLS 1.1", "tls_version_not_accepted", _old_tls),
    _handshake("a cipher without authentication", "tls_cipher_not_accepted", _weak_cipher),
    _handshake(
        "a token in place of a certificate", "certificate_missing", lambda site: site.bearer(site.issuer.token())
    ),
    _handshake("a forged header in place of a certificate", "certificate_missing", _forged),
]
CERTIFICATES = [
    Way("nothing at all", "credentials_missing", lambda site: site.ask()),
    Way("two SPIFFE IDs", "certificate_without_identity", lambda site: site.ask(site.people.two_ids)),
    Way("a relative SPIFFE ID", "certificate_without_identity", lambda site: site.ask(site.people.relative_id)),
    Way("a wildcard", "certificate_without_identity", lambda site: site.ask(site.people.wildcard)),
    Way("a certificate of nobody", "certificate_without_identity", lambda site: site.ask(site.people.nobody)),
]
BALANCERS = [
    Way("a forged balancer header", "forged_proxy_header", _forged),
    Way("the same from next door", "forged_proxy_header", lambda site: _forged(site, source="127.0.0.8")),
    Way("a forged header beside a good certificate", "forged_proxy_header",
        lambda site: site.ask(site.people.other, [leaf(site.people.honest)])),
    Way("a forged header beside a good token", "forged_proxy_header",
        lambda site: site.ask(None, [leaf(site.people.honest), ("Authorization", f"Bearer {site.issuer.token()}")])),
    Way("a forged header with underscores", "forged_proxy_header",
        lambda site: site.ask(None, [("X_Amzn_Mtls_Clientcert_Leaf", leaf(site.people.honest)[1])])),
    Way("a forged subject alone", "forged_proxy_header",
        lambda site: site.ask(None, [("X-Amzn-Mtls-Clientcert-Subject", "CN=settlement")])),
    Way("X-Forwarded-For of the balancer", "forged_proxy_header",
        lambda site: site.ask(None, [leaf(site.people.honest), ("X-Forwarded-For", BALANCER)])),
    _balanced("a balancer that passes on unverified", "proxy_header_malformed",
              lambda site: [("X-Amzn-Mtls-Clientcert", leaf(site.people.honest)[1])]),
    _balanced("a balancer without a leaf", "proxy_header_malformed",
              lambda _site: [("X-Amzn-Mtls-Clientcert-Subject", "CN=settlement")]),
    Way("two leaves", "multiple_credentials",
        lambda site: site.ask(None, [leaf(site.people.other), leaf(site.people.honest)], source=BALANCER), 400),
    _balanced("a leaf of another number", "proxy_header_malformed",
              lambda site: [leaf(site.people.honest), ("X-Amzn-Mtls-Clientcert-Serial-Number", "01")]),
    _balanced("a leaf that is none", "certificate_malformed",
              lambda _site: [("X-Amzn-Mtls-Clientcert-Leaf", "%FFcert")]),
    _balanced("an expired leaf", "certificate_expired", lambda site: [leaf(site.people.expired)]),
    _balanced("a leaf of tomorrow", "certificate_not_yet_valid", lambda site: [leaf(site.people.early)]),
    _balanced("a server's leaf", "certificate_wrong_purpose", lambda site: [leaf(site.people.server)]),
    Way("a balancer that shows a certificate too", "multiple_credentials",
        lambda site: site.ask(site.people.other, [leaf(site.people.honest)], source=BALANCER), 400),
]  # fmt: skip
TOKENS = [
    _bearer("alg none", "token_algorithm_not_accepted", lambda issuer: issuer.unsigned({"alg": "none"}) + "."),
    _bearer("alg nOnE", "token_algorithm_not_accepted", lambda issuer: issuer.unsigned({"alg": "nOnE"}) + "."),
    _bearer("no alg", "token_algorithm_not_accepted", lambda issuer: issuer.sign(issuer.unsigned({"kid": "key-1"}))),
    _bearer("HS256 with the public key", "token_algorithm_not_accepted", lambda issuer: issuer.hs256_token()),
    _header("an algorithm that is not pinned", "token_algorithm_not_accepted", alg="PS256"),
    _header("ES256 with the RSA key", "token_key_unknown", alg="ES256"),
    _bearer("RS256 with the EC key", "token_key_unknown", lambda issuer: issuer.ec_token({"alg": "RS256"})),
    _header("an unknown key", "token_key_unknown", kid="key-2"),
    _bearer("no key named", "token_key_unknown", lambda issuer: issuer.sign(issuer.unsigned({"alg": "RS256"}))),
    _bearer("another issuer's signature", "token_signature_invalid", lambda _issuer: _STRANGE.token()),
    _bearer("no signature", "token_signature_invalid", lambda issuer: issuer.token().rpartition(".")[0] + "."),
    _bearer("altered claims", "token_signature_invalid",
            lambda issuer: ".".join([*issuer.unsigned({"alg": "RS256", "kid": "key-1"}, sub="root").split("."),
                                     issuer.token().rpartition(".")[2]])),
    _header("a key from jku", "token_header_not_accepted", jku="https://attacker.example/jwks.json"),
    _header("a key from x5u", "token_header_not_accepted", x5u="https://attacker.example/cert.pem"),
    _header("its own key", "token_header_not_accepted", jwk={"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
    _header("its own certificate", "token_header_not_accepted", x5c=["MIIB"]),
    _header("a critical extension", "token_header_not_accepted", crit=["b64"], b64=True),
    _header("another kind of token", "token_header_not_accepted", typ="dpop+jwt"),
    _claims("no exp", "token_claim_missing", exp=None),
    _claims("no iat", "token_claim_missing", iat=None),
    _claims("no iss", "token_claim_missing", iss=None),
    _claims("no aud", "token_claim_missing", aud=None),
    _claims("no sub", "token_claim_missing", sub=None),
    _claims("exp as a string", "token_claim_malformed", exp="9999999999"),
    _claims("exp as a truth", "token_claim_malformed", exp=True),
    _claims("exp without an end", "token_lifetime_too_long", exp=1e308),
    _claims("exp beyond all numbers", "token_malformed", exp=float("inf")),
    _claims("a negative iat", "token_claim_malformed", iat=-5),
    _claims("a negative nbf", "token_claim_malformed", nbf=-1),
    _relative("a token for two days", "token_lifetime_too_long", "exp", 2 * 24 * 60 * _MINUTE),
    _relative("a token of the day before yesterday", "token_lifetime_too_long", "iat", -2 * 24 * 60 * _MINUTE),
    _claims("sub as a list", "token_claim_malformed", sub=["settlement-service"]),
    _claims("a sub of two lines", "token_claim_malformed", sub="settlement-service\n"),
    _relative("an expired token", "token_expired", "exp", -_MINUTE),
    _relative("a token that begins tomorrow", "token_not_yet_valid", "nbf", _MINUTE),
    _relative("a token from the future", "token_not_yet_valid", "iat", _MINUTE),
    _claims("another issuer", "token_issuer_mismatch", iss="https://issuer.example/realms/bank/"),
    _claims("another audience", "token_audience_mismatch", aud="Signer"),
    _claims("other audiences", "token_audience_mismatch", aud=["account", "ledger"]),
    _bearer("a bound token without its certificate", "token_certificate_mismatch",
            lambda issuer: issuer.token(cnf={"x5t#S256": "x" * 43})),
    _bearer("a token bound to something else", "token_certificate_mismatch",
            lambda issuer: issuer.token(cnf={"jkt": "x" * 43})),
    Way("a token replayed with another certificate", "token_certificate_mismatch",
        lambda site: site.bearer(site.issuer.token(cnf=bound_to(site.people.honest)), site.people.other)),
    Way("a token replayed through the balancer", "token_certificate_mismatch",
        lambda site: site.ask(None, [leaf(site.people.other), (
            "Authorization", f"Bearer {site.issuer.token(cnf=bound_to(site.people.honest))}")], source=BALANCER)),
    Way("an unbound token beside a certificate", "token_certificate_mismatch",
        lambda site: site.bearer(site.issuer.token(), site.people.honest)),
    _claims("a token of 9 KB", "token_too_large", scope="x" * 9_000),
    _authorization("no token", "token_malformed", "Bearer a.b"),
    _authorization("half a token", "token_malformed", "Bearer e30.e30.!"),
    _authorization("a token that is no JSON", "token_malformed", "Bearer AAAA.AAAA.AAAA"),
    _authorization("an empty token", "token_malformed", "Bearer "),
    _authorization("a password", "authorization_scheme_not_accepted", "Basic c2lnbmVyOnNpZ25lcg=="),
    _authorization("an API key", "authorization_scheme_not_accepted", "ApiKey 0123456789"),
    Way("a token in the query string", "token_in_query",
        lambda site: site.ask(target=f"/v1/sign?access_token={site.issuer.token()}"), 400),
    Way("the same beside a good certificate", "token_in_query",
        lambda site: site.ask(site.people.honest, target=f"/v1/sign?Access_Token={site.issuer.token()}"), 400),
    *(_in_query(name) for name in ("token", "id_token", "jwt", "bearer_token", "Bearer-Token", "bearer", "auth_token",
                                   "refresh_token", "assertion", "authorization")),
    Way("a token in the query string under another name", "token_in_query",
        lambda site: site.ask(site.people.honest, target=f"/v1/sign?q=1&t={site.issuer.token()}"), 400),
    Way("two tokens", "multiple_credentials",
        lambda site: site.ask(None, [("Authorization", f"Bearer {site.issuer.token()}")] * 2), 400),
]  # fmt: skip
PERMISSIONS = [
    Way("a certificate that may use no key", "not_authorised", lambda site: site.ask(site.people.other), 403),
    Way("a subject that may use no key", "not_authorised", lambda site: site.ask(site.people.subject_only), 403),
    Way("a token that may use no key", "not_authorised",
        lambda site: site.bearer(site.issuer.token(sub="somebody-else")), 403),
    Way("somebody behind the balancer who may use no key", "not_authorised",
        lambda site: site.ask(None, [leaf(site.people.other)], source=BALANCER), 403),
    _allowed("a key that is granted and not there", "unknown_key", 404, key="planned"),
    _allowed("a key that is neither granted nor there", "not_authorised", 403, key="payout"),
    Way("a key that is not there, asked for by who may use none", "not_authorised",
        lambda site: site.ask(site.people.other, key="payout"), 403),
    Way("a key that is not there, asked for by a killed caller", "caller_killed",
        lambda site: site.ask(site.people.killed, key="payout"), 403),
    Way("a malformed request of who may use no key", "not_authorised",
        lambda site: site.ask(site.people.other, surplus=1), 403),
    Way("a malformed request of a killed caller", "caller_killed",
        lambda site: site.ask(site.people.killed, surplus=1), 403),
    _allowed("no transaction id", "transaction_id_required", 400, transaction_id=None),
    _allowed("a key that is granted to nobody", "not_authorised", 403, key="fees"),
    _allowed("a killed key", "key_killed", 403, key="killed"),
    Way("a killed caller", "caller_killed", lambda site: site.ask(site.people.killed), 403),
    Way("a killed caller at a key that it may not use", "caller_killed",
        lambda site: site.ask(site.people.killed, key="fees"), 403),
    Way("a killed caller whose body never comes", "caller_killed",
        lambda site: site.ask(site.people.killed, lacking=9), 403),
    Way("a caller of no policy whose body never comes", "not_authorised",
        lambda site: site.ask(site.people.other, lacking=9), 403),
    Way("nobody whose body never comes", "credentials_missing", lambda site: site.ask(lacking=9)),
    Way("a killed key of somebody else", "not_authorised",
        lambda site: site.ask(site.people.narrow, key="killed"), 403),
    Way("an algorithm that is not granted", "not_authorised",
        lambda site: site.ask(site.people.narrow, algorithm="RSASSA_PSS_SHA_256"), 403),
    Way("a kind of content that is not granted", "not_authorised",
        lambda site: site.ask(site.people.narrow, message=None, payload="AAAA"), 403),
    Way("more at once than is granted", "too_many_transactions",
        lambda site: site.ask(site.people.narrow, target="/v1/sign-batch", transaction_id=None, message=None,
                              transactions=[{"transaction_id": f"M-{i}", "payload": "AAAA"} for i in range(3)]),
        400),
    Way("more than a second's share", "rate_limited", lambda site: site.ask(site.people.limited, transaction_id="L-2"),
        429, before=lambda site: site.ask(site.people.limited, transaction_id="L-1")),
]  # fmt: skip
WAYS = [*HANDSHAKES, *CERTIFICATES, *BALANCERS, *TOKENS, *PERMISSIONS]
