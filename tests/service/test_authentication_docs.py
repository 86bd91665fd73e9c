"""What docs/authentication.md tells callers to do works, and its tables name every code there is."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from signer.api import auth_errors, handshake
from signer.demo.stack import Emulator, Token
from signer.errors import SignerError
from tests.issuer import bound_to
from tests.service.entrance import People, Site, site

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "authentication.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```bash\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, emulator: Emulator, service_token: Token, softhsm_module: Path
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("documented") / "site"
    with site(directory, emulator, service_token, softhsm_module, People()) as running:
        yield running


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_works(service: Site, tmp_path: Path, command: str) -> None:
    """With the files and variables that the page names."""
    people = service.people
    people.honest.write(tmp_path, "client")
    (tmp_path / "ca.pem").write_bytes(people.root.pem)
    variables = {
        "PATH": os.environ["PATH"],
        "SIGNER": f"https://localhost:{service.port}",
        "TOKEN": service.issuer.token(cnf=bound_to(people.honest)),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"settlement"' in done.stdout


def test_there_are_commands() -> None:
    """The page has some."""
    assert len(COMMANDS) == 3


def test_every_code_is_explained() -> None:
    """Of requests and of handshakes."""
    of_requests = {
        kind.code
        for kind in vars(auth_errors).values()
        if isinstance(kind, type) and issubclass(kind, SignerError) and kind.__module__ == auth_errors.__name__
    }
    bases = {"credentials_malformed"}
    assert {code for code in of_requests | handshake.CODES if f"`{code}`" not in TEXT} == bases


def test_the_cost_is_measured() -> None:
    """The program behind the figures runs."""
    command = [sys.executable, "-m", "loadtest.mtls", "--rounds", "1", "--requests", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 6
    # Both ten, the one before them, and 20 on connections of their own.
    assert "62 signatures verified" in done.stderr
