"""What a queue says it has accepted is compared with what was sent: "ok" is not enough."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from tests.integration.aws_faults import Call
from tests.integration.conftest import Entrance
from tests.integration.queues import batch


def without_id(answer: dict[str, Any]) -> None:
    del answer["MessageId"]


def another_body(answer: dict[str, Any]) -> None:
    answer["MD5OfMessageBody"] = "0" * 32


def other_attributes(answer: dict[str, Any]) -> None:
    answer["MD5OfMessageAttributes"] = "0" * 32


def no_attributes(answer: dict[str, Any]) -> None:
    del answer["MD5OfMessageAttributes"]


@pytest.mark.parametrize("change", [without_id, another_body, other_attributes, no_attributes])
@pytest.mark.parametrize("body", [batch(), "not JSON"])
def test_a_receipt_for_something_else_is_none(
    entrance: Entrance, change: Callable[[dict[str, Any]], None], body: str
) -> None:
    """The message stays inbound until the queue confirms what was sent: body, attributes and an id."""

    def lie(call: Call) -> AWSResponse:
        answer = json.loads(call.send().content)
        change(answer["Successful"][0])
        return call.answer(200, answer)

    with entrance.faults.first(1, "SendMessageBatch", lie):
        entrance.queues.inbound.put(body)
        entrance.wait_for("returned")
    entrance.wait_for("quarantined" if body == "not JSON" else "forwarded")
    (line,) = entrance.lines("batch.returned")
    assert (line["code"], line["receive_count"]) == ("queue_unavailable", 1)
    assert entrance.queues.inbound.depth == 0
