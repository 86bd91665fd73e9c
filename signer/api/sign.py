"""`POST /v1/sign`: from the first header to the answer and its one line in the log."""

import asyncio
import logging
import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from signer import strict_json
from signer.api.admission import Admission
from signer.api.body import MEDIA_TYPE, read_json_body
from signer.api.frame import REQUEST_ID_HEADER, request_id_of
from signer.api.idempotency import HEADER, REPLAYED_HEADER, stand_in_id
from signer.api.keys import keys_by_alias
from signer.api.parts import Parts
from signer.api.problems import Problem
from signer.deadlines import Deadline
from signer.errors import SignerError, UnavailableError
from signer.metrics import Stopwatch
from signer.ports import Origin
from signer.transactions import SigningRequest, parse_request
from signer.work import Refused, Signed

ENTRANCE: Final = "http"
# A slow client must not keep its place for as long as signing may take.
BODY_TIMEOUT_S: Final = 10.0


@dataclass(slots=True)
class _Exchange:
    """What is known about one request while it is being answered."""

    origin: Origin
    client_request_id: str | None
    deadline: Deadline
    watch: Stopwatch
    arrived_s: float = field(default_factory=time.perf_counter)
    stand_in_id: str = ""
    """What the ledger knows the request by if it names no transaction."""
    wanted: SigningRequest | None = None
    signed: Signed | None = None


class SignEndpoint:
    """Takes signing requests in, has them signed on the threads of `Admission`, and answers."""

    def __init__(self, parts: Parts) -> None:
        self._service = parts.service
        self._authenticator = parts.authenticator
        self._metrics = parts.metrics
        self._max_body_bytes = parts.settings.max_body_bytes
        self._signing_timeout_s = parts.signing_timeout_s
        self._logger = parts.logger
        self._admission = Admission(parts.settings.max_in_flight, parts.metrics.http_in_flight)

    async def sign(self, request: Request) -> Response:
        """Sign one transaction; the same transaction again gets the same signature again."""
        exchange = self._exchange(request)
        try:
            exchange.stand_in_id = stand_in_id(request.headers.getlist(HEADER), exchange.origin.caller)
            with self._admission.admit():
                answer = await self._answer(request, exchange)
        except SignerError as error:
            return self._refuse(exchange, error)
        except asyncio.CancelledError:  # the server closes, and its patience has run out
            return self._refuse(exchange, UnavailableError("the service is shutting down"))
        self._metrics.last_success.labels(ENTRANCE).set_to_current_time()
        self._log(logging.INFO, "request.signed", exchange, status=int(HTTPStatus.OK))
        # Beside the body, which is the same to the last byte whenever it is asked for.
        replayed = exchange.signed is not None and exchange.signed.replayed
        return Response(answer, headers={REPLAYED_HEADER: "true"} if replayed else None, media_type=MEDIA_TYPE)

    def close(self) -> None:
        """Take no more work."""
        self._admission.close()

    def _exchange(self, request: Request) -> _Exchange:
        address = request.client.host if request.client is not None else "unknown"
        return _Exchange(
            Origin(ENTRANCE, self._authenticator.caller_of(request), address, request_id_of(request)),
            _uuid_or_none(request.headers.get(REQUEST_ID_HEADER, "")),
            Deadline.after(self._signing_timeout_s),
            Stopwatch(self._metrics, ENTRANCE),
        )

    async def _answer(self, request: Request, exchange: _Exchange) -> bytes:
        deadline = exchange.deadline
        body = await read_json_body(request, self._max_body_bytes, min(BODY_TIMEOUT_S, deadline.remaining_s()))
        return await self._admission.run(partial(self._sign, body, exchange), deadline, request.is_disconnected)

    def _sign(self, body: bytes, exchange: _Exchange) -> bytes:
        """Do all that takes time: on a thread, since on the event loop it would keep everyone else waiting."""
        exchange.watch.add("admission", time.perf_counter() - exchange.arrived_s)
        exchange.deadline.check()
        exchange.wanted = parse_request(body, exchange.stand_in_id)
        (outcome,) = self._service.sign_many([exchange.wanted], exchange.origin, exchange.deadline, exchange.watch)
        if isinstance(outcome, Refused):
            raise outcome.error
        exchange.signed = outcome
        named = {"transaction_id": exchange.wanted.transaction_id} if exchange.wanted.names_transaction else {}
        return strict_json.dumps({**named, "signature": outcome.signature.to_message()})

    def _refuse(self, exchange: _Exchange, error: SignerError) -> Response:
        problem = Problem.of(error)
        level = logging.WARNING if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
        self._log(level, "request.refused", exchange, status=int(problem.status), code=problem.code)
        return problem.response(exchange.origin.message_id)

    def _log(self, level: int, event: str, exchange: _Exchange, **fields: Any) -> None:
        self._logger.log(
            level,
            event,
            request_id=exchange.origin.message_id,
            client_request_id=exchange.client_request_id,
            **self._about_transaction(exchange.wanted),
            **_about_signature(exchange.signed),
            **fields,
            # Without a stage it never reached a thread, and its total would tell how fast we refuse.
            **(exchange.watch.stop() if exchange.watch.seconds else {}),
        )

    def _about_transaction(self, wanted: SigningRequest | None) -> dict[str, Any]:
        if wanted is None:
            return {}
        # An alias that is not configured is whatever the client made up.
        key = wanted.key_alias if wanted.key_alias in keys_by_alias(self._service) else None
        return {"transaction_id": wanted.transaction_id, "key": key}


def _about_signature(signed: Signed | None) -> dict[str, Any]:
    return {"audit_id": signed.signature.audit_id, "replayed": signed.replayed} if signed is not None else {}


def _uuid_or_none(text: str) -> str | None:
    """Give a client's own request id if it is a UUID, in the one spelling that UUIDs have."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
