"""The other endpoints, and every way in to them that must fail."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.issuer import bound_to
from tests.pki import Holder
from tests.service.entrance import PAYLOAD, Answer, Header, Site, leaf
from tests.service.ways_in import Way


@dataclass(frozen=True)
class Endpoint:
    """What can be asked for beside `/v1/sign`, and by whom not."""

    name: str
    target: str
    method: str = "POST"
    changes: dict[str, Any] = field(default_factory=dict)

    def ways(self) -> list[Way]:
        """Everything that fails at each of them: whoever proves nothing, or is nobody, or was stopped."""
        return [
            Way(f"nothing at all, to {self.name}", "credentials_missing", self.ask),
            Way(f"a forged header, to {self.name}", "forged_proxy_header",
                lambda site: self.ask(site, None, [leaf(site.people.honest)])),
            Way(f"alg none, to {self.name}", "token_algorithm_not_accepted",
                lambda site: self.ask(site, None, [_unsigned(site)])),
            Way(f"a token replayed, to {self.name}", "token_certificate_mismatch",
                lambda site: self.ask(site, site.people.other, [_bound(site)])),
            Way(f"somebody who may nothing, to {self.name}", "not_authorised",
                lambda site: self.ask(site, site.people.other), 403),
            Way(f"a killed caller, to {self.name}", "caller_killed",
                lambda site: self.ask(site, site.people.killed), 403),
        ]  # fmt: skip

    def way(self, name: str, code: str, status: int, holder: str, **changes: Any) -> Way:
        """Something else that fails there, asked for by one of the `People`."""

        def go(site: Site) -> Answer:
            return self.ask(site, getattr(site.people, holder), **changes)

        return Way(name, code, go, status)

    def ask(self, site: Site, holder: Holder | None = None, headers: Sequence[Header] = (), **changes: Any) -> Answer:
        """Go there."""
        asked = {"method": self.method, "target": self.target, **self.changes, **changes}
        return site.ask(holder, headers, **asked)


def _unsigned(site: Site) -> Header:
    return "Authorization", f"Bearer {site.issuer.unsigned({'alg': 'none'})}."


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
ENDPOINTS = [
    *(way for each in (DRY_RUN, BATCH, VERIFY, SEARCH, KEYS, KEY, PUBLIC_KEY) for way in each.ways()),
    DRY_RUN.way("a dry run with a killed key", "key_killed", 403, "honest", key="killed"),
    DRY_RUN.way("a dry run with a key of nobody", "not_authorised", 403, "honest", key="fees"),
    DRY_RUN.way("a dry run without transaction id", "transaction_id_required", 400, "honest", transaction_id=None),
    BATCH.way("a batch with a killed key", "key_killed", 403, "honest", key="killed"),
    BATCH.way("a batch with a key of nobody", "not_authorised", 403, "honest", key="fees"),
    BATCH.way("a batch with an algorithm that is not granted", "not_authorised", 403, "narrow", algorithm=PSS),
    VERIFY.way("verifying with a killed key", "key_killed", 403, "honest", key="killed"),
    VERIFY.way("verifying with a key of nobody", "not_authorised", 403, "honest", key="fees"),
    VERIFY.way("verifying with a key that is not there", "unknown_key", 404, "honest", key="payout"),
    VERIFY.way("verifying by who may sign only", "not_authorised", 403, "narrow"),
    SEARCH.way("the signatures for who signs", "not_authorised", 403, "honest"),
    SEARCH.way("a question that is none", "invalid_input", 400, "auditor", target="/v1/signatures?transaction_id="),
    DRY_RUN.way("an auditor who signs", "not_authorised", 403, "auditor", dry_run=False),
    KEY.way("a key of nobody, described", "not_authorised", 403, "honest", target="/v1/keys/fees"),
    KEY.way("a key that is not there, described", "unknown_key", 404, "honest", target="/v1/keys/payout"),
    PUBLIC_KEY.way("the public key of nobody's", "not_authorised", 403, "honest", target="/v1/keys/fees/public-key"),
]
