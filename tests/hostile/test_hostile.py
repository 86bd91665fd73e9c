"""Whatever a message holds, it is signed or set aside with a reason; a hundred thousand of them: `make hostile`."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples

from signer.demo.stack import Emulator, Stack, provision
from tests.hostile.corpus import large, small
from tests.hostile.hostile import Hostile
from tests.hostile.mutations import anything
from tests.hostile.reading import Reader, reader
from tests.hostile.sending import Log, Sender, settings, unexplained
from tests.service.running import running

# A body is read before any module is asked.
pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with closing(Emulator(tmp_path_factory.mktemp("emulator"))) as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_REGION", started.sqs.meta.region_name)
        yield started


@pytest.fixture(scope="module")
def desk(emulator: Emulator) -> Iterator[Reader]:
    with reader(emulator, emulator.create_bucket("hostile-bodies")) as opened:
        yield opened


@pytest.mark.parametrize("hostile", list(large()), ids=lambda hostile: hostile.kind)
def test_a_large_one_is_refused_for_good(desk: Reader, hostile: Hostile) -> None:
    """Ten megabytes of anything are read within bounds, and refused; only a long text in a message is signed."""
    verdict = desk.read(hostile)
    assert (verdict == "signed") == (hostile.kind == "large: a string in a message")


def test_whatever_people_thought_of_is_signed_or_refused_for_good(desk: Reader) -> None:
    """Every message of the corpus has a verdict that its sender can be told, and at least a dozen of them occur."""
    verdicts = {desk.read(hostile) for hostile in small()}
    assert "signed" in verdicts
    assert len(verdicts) > 12


@examples(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile=anything())
def test_whatever_nobody_thought_of_is_signed_or_refused_for_good(desk: Reader, hostile: Hostile) -> None:
    """What is signed is what came in, member by member; what is refused fits into a quarantine entry."""
    desk.read(hostile)


def test_the_service_accounts_for_each_of_them(tmp_path: Path, emulator: Emulator) -> None:
    """Through a real queue: each message of the corpus is out or in quarantine, and the log tells of no defect."""
    stack = Stack(tmp_path, emulator, provision(tmp_path / "token"))
    stack.environment |= settings()
    with running(stack) as service:
        account = Sender(stack, service).send_all([*small(), *islice(large(), 8)])
        assert account.wrong == []
        assert account.under_way == 0
        assert account.by_code["signed"] > 0


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ('{"event": "batch.quarantined", "level": "warning", "code": "invalid_json"}', False),
        ('{"event": "batch.returned", "level": "error", "code": "internal_error"}', True),
        ('{"event": "batch.returned", "level": "warning", "traceback": ["a.py:1"]}', True),
        ("Traceback (most recent call last):", True),
    ],
)
def test_a_defect_is_found_in_the_log(tmp_path: Path, line: str, *, is_one: bool) -> None:
    """An error, a traceback, or a line that is not the log's own, is something that nobody explained."""
    (tmp_path / "serve.log").write_text(f"{line}\n", encoding="utf-8")
    assert bool([each for entry in Log(tmp_path / "serve.log").more() for each in unexplained(entry)]) == is_one


def test_each_line_of_the_log_is_read_once(tmp_path: Path) -> None:
    """Also one that was half written when somebody looked."""
    path = tmp_path / "serve.log"
    path.write_text('{"event": "a"}\n{"eve', encoding="utf-8")
    log = Log(path)
    assert [entry["event"] for entry in log.more()] == ["a"]
    with path.open("a", encoding="utf-8") as file:
        file.write('nt": "b"}\n')
    assert [entry["event"] for entry in log.more()] == ["b"]
    assert list(log.more()) == []
