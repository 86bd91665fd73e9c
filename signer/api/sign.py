"""`POST /v1/sign`: one transaction, one signature."""

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from signer import strict_json
from signer.api.answers import answer_of
from signer.api.body import MEDIA_TYPE
from signer.api.exchange import ENTRANCE, Exchange
from signer.api.groups import Steps
from signer.api.idempotency import HEADER, REPLAYED_HEADER, stand_in_id
from signer.api.intake import Intake
from signer.api.parts import Parts
from signer.api.requests import parse_sign
from signer.signing import Call
from signer.transactions import SigningRequest
from signer.work import Refused


class SignEndpoint:
    """Has one transaction signed."""

    def __init__(self, parts: Parts, intake: Intake) -> None:
        self._rehearsal = parts.rehearsal
        self._aliases = frozenset(parts.inquiries.aliases())
        self._metrics = parts.metrics
        self._intake = intake

    async def sign(self, request: Request) -> Response:
        """Sign one transaction; the same transaction again gets the same signature again."""
        work = partial(self._sign, request.headers.getlist(HEADER))
        return await self._intake.serve_in_group(request, "signed", work)

    def _sign(self, idempotency_keys: list[str], body: bytes, exchange: Exchange) -> Steps:
        exchange.begin_work()
        wanted, dry_run = parse_sign(body, stand_in_id(idempotency_keys, exchange.origin.caller))
        exchange.about |= self._about(wanted)
        if dry_run:
            return self._rehearse(wanted, exchange)
        outcome = yield Call([wanted], exchange.origin, exchange.deadline, exchange.watch)
        if isinstance(outcome, Refused):
            exchange.audit_id = outcome.audit_id
            raise outcome.error
        self._metrics.last_success.labels(ENTRANCE).set_to_current_time()
        exchange.about |= {"audit_id": outcome.signature.audit_id, "replayed": outcome.replayed}
        # Beside the body, which is the same to the last byte whenever it is asked for.
        headers = {REPLAYED_HEADER: "true"} if outcome.replayed else None
        return Response(strict_json.dumps(answer_of(wanted, outcome)), headers=headers, media_type=MEDIA_TYPE)

    def _rehearse(self, wanted: SigningRequest, exchange: Exchange) -> Response:
        (outcome,) = self._rehearsal.rehearse([wanted], exchange.origin)
        exchange.audit_id = outcome.audit_id
        exchange.about |= {"audit_id": outcome.audit_id, "dry_run": True}
        exchange.done = "rehearsed"
        if isinstance(outcome, Refused):
            raise outcome.error
        return Response(strict_json.dumps(answer_of(wanted, outcome)), media_type=MEDIA_TYPE)

    def _about(self, wanted: SigningRequest) -> dict[str, Any]:
        # An alias that is not configured is whatever the client made up.
        key = wanted.key_alias if wanted.key_alias in self._aliases else None
        return {"transaction_id": wanted.transaction_id, "key": key}
