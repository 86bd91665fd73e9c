"""One JSON line for each event, ours or a library's, and no secret in any."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from signer import logs
from tests.integration.http_support import captured_log


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What the service writes."""
    with captured_log("INFO") as written:
        yield written


def test_an_exception_is_told_without_its_words(stream: io.StringIO) -> None:
    """Neither the text of an exception nor a local of its frames is written; types and places are, for the chain."""

    def log_in(pin: str) -> None:
        msg = f"wrong PIN {pin}"
        raise ValueError(msg)

    try:
        try:
            log_in("canary")
        except ValueError as error:
            msg = "canary again"
            raise RuntimeError(msg) from error
    except RuntimeError:
        logs.get("test").exception("it.failed", code="internal_error")
        logging.getLogger("library").exception("it failed too")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert "canary" not in stream.getvalue()
    for line in lines:
        assert [item["type"] for item in line["exception"]] == ["RuntimeError", "ValueError"]
        assert line["exception"][1]["frames"][-1].endswith("log_in")


def test_every_logger_writes_one_json_line(stream: io.StringIO) -> None:
    """Our events and a library's share time, level and logger's name; noise below the level is dropped."""
    logs.get("ours").info("batch.forwarded", batch_id="B")
    logging.getLogger("library").warning("a %s message", "formatted")
    logging.getLogger("botocore").info("every call")
    ours, library = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (ours["event"], ours["batch_id"], ours["level"], ours["logger"]) == ("batch.forwarded", "B", "info", "ours")
    assert (library["event"], library["level"]) == ("a formatted message", "warning")
    assert {"timestamp"} <= set(ours) & set(library)


def test_capturing_ends_with_its_test(capsys: pytest.CaptureFixture[str]) -> None:
    """What is logged later is where the next test looks for it."""
    with captured_log():
        logs.get("test").warning("within")
    logs.get("test").warning("after")
    said = capsys.readouterr().out
    assert "after" in said
    assert "within" not in said
