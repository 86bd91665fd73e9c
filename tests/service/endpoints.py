"""The other endpoints, and every way in to them that must fail."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tests.issuer import Issuer, bound_to
from tests.pki import Holder
from tests.service.entrance import BALANCER, PAYLOAD, Answer, Header, Site, leaf
from tests.service.ways_in import Way


@dataclass(frozen=True)
class Endpoint:
    """What can be asked for beside `/v1/sign`, and by whom not."""

    name: str
    target: str
    method: str = "POST"
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The path as the OpenAPI document writes it."""
        return self.target.partition("?")[0].replace("/settlement", "/{alias}")

    def ways(self) -> list[Way]:
        """Everything that fails at each of them: whoever proves nothing, or is nobody, or was stopped."""
        return [
            Way(f"nothing at all, to {self.name}", "credentials_missing", self.ask),
            Way(f"a forged header, to {self.name}", "forged_proxy_header",
                lambda site: self.ask(site, None, [leaf(site.people.honest)])),
            *(Way(f"{what}, to {self.name}", code, partial(self._bearer, token)) for what, code, token in TOKENS),
            Way(f"a token replayed, to {self.name}", "token_certificate_mismatch",
                lambda site: self.ask(site, site.people.other, [_bound(site)])),
            Way(f"an expired leaf, to {self.name}", "certificate_expired",
                lambda site: self.ask(site, None, [leaf(site.people.expired)], source=BALANCER)),
            *(Way(f"{what}, to {self.name}", code, partial(self._shown, holder), status=None, required=True)
              for what, code, holder in HANDSHAKES),
            Way(f"somebody who may nothing, to {self.name}", "not_authorised",
                lambda site: self.ask(site, site.people.other), 403),
            Way(f"a killed caller, to {self.name}", "caller_killed",
                lambda site: self.ask(site, site.people.killed), 403),
        ]  # fmt: skip

    def way(self, name: str, code: str, status: int, holder: str, **changes: Any) -> Way:
        """Something else that fails there, asked for by one of the `People`."""
        return Way(name, code, partial(self._known, holder, changes), status)

    def paced(self, holder: str, **changes: Any) -> Way:
        """More than a second's share, by somebody who has asked for nothing else yet."""
        name = f"more than a second's share, of {self.name}"
        return replace(self.way(name, "rate_limited", 429, holder, **changes), before=partial(self._known, holder, {}))

    def ask(self, site: Site, holder: Holder | None = None, headers: Sequence[Header] = (), **changes: Any) -> Answer:
        """Go there."""
        asked = {"method": self.method, "target": self.target, **self.changes, **changes}
        return site.ask(holder, headers, **asked)

    def _known(self, holder: str, changes: dict[str, Any], site: Site) -> Answer:
        return self.ask(site, site.people.known.get(holder) or getattr(site.people, holder), **changes)

    def _shown(self, holder: str, site: Site) -> Answer:
        return self.ask(site, getattr(site.people, holder, None))

    def _bearer(self, token: Callable[[Issuer], str], site: Site) -> Answer:
        return self.ask(site, None, [("Authorization", f"Bearer {token(site.issuer)}")])


_STRANGE = Issuer()
TOKENS: list[tuple[str, str, Callable[[Issuer], str]]] = [
    ("alg none", "token_algorithm_not_accepted", lambda issuer: f"{issuer.unsigned({'alg': 'none'})}."),
    ("HS256 with the public key", "token_algorithm_not_accepted", Issuer.hs256_token),
    ("another issuer's signature", "token_signature_invalid", lambda _issuer: _STRANGE.token()),
    ("an expired token", "token_expired", lambda issuer: issuer.token(exp=int(time.time()) - 60)),
    ("a token of another issuer", "token_issuer_mismatch", lambda issuer: issuer.token(iss="https://issuer.example/")),
    ("a token for another audience", "token_audience_mismatch", lambda issuer: issuer.token(aud="ledger")),
    ("a bound token alone", "token_certificate_mismatch", lambda issuer: issuer.token(cnf={"x5t#S256": "x" * 43})),
]
HANDSHAKES = [
    ("no certificate", "certificate_missing", "no one"),
    ("an expired certificate", "certificate_expired", "expired"),
    ("an unknown authority", "certificate_authority_unknown", "stranger"),
    ("a revoked certificate", "certificate_revoked", "revoked"),
]


def _bound(site: Site) -> Header:
    return "Authorization", f"Bearer {site.issuer.token(cnf=bound_to(site.people.honest))}"


_ITEM = {"transaction_id": "M-1", "message": {"amount": PAYLOAD}}
DRY_RUN = Endpoint("a dry run", "/v1/sign", changes={"dry_run": True})
BATCH = Endpoint(
    "a batch", "/v1/sign-batch", changes={"transaction_id": None, "message": None, "transactions": [_ITEM]}
)
VERIFY = Endpoint("verifying", "/v1/verify", changes={"transaction_id": None, "signature": "AAAA"})
SEARCH = Endpoint("the signatures", "/v1/signatures?transaction_id=TXN-1", "GET")
KEYS = Endpoint("the keys", "/v1/keys", "GET")
KEY = Endpoint("a key", "/v1/keys/settlement", "GET")
PUBLIC_KEY = Endpoint("a public key", "/v1/keys/settlement/public-key", "GET")
PSS = "RSASSA_PSS_SHA_256"
PAYLOAD_ONLY: dict[str, Any] = {"message": None, "payload": "AAAA"}
DIGEST = "A" * 43 + "="
BY_DIGEST = f"/v1/signatures?digest={DIGEST}"
ALL = (DRY_RUN, BATCH, VERIFY, SEARCH, KEYS, KEY, PUBLIC_KEY)
NAMING_A_KEY: list[tuple[Endpoint, dict[str, Any], dict[str, Any]]] = [
    *((each, {"key": "planned"}, {"key": "payout"}) for each in (DRY_RUN, BATCH, VERIFY)),
    *((each, {"target": each.target.replace("settlement", "planned")},
       {"target": each.target.replace("settlement", "payout")}) for each in (KEY, PUBLIC_KEY)),
]  # fmt: skip
"""With what asks each for a key that the policy grants and that is not there, and for one that is neither."""
MALFORMED: list[tuple[Endpoint, str, dict[str, Any]]] = [
    *((each, "a malformed request", {"surplus": 1}) for each in (DRY_RUN, BATCH, VERIFY)),
    (BATCH, "a good item beside a malformed one", {"transactions": [_ITEM, 7]}),
    (BATCH, "malformed items alone", {"transactions": [7, {}]}),
    (BATCH, "malformed items of a dry run", {"transactions": [7, {}], "dry_run": True}),
]
"""What somebody asks for who has to be refused before it is looked at."""
ENDPOINTS = [
    *(way for each in ALL for way in each.ways()),
    DRY_RUN.way("a dry run with a killed key", "key_killed", 403, "honest", key="killed"),
    DRY_RUN.way("a dry run with a key of nobody", "not_authorised", 403, "honest", key="fees"),
    DRY_RUN.way("a dry run without transaction id", "transaction_id_required", 400, "honest", transaction_id=None),
    DRY_RUN.way("a dry run with an algorithm that is not granted", "not_authorised", 403, "narrow", algorithm=PSS),
    DRY_RUN.way("a dry run over content that is not granted", "not_authorised", 403, "narrow", **PAYLOAD_ONLY),
    DRY_RUN.way("a dry run by who may verify only", "not_authorised", 403, "checker"),
    DRY_RUN.way("signing by who may verify only", "not_authorised", 403, "checker", dry_run=False),
    DRY_RUN.paced("paced_dry", transaction_id="TXN-2"),
    BATCH.way("a batch with a killed key", "key_killed", 403, "honest", key="killed"),
    BATCH.way("a batch with a key of nobody", "not_authorised", 403, "honest", key="fees"),
    BATCH.way("a batch with an algorithm that is not granted", "not_authorised", 403, "narrow", algorithm=PSS),
    BATCH.way("a batch over a kind of content that is not granted", "not_authorised", 403, "narrow",
              transactions=[{"transaction_id": "M-1", "payload": "AAAA"}]),
    BATCH.way("a batch by who may verify only", "not_authorised", 403, "checker"),
    BATCH.way("too large a batch, of a dry run", "too_many_transactions", 400, "narrow", dry_run=True,
              transactions=[{"transaction_id": f"M-{number}", "message": {}} for number in range(3)]),
    BATCH.paced("paced_batch", transactions=[{"transaction_id": "M-2", "message": {}}]),
    VERIFY.way("verifying with an algorithm that is not granted", "not_authorised", 403, "checker", algorithm=PSS),
    VERIFY.way("verifying a kind of content that is not granted", "not_authorised", 403, "checker", **PAYLOAD_ONLY),
    VERIFY.paced("paced_verify"),
    VERIFY.way("verifying with a killed key", "key_killed", 403, "honest", key="killed"),
    VERIFY.way("verifying with a key of nobody", "not_authorised", 403, "honest", key="fees"),
    *(each.way(f"a key that is granted and not there, to {each.name}", "unknown_key", 404, "honest", **planned)
      for each, planned, _ in NAMING_A_KEY),
    *(each.way(f"a key that is neither granted nor there, to {each.name}", "not_authorised", 403, "honest", **payout)
      for each, _, payout in NAMING_A_KEY),
    *(each.way(f"a key that is not there, to {each.name}, by a killed caller", "caller_killed", 403, "killed", **payout)
      for each, _, payout in NAMING_A_KEY),
    *(each.way(f"a key that is not there, to {each.name}, by who has none", "not_authorised", 403, "other", **payout)
      for each, _, payout in NAMING_A_KEY),
    *(each.way(f"{what}, to {each.name}, by a killed caller", "caller_killed", 403, "killed", **changes)
      for each, what, changes in MALFORMED),
    *(each.way(f"{what}, to {each.name}, by who may use no key", "not_authorised", 403, "other", **changes)
      for each, what, changes in MALFORMED),
    BATCH.way("a good item beside a malformed one, with a killed key", "key_killed", 403, "honest", key="killed",
              transactions=[_ITEM, 7]),
    BATCH.way("malformed items, with a killed key", "key_killed", 403, "honest", key="killed", transactions=[7, {}]),
    BATCH.way("malformed items, with a key of nobody", "not_authorised", 403, "honest", key="fees", transactions=[7]),
    VERIFY.way("verifying by who may sign only", "not_authorised", 403, "narrow"),
    SEARCH.way("the signatures for who signs", "not_authorised", 403, "honest"),
    SEARCH.way("the signatures for who verifies", "not_authorised", 403, "checker", target=BY_DIGEST),
    SEARCH.way("the signatures for an auditor who was stopped", "caller_killed", 403, "ousted"),
    VERIFY.way("verifying by an auditor who was stopped", "caller_killed", 403, "ousted"),
    KEY.way("a key for an auditor who was stopped", "caller_killed", 403, "ousted"),
    SEARCH.way("two questions", "invalid_input", 400, "auditor",
               target=f"/v1/signatures?transaction_id=T&digest={DIGEST}"),
    SEARCH.way("a question that is none", "invalid_input", 400, "auditor", target="/v1/signatures?transaction_id="),
    DRY_RUN.way("an auditor who signs", "not_authorised", 403, "auditor", dry_run=False),
    KEY.way("a key of nobody, described", "not_authorised", 403, "honest", target="/v1/keys/fees"),
    PUBLIC_KEY.way("the public key of nobody's", "not_authorised", 403, "honest", target="/v1/keys/fees/public-key"),
]  # fmt: skip
