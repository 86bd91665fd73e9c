"""The PIN ends in no core file."""

import subprocess
import sys

from signer.demo.stack import Stack
from tests.canaries import may_dump_core

PROGRAM = """
import ctypes
from signer.wiring import forbid_core_files
forbid_core_files()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
"""


def test_a_running_service_writes_no_core_file(stack: Stack) -> None:
    """The limit is zero in the process that holds the PIN."""
    service = stack.start()
    try:
        assert not may_dump_core(service.pid)
    finally:
        service.terminate()


def test_nor_is_one_piped_to_a_program() -> None:
    """`core_pattern` may name a program, which no limit keeps out: the process says that it may not be dumped."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "0"
