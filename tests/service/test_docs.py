"""What the documents tell people to run does run, over what the demo left behind."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from signer.policy_file import SCHEMA, parse_policy
from signer.settings import Settings
from tests.service.conftest import Demo

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(language, text, id=f"{path.name}-{number}")
    for path in sorted(ROOT.glob("docs/*.md"))
    for number, (language, text) in enumerate(BLOCK.findall(path.read_text(encoding="utf-8")))
]
POLICY = BLOCK.findall((ROOT / "docs" / "policy.md").read_text(encoding="utf-8"))[0][1]
INTERPRETERS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


@pytest.mark.parametrize(("language", "text"), BLOCKS)
def test_a_documented_block_runs(demo: Demo, tmp_path: Path, language: str, text: str) -> None:
    """Commands end with status 0 in a copy of what the demo leaves; settings are settings of ours, every one."""
    if language == "toml":
        if SCHEMA in text:
            assert parse_policy(text.encode()).callers
        else:
            Settings(**tomllib.loads(text))
        return
    shutil.copytree(demo[0], tmp_path / "demo")
    (tmp_path / "demo" / "policy.toml").write_text(POLICY, encoding="utf-8")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [*INTERPRETERS[language], text]
    done = subprocess.run(
        command, cwd=tmp_path / "demo", env={"PATH": path}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_what_exists() -> None:
    """Every `make` target and every linked page of the README is there, and it fits on one screen."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", readme, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert links
    assert all((ROOT / link).is_file() for link in links)
    assert len(readme.splitlines()) <= 60


def test_the_commands_of_the_readme_run(demo: Demo) -> None:
    """The two commands that check the demo's evidence succeed on it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\.local/venv/bin/signer (.+)$", readme, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        arguments = command.replace(".local/demo", str(demo[0])).split()
        done = subprocess.run([sys.executable, "-m", "signer", *arguments], check=False, timeout=60)
        assert done.returncode == 0
