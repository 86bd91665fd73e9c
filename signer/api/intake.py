"""How a request comes in: who asks, a place, the body, a thread for the work; and the one line it leaves in the log."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from signer.api.admission import Admission
from signer.api.auth_errors import CertificateRevokedError
from signer.api.bodies import UnfinishedBodies
from signer.api.body import read_json_body
from signer.api.exchange import ENTRANCE, Exchange
from signer.api.frame import REQUEST_ID_HEADER, request_id_of
from signer.api.groups import Groups
from signer.api.groups import Work as GroupWork
from signer.api.parts import Parts
from signer.api.problems import Problem
from signer.api.protocol import accepted_still, body_is_whole, client_is_gone
from signer.deadlines import Deadline
from signer.errors import SignerError, UnavailableError
from signer.metrics import Stopwatch
from signer.ports import Origin

# A slow client must not go on for as long as signing may take.
BODY_TIMEOUT_S: Final = 10.0
_GROUPS: Final = 3


Work = Callable[[bytes, Exchange], Response]
_Answering = Callable[[bytes, Exchange], Awaitable[Response]]


class Intake:
    """Serves requests whose work takes time: on the threads of `Admission`, since the event loop must not wait."""

    def __init__(self, parts: Parts) -> None:
        self._authenticator = parts.authenticator
        self._metrics = parts.metrics
        self._max_body_bytes = parts.settings.max_body_bytes
        self._timeout_s = parts.signing_timeout_s
        self._logger = parts.logger
        self._authority = parts.authority
        self._bodies = UnfinishedBodies(parts.settings.max_in_flight, parts.metrics.http_unfinished_bodies)
        self._admission = Admission(parts.settings.max_in_flight, parts.metrics.http_in_flight)
        # Nobody waits for company while a session is free, even if as many requests are in the ledger or the audit log
        # as there are sessions; and however few sessions there are, each of the three always has a group to work on.
        self._groups = Groups(parts.service, 2 * parts.sessions, _GROUPS)

    async def serve(self, request: Request, name: str, work: Work, *, has_body: bool = True) -> Response:
        """Let `work` make the answer, on a thread of its own, and turn its errors into problems.

        `name` stands for the kind of request in the log, as in `request.signed`; `has_body` says whether there is one
        to be read. Raises what is raised when nobody can be named.
        """
        return await self._serve(request, name, partial(self._admission.run, work), has_body=has_body)

    async def serve_in_group(self, request: Request, name: str, work: GroupWork) -> Response:
        """Do so for a request for one signature: it is signed together with others."""
        return await self._serve(request, name, partial(self._groups.run, work), has_body=True)

    async def _serve(self, request: Request, name: str, answering: _Answering, *, has_body: bool) -> Response:
        exchange = self._exchange(request)
        try:
            self._refuse_stranger(request, exchange.origin.caller)
            body = await self._body(request, exchange) if has_body else b""
            # Not before: who sends slowly would hold a place that another request could have had.
            with self._admission.admit():
                answer = await answering(body, exchange)
        except SignerError as error:
            if isinstance(error, CertificateRevokedError):
                self._authenticator.refuse(request, error, exchange.origin.caller)
            return self._refuse(exchange, error)
        except asyncio.CancelledError:  # the server closes, and its patience has run out
            return self._refuse(exchange, UnavailableError("the service is shutting down"))
        failed = answer.status_code >= HTTPStatus.BAD_REQUEST
        event = "refused" if failed else exchange.done or name
        self._log(logging.INFO, f"request.{event}", exchange, status=answer.status_code)
        return answer

    def close(self) -> None:
        """Take no more work."""
        self._admission.close()
        self._groups.close()

    def _exchange(self, request: Request) -> Exchange:
        address = request.client.host if request.client is not None else "unknown"
        return Exchange(
            Origin(ENTRANCE, self._authenticator.caller_of(request), address, request_id_of(request)),
            _uuid_or_none(request.headers.get(REQUEST_ID_HEADER, "")),
            Deadline.after(self._timeout_s),
            Stopwatch(self._metrics, ENTRANCE),
            client_is_gone(request.scope),
            accepted_still(request.scope),
        )

    def _refuse_stranger(self, request: Request, caller: str) -> None:
        """Refuse a caller that the policy does not name, or the kill switch stops, whatever it asks for."""
        denial = self._authority.current().stranger_denial(caller)
        if denial is not None:
            self._authenticator.refuse(request, denial.error, caller)
            raise denial.error

    async def _body(self, request: Request, exchange: Exchange) -> bytes:
        self._admission.require_room()
        whole = body_is_whole(request.scope)
        with nullcontext() if whole else self._bodies.one_more(exchange.origin.caller):
            timeout_s = min(BODY_TIMEOUT_S, exchange.deadline.remaining_s())
            return await read_json_body(request, self._max_body_bytes, timeout_s)

    def _refuse(self, exchange: Exchange, error: SignerError) -> Response:
        problem = Problem.of(error)
        level = logging.WARNING if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
        self._log(level, "request.refused", exchange, status=int(problem.status), code=problem.code)
        members = {} if exchange.audit_id is None else {"audit_id": exchange.audit_id}
        return problem.response(exchange.origin.message_id, **members)

    def _log(self, level: int, event: str, exchange: Exchange, **fields: Any) -> None:
        self._logger.log(
            level,
            event,
            request_id=exchange.origin.message_id,
            client_request_id=exchange.client_request_id,
            **exchange.about,
            **fields,
            # Without a stage it never reached a thread, and its total would tell how fast we refuse.
            **(exchange.watch.stop() if exchange.watch.seconds else {}),
        )


def _uuid_or_none(text: str) -> str | None:
    """Give a client's own request id if it is a UUID, in the one spelling that UUIDs have."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
