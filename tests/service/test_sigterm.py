"""Terminated at any moment under load, the service ends inside its drain time and keeps no message."""

import random
import socket
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import pytest

from signer.demo.stack import Stack
from softhsm.shim.client import Shim
from tests.service.batches import (
    Downstream,
    assert_nothing_is_lost_or_doubled,
    inbound_is_empty,
    make_batches,
    public_key,
    send,
)
from tests.service.running import logged, ready, until

DRAIN_S = 20.0
EX_TEMPFAIL = 75
HELD = "ApproximateNumberOfMessagesNotVisible"


def held(stack: Stack) -> int:
    """How many messages somebody holds."""
    url = stack.queues["inbound"]
    return int(stack.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[HELD])["Attributes"][HELD])  # type: ignore[list-item,index] # a literal type of a stub


@pytest.mark.timeout(600)
def test_every_held_message_is_back_or_done(
    stack: Stack, shim: Shim, pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    """After each end nothing is hidden that nobody works on; in the end every batch came out once."""
    rounds = pytestconfig.getoption("sigterms")
    stack.environment |= {
        "SIGNER_DRAIN_TIMEOUT_S": str(DRAIN_S),
        # A message that is kept would stay hidden for as long as this.
        "SIGNER_SQS__VISIBILITY_TIMEOUT_S": "120",
    }
    # So slow that no machine gets through with it between a start and its end: 400 signatures a second.
    stack.environment["SIGNER_HSM__SESSIONS"] = "2"
    shim.at_start().delay("C_Sign", fixed_ms=5)
    sent = make_batches(40 * rounds, 20)
    send(stack, sent)
    downstream, moments, took_s = Downstream(stack), random.Random(1), []  # noqa: S311 - no secret
    key = None
    for _ in range(rounds):
        service = stack.start()
        key = key or public_key(stack)
        time.sleep(moments.uniform(0, 0.8))
        began_s = time.monotonic()
        assert service.terminate() == 0
        took_s.append(round(time.monotonic() - began_s, 2))
        assert took_s[-1] < DRAIN_S
        assert held(stack) == 0
    assert not inbound_is_empty(stack), "the load ended before the last SIGTERM"
    stack.environment["SIGNER_SQS__VISIBILITY_TIMEOUT_S"] = "5"
    shim.at_start().reset()
    service = stack.start()
    downstream.take_all(sent)
    assert service.terminate() == 0
    assert key is not None
    assert_nothing_is_lost_or_doubled(stack, sent, downstream, key)
    assert all(len(bodies) == 1 for bodies in downstream.copies.values())
    record_property("seconds to the end, each time", took_s)


def test_both_entrances_share_the_drain_time(stack: Stack, shim: Shim) -> None:
    """A batch that takes too long and a request whose body never comes are given up in one drain time, not in two."""
    stack.environment |= {"SIGNER_DRAIN_TIMEOUT_S": "4", "SIGNER_HSM__SESSIONS": "2"}
    shim.at_start().delay("C_Sign", fixed_ms=100)
    service = stack.start()
    send(stack, make_batches(1, 500))
    until(lambda: held(stack) == 1, "the batch is at work")
    place = urlsplit(stack.http_url)
    with closing(socket.create_connection((str(place.hostname), int(place.port or 0)))) as client:
        client.sendall(b"POST /v1/sign HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        client.sendall(b"Content-Length: 9\r\n\r\n{")
        # Read by the time that the service has answered another.
        assert ready(stack)
        assert service.terminate() == EX_TEMPFAIL
    (began,), (ended,) = logged(stack, "service.stopping"), logged(stack, "http.closed")
    assert ended["cut_off"] is True
    took = datetime.fromisoformat(ended["timestamp"]) - datetime.fromisoformat(began["timestamp"])
    # One after the other they would take more than six.
    assert took < timedelta(seconds=5.5)
