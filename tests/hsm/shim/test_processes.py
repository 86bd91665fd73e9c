"""Many processes, forked ones, those that crash and those that start again: each is told and counted for itself."""

import signal

import pytest

from softhsm.shim.client import Shim, ShimError
from tests.hsm.shim.conftest import OpenClient, StartProcess
from tests.hsm.shim.raw import private_key, sign


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_crash_inside_c_sign(start_process: StartProcess, other_shim: Shim, by: signal.Signals) -> None:
    """The process dies in the call that was named, by the signal that was named; its socket is of no use any more."""
    process = start_process()
    other_shim.crash("C_Sign", by, on_call=3)
    assert [process.ask("sign") for _ in range(3)] == ["done", "done", ""]
    assert process.popen.wait(30) == -by
    assert other_shim.processes() == []
    with pytest.raises(ShimError, match="no process"):
        other_shim.counts()


def test_all_processes_or_one(start_process: StartProcess, other_shim: Shim) -> None:
    """A command reaches all of them or the one that is named, and counts are of all or of one."""
    first, second = start_process(), start_process()
    assert other_shim.processes() == sorted([first.pid, second.pid])
    with other_shim.fail("C_Sign", "CKR_DEVICE_ERROR", times=1):
        assert [process.ask("sign") for process in (first, second)] == ["DeviceError", "DeviceError"]
    with other_shim.process(first.pid).fail("C_Sign", "CKR_DEVICE_ERROR"):
        assert [process.ask("sign") for process in (first, second)] == ["DeviceError", "done"]
    assert other_shim.counts()["C_Sign"].calls == 4
    assert [other_shim.process(each.pid).counts()["C_Sign"].answered for each in (first, second)] == [2, 1]
    assert other_shim.counts().sessions == 4


def test_a_process_can_be_told_before_it_starts(start_process: StartProcess, other_shim: Shim) -> None:
    """What is told `at_start` holds from the first call of each process, up to the next reset."""
    other_shim.at_start().fail("C_Initialize", "CKR_GENERAL_ERROR", times=2)
    other_shim.at_start().fail("C_Sign", "CKR_DEVICE_ERROR", times=1)
    for _ in range(2):
        process = start_process()
        assert process.began == "ready"
        assert [process.ask("sign"), process.ask("sign")] == ["DeviceError", "done"]
        assert other_shim.process(process.pid).counts()["C_Initialize"].calls == 3
    other_shim.reset()
    assert start_process().ask("sign") == "done"


def test_a_forked_child_counts_for_itself(start_process: StartProcess, other_shim: Shim) -> None:
    """The child has a socket of its own from its first call on, counts from zero, and the parent is as it was."""
    parent = start_process()
    parent.ask("sign")
    assert parent.ask("fork") == "done"
    (child,) = set(other_shim.processes()) - {parent.pid}
    counts = other_shim.process(child).counts()
    assert {name for name, calls in counts.functions.items() if calls.calls} == {"C_GetInfo"}
    assert parent.ask("sign") == "done"
    assert other_shim.process(parent.pid).counts()["C_Sign"].calls == 2


def test_the_shim_outlives_the_module(open_client: OpenClient, shim: Shim) -> None:
    """What is told, and what is counted, lasts over C_Finalize and C_Initialize; sessions do not."""
    client = open_client()
    shim.fail("C_GenerateRandom", "CKR_RANDOM_NO_RNG")
    client.open_session()
    client.close()
    assert shim.counts().sessions == 0
    again = open_client()
    sign(private_key(again.open_session()))
    counts = shim.counts()
    assert (counts["C_Initialize"].calls, counts.sessions, counts.busy_at_finalize) == (2, 2, 0)


def test_a_process_that_ends_takes_its_socket_along(start_process: StartProcess, other_shim: Shim) -> None:
    """Nothing is left in the directory by a process that ends as it should."""
    process = start_process()
    assert other_shim.processes() == [process.pid]
    process.popen.communicate(timeout=30)
    assert list(other_shim.directory.iterdir()) == []
