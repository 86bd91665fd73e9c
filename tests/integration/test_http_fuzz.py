"""Whatever is posted, the answer is a signature or a problem of the client's."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.http_support import ALIAS, Entrance, running

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
BASE64 = st.binary(max_size=40).map(lambda octets: base64.b64encode(octets).decode())
# Near enough to a request to get past the first checks.
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "key": st.just(ALIAS) | JSON_VALUES,
        "transaction_id": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,20}", fullmatch=True) | JSON_VALUES,
        "algorithm": st.sampled_from(["RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"]) | JSON_VALUES,
        "message": JSON_VALUES,
        "payload": BASE64 | JSON_VALUES,
        "digest": st.binary(min_size=32, max_size=32).map(lambda octets: base64.b64encode(octets).decode()),
        "surplus": JSON_VALUES,
    },
)
BODIES = (
    st.binary(max_size=300) | JSON_VALUES.map(json.dumps).map(str.encode) | REQUESTS.map(json.dumps).map(str.encode)
)


@pytest.fixture(scope="module")
def entrance() -> Iterator[Entrance]:
    """One server for all examples."""
    with running() as entrance:
        yield entrance


@settings(max_examples=400, deadline=None)
@given(body=BODIES)
def test_no_body_is_the_services_fault(entrance: Entrance, body: bytes) -> None:
    """Never a 5xx, and never anything but a signature or a problem document with a code."""
    response = entrance.client.post("/v1/sign", content=body, headers={"Content-Type": "application/json"})
    answer: dict[str, Any] = response.json()
    assert response.status_code < 500
    if response.status_code == 200:
        assert answer["signature"]["key_alias"] == ALIAS
        return
    assert response.headers["content-type"] == "application/problem+json"
    assert answer["code"]
    assert answer["status"] == response.status_code
