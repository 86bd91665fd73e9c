"""Whatever the run is to be over, the suite's own fixtures are over it."""

import os
import subprocess
import sys

import pkcs11
import pytest

from signer.deadlines import Deadline
from signer.demo.stack import Token
from tests.conftest import Preset
from tests.hsm.conftest import OpenKeyRing

# Opens a read-only session, as a program that knows nothing of tests does.
PROGRAM = """
import sys
import pkcs11
try:
    pkcs11.lib(sys.argv[1]).get_token(token_label=sys.argv[2]).open(rw=False)
except pkcs11.FunctionFailed:
    print("refused")
else:
    print("opened")
"""


def test_read_only_sessions_are_refused_if_the_run_is_over_cloudhsm(open_key_ring: OpenKeyRing, preset: Preset) -> None:
    """The key ring that every test here uses stands on a module that is like CloudHSM, or on plain SoftHSM."""
    opened = open_key_ring(warm=False)
    with opened.connection.lend(Deadline.after(30)) as lent:
        if preset is None:
            lent.module.token.open(rw=False).close()
        else:
            with pytest.raises(pkcs11.FunctionFailed):
                lent.module.token.open(rw=False)


def test_so_they_are_in_programs_that_tests_start(softhsm: Token, preset: Preset) -> None:
    """What a child process loads under the token's path is the same."""
    command = [sys.executable, "-c", PROGRAM, str(softhsm.module), softhsm.label]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ("opened" if preset is None else "refused")
