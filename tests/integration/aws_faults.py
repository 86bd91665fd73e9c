"""Faults of AWS that no local stand-in shows, put in where botocore sends: the code under test stays as it is."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.client import BaseClient
from botocore.compat import HTTPHeaders
from botocore.exceptions import ReadTimeoutError
from botocore.httpsession import URLLib3Session

_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Call:
    """One request that was about to be sent."""

    operation: str
    parameters: dict[str, Any]
    request: AWSPreparedRequest

    def answer(self, status: int, body: dict[str, Any]) -> AWSResponse:
        """Answer in AWS's stead, as SQS does."""
        return AWSResponse(self.request.url, status, HTTPHeaders(), _Raw(json.dumps(body).encode()))

    def refuse(self, status: int, code: str) -> AWSResponse:
        """Answer in AWS's stead, as S3 does, that nothing was done."""
        body = f"<Error><Code>{code}</Code><Message>refused by a test</Message></Error>"
        return AWSResponse(self.request.url, status, HTTPHeaders(), _Raw(body.encode()))

    def send(self) -> AWSResponse:
        """Let AWS do it, and give its answer."""
        answer: AWSResponse = URLLib3Session().send(self.request)
        return answer


Fault = Callable[[Call], AWSResponse | None]
"""Gives the answer, raises instead of one, or gives None to let the call through."""


class AwsFaults:
    """Sits between clients of one service and the network; nothing fails until a fault is put in."""

    def __init__(self, *clients: BaseClient) -> None:
        self.calls: list[Call] = []
        """Every attempt, in order."""
        self._faults: list[tuple[str, str, Fault]] = []
        # What a hook returns is the answer; the stubs know of none that returns anything.
        hook: Callable[..., Any] = self._before_send
        for client in clients:
            client.meta.events.register(f"before-send.{client.meta.service_model.service_name}", hook)

    def of(self, operation: str) -> list[Call]:
        """Give the calls of one operation."""
        return [call for call in list(self.calls) if call.operation == operation]

    @contextmanager
    def refused(self, operation: str, code: str, queue_url: str = "") -> Iterator[None]:
        """AWS answers with an error, and does nothing."""
        error = {"__type": f"com.amazonaws.sqs#{code}", "message": "refused by a test"}
        with self._fault(operation, queue_url, lambda call: call.answer(400, error)):
            yield

    @contextmanager
    def answer_lost(self, operation: str, queue_url: str = "") -> Iterator[None]:
        """AWS does what is asked, but nobody hears of it."""

        def do_and_lose(call: Call) -> AWSResponse:
            call.send()
            raise ReadTimeoutError(endpoint_url=call.request.url)

        with self._fault(operation, queue_url, do_and_lose):
            yield

    @contextmanager
    def first(self, times: int, operation: str, fault: Fault) -> Iterator[None]:
        """So many calls meet `fault`; the next ones pass."""
        left = iter(range(times))
        with self._fault(operation, "", lambda call: None if next(left, None) is None else fault(call)):
            yield

    @contextmanager
    def leases_refused(self, code: str) -> Iterator[None]:
        """Each message whose visibility is to be changed is refused; none is changed."""

        def refuse_each(call: Call) -> AWSResponse:
            failed = [
                {"Id": entry["Id"], "Code": code, "SenderFault": True, "Message": "refused by a test"}
                for entry in call.parameters["Entries"]
            ]
            return call.answer(200, {"Successful": [], "Failed": failed})

        with self._fault("ChangeMessageVisibilityBatch", "", refuse_each):
            yield

    @contextmanager
    def garbled(self, operation: str) -> Iterator[None]:
        """AWS answers well, and with nonsense."""
        with self._fault(operation, "", lambda call: call.answer(200, {"Messages": [{}]})):
            yield

    def before(self, operation: str, happens: Callable[[], None]) -> None:
        """Let something happen each time a call is about to be sent, from now on."""
        self._faults.append((operation, "", lambda _: happens()))

    @contextmanager
    def delayed(self, operation: str) -> Iterator["Gate"]:
        """Calls wait before they are sent until the gate is opened, or the block is left."""
        gate = Gate()
        with self._fault(operation, "", gate.wait_at):
            try:
                yield gate
            finally:
                gate.open()

    @contextmanager
    def _fault(self, operation: str, queue_url: str, fault: Fault) -> Iterator[None]:
        entry = (operation, queue_url, fault)
        self._faults.append(entry)
        try:
            yield
        finally:
            self._faults.remove(entry)

    def _before_send(self, request: AWSPreparedRequest, event_name: str, **_: Any) -> AWSResponse | None:
        call = Call(
            event_name.rpartition(".")[2],
            json.loads(request.body) if isinstance(request.body, bytes) and "X-Amz-Target" in request.headers else {},
            request,
        )
        self.calls.append(call)
        for operation, queue_url, fault in list(self._faults):
            if operation == call.operation and queue_url in ("", call.parameters.get("QueueUrl")):
                return fault(call)
        return None


class Gate:
    """Where delayed calls wait."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def wait_until_reached(self) -> None:
        """Return once a call waits here."""
        assert self._reached.wait(_PATIENCE_S), "no call came"

    def open(self) -> None:
        """Let every call through."""
        self._opened.set()

    def wait_at(self, _call: Call) -> None:
        """Wait, as a call."""
        self._reached.set()
        assert self._opened.wait(_PATIENCE_S), "nobody opened the gate"


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body
