"""`POST /v1/sign-batch`: many transactions under one key; each is answered for itself, in order."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from signer import strict_json
from signer.api.answers import answer_of
from signer.api.body import MEDIA_TYPE
from signer.api.exchange import ENTRANCE, Exchange
from signer.api.idempotency import HEADER, REPLAYED_HEADER, stand_in_id
from signer.api.intake import Intake
from signer.api.parts import Parts
from signer.api.problems import Problem
from signer.api.requests import Batch, BatchItem, parse_sign_batch
from signer.errors import (
    KilledError,
    NotAuthorisedError,
    RateLimitedError,
    SignatureInvalidError,
    SignerError,
    TooManyTransactionsError,
    UnavailableError,
    UnknownKeyError,
)
from signer.rehearsal import Rehearsed
from signer.transactions import SigningRequest
from signer.work import Outcome, Refused

_OF_THE_WHOLE: Final = (
    KilledError, NotAuthorisedError, RateLimitedError, SignatureInvalidError, TooManyTransactionsError,
    UnavailableError, UnknownKeyError,
)  # fmt: skip


class BatchEndpoint:
    """Has a batch signed by one call of the core: one durable commit for all of it in ledger and audit log each."""

    def __init__(self, parts: Parts, intake: Intake) -> None:
        self._service = parts.service
        self._rehearsal = parts.rehearsal
        self._inquiries = parts.inquiries
        self._metrics = parts.metrics
        self._max_items = parts.settings.max_batch_transactions
        self._intake = intake

    async def sign(self, request: Request) -> Response:
        """Sign what can be signed, and say for each of the rest why not."""
        return await self._intake.serve(request, "batch_signed", partial(self._sign, request.headers.getlist(HEADER)))

    def _sign(self, idempotency_keys: list[str], body: bytes, exchange: Exchange) -> Response:
        caller = exchange.origin.caller
        stand_ins = partial(stand_in_id, idempotency_keys, caller)
        batch = parse_sign_batch(body, self._max_items, stand_ins)
        requests = batch.requests()
        answers: Iterator[Outcome | Rehearsed]
        if not requests:
            # With nothing to decide about, the core would let anybody know what is wrong with each item.
            self._require_key(batch, exchange)
            answers = iter(())
        elif batch.dry_run:
            answers = iter(self._rehearsal.rehearse(requests, exchange.origin))
        else:
            answers = iter(self._service.sign_many(requests, exchange.origin, exchange.deadline, exchange.watch))
        return self._answer(batch, _outcomes(batch.items, answers), exchange)

    def _require_key(self, batch: Batch, exchange: Exchange) -> None:
        operation = "dry_run" if batch.dry_run else "sign"
        detail = f"{len(batch.items)} transactions that could not be read"
        refused = self._inquiries.refusal(operation, exchange.origin, batch.key_alias, detail)
        if refused is not None:
            exchange.audit_id = refused.audit_id
            raise refused.error

    def _answer(self, batch: Batch, outcomes: list[Outcome | Rehearsed], exchange: Exchange) -> Response:
        items, dry_run, counts = batch.items, batch.dry_run, _count(outcomes)
        if dry_run:
            exchange.done = "batch_rehearsed"
            exchange.about |= {"rehearsed": counts["signed"] + counts["replayed"], "failed": counts["failed"]}
        else:
            exchange.about |= counts
        exchange.about["dry_run"] = dry_run
        if counts["failed"] < len(items) and not dry_run:
            self._metrics.last_success.labels(ENTRANCE).set_to_current_time()
        results = [_result(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]
        # What was kept counts as signed, and stands beside the body: that is the same whenever it is asked for.
        told = {"signed": counts["signed"] + counts["replayed"], "failed": counts["failed"]}
        headers = {REPLAYED_HEADER: "true"} if counts["replayed"] and not counts["signed"] and not dry_run else None
        problem = _common_problem(items, outcomes)
        if problem is not None:
            exchange.about["code"] = problem.code
            return problem.response(exchange.origin.message_id, results=results)
        body = strict_json.dumps({"dry_run": dry_run, **told, "results": results})
        return Response(body, headers=headers, media_type=MEDIA_TYPE)


def _outcomes(items: Sequence[BatchItem], answers: Iterator[Outcome | Rehearsed]) -> list[Outcome | Rehearsed]:
    return [next(answers) if isinstance(item.request, SigningRequest) else Refused(item.request) for item in items]


def _count(outcomes: Sequence[Outcome | Rehearsed]) -> dict[str, int]:
    names = Counter(_name(outcome) for outcome in outcomes)
    return {name: names[name] for name in ("signed", "replayed", "failed")}


def _name(outcome: Outcome | Rehearsed) -> str:
    if isinstance(outcome, Refused):
        return "failed"
    return "replayed" if outcome.replayed else "signed"


def _common_problem(items: Sequence[BatchItem], outcomes: Sequence[Outcome | Rehearsed]) -> Problem | None:
    """Give what keeps the whole batch from being signed, where that is one thing and none of the items' fault.

    Items that cannot be read do not count: nobody makes a refusal of all into one of each by adding such a one.
    """
    asked = [outcome for item, outcome in zip(items, outcomes, strict=True) if isinstance(item.request, SigningRequest)]
    errors = [outcome.error for outcome in asked if isinstance(outcome, Refused)]
    one_reason = len(errors) == len(asked) and len({error.code for error in errors}) == 1
    return Problem.of(errors[0]) if one_reason and isinstance(errors[0], _OF_THE_WHOLE) else None


def _result(item: BatchItem, outcome: Outcome | Rehearsed) -> dict[str, Any]:
    names = {"reference": item.reference, "transaction_id": item.transaction_id}
    named = {name: value for name, value in names.items() if value is not None}
    if isinstance(outcome, Refused):
        return named | dict(_error(outcome.error, outcome.audit_id))
    return named | answer_of(_request_of(item), outcome)


def _request_of(item: BatchItem) -> SigningRequest:
    if isinstance(item.request, SigningRequest):
        return item.request
    raise AssertionError  # pragma: no cover - what cannot be read is refused


def _error(error: SignerError, audit_id: str | None) -> Mapping[str, Any]:
    problem = Problem.of(error)
    recorded = {} if audit_id is None else {"audit_id": audit_id}
    return {
        "error": {
            "type": problem.type,
            "status": int(problem.status),
            "code": problem.code,
            "retryable": problem.retryable,
            "detail": problem.detail,
            **recorded,
        }
    }
