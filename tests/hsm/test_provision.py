"""`softhsm/provision.py` makes what is asked for, once, and keeps its secrets.

Only child processes load the module: each has its own SOFTHSM2_CONF, and the module belongs to its process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Preset

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = (sys.executable, str(ROOT / "softhsm/provision.py"))

# Prints the attributes of every key with the label sys.argv[2], in the token "dev" of sys.argv[1].
DESCRIBE = """
import json, sys
from pathlib import Path
from pkcs11 import Attribute as A
from softhsm.provision import open_session

NAMES = {
    "PRIVATE_KEY": "TOKEN PRIVATE SENSITIVE EXTRACTABLE SIGN SIGN_RECOVER DECRYPT UNWRAP DERIVE"
    " ALWAYS_SENSITIVE NEVER_EXTRACTABLE LOCAL ID MODULUS PUBLIC_EXPONENT",
    "PUBLIC_KEY": "TOKEN VERIFY VERIFY_RECOVER ENCRYPT WRAP LOCAL ID MODULUS PUBLIC_EXPONENT",
}
with open_session(Path(sys.argv[1]), "dev") as session:
    found = [
        {"class": key[A.CLASS].name, **{name: key[A[name]] for name in NAMES[key[A.CLASS].name].split()}}
        for key in session.get_objects({A.LABEL: sys.argv[2]})
    ]
print(json.dumps(found, default=bytes.hex))
"""

# Makes the token without the user's PIN, as a run does that is killed between the two calls.
HALF_DONE = """
import sys
from pathlib import Path
from softhsm import provision

home = Path(sys.argv[1])
with provision._opened(home, None) as library:
    provision._ensure_pins(home, "signer-dev")
    provision._initialize_token(library, "dev", (home / "so-pin").read_text())
"""

SECOND_KEY = """
import sys
from pathlib import Path
from softhsm.provision import generate_rsa_key, open_session

with open_session(Path(sys.argv[1]), "dev") as session:
    generate_rsa_key(session, sys.argv[2])
"""


def command(home: Path, *labels: str, more: tuple[str, ...] = ()) -> list[str]:
    """Build the command line that provisions `labels` in the token "dev", unless `more` names another."""
    keys = [argument for label in labels for argument in ("--key", label)]
    return [*SCRIPT, "--home", str(home), "--token", "dev", *keys, *more]


def provision(home: Path, *labels: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    done = subprocess.run(command(home, *labels, more=more), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def refusal(home: Path, *labels: str, more: tuple[str, ...] = ()) -> str:
    """Give the one line that says why it cannot be done."""
    done = subprocess.run(command(home, *labels, more=more), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("provision: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def run_python(program: str, *arguments: object) -> str:
    argv = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def keys(home: Path, label: str) -> dict[str, dict[str, Any]]:
    """Describe the one pair with this label, by object class."""
    found = json.loads(run_python(DESCRIBE, home, label))
    assert sorted(key["class"] for key in found) == ["PRIVATE_KEY", "PUBLIC_KEY"]
    return {key.pop("class"): key for key in found}


def test_the_answer_says_where_everything_is(tmp_path: Path, preset: Preset) -> None:
    """A process finds module, settings, token and PIN by the answer alone, and a relative home becomes absolute."""
    home = tmp_path / "some where" / "hsm"
    answer = provision(Path(os.path.relpath(home)), "one", "two")
    assert answer.pop("module").endswith("/libshim.so" if preset else "/libsofthsm2.so")
    assert len(answer.pop("serial")) == 16
    assert answer == {
        "conf": str(home / "softhsm2.conf"),
        "token": "dev",
        "pin_file": str(home / "pin"),
        "crypto_user": "signer-dev",
        "keys": [{"label": "one", "created": True}, {"label": "two", "created": True}],
    }


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    """Token, PINs and keys survive, and only a label that is new gets a key."""
    home = tmp_path / "hsm"
    first = provision(home, "old")
    before = (keys(home, "old"), (home / "pin").read_bytes(), (home / "so-pin").read_bytes())
    second = provision(home, "old", "new")
    assert (keys(home, "old"), (home / "pin").read_bytes(), (home / "so-pin").read_bytes()) == before
    assert second["serial"] == first["serial"]
    assert second["keys"] == [{"label": "old", "created": False}, {"label": "new", "created": True}]


def test_a_key_can_sign_and_do_nothing_else(tmp_path: Path) -> None:
    """The private key was born in the token, never leaves it and only signs; the public one only verifies."""
    home = tmp_path / "hsm"
    provision(home, "settlement")
    pair = keys(home, "settlement")
    shared = {name: pair["PUBLIC_KEY"].pop(name) for name in ("ID", "MODULUS", "PUBLIC_EXPONENT")}
    assert shared["ID"]
    assert int(shared["MODULUS"], 16).bit_length() == 2048
    assert int(shared["PUBLIC_EXPONENT"], 16) == 65537
    assert pair["PRIVATE_KEY"] == shared | {
        "TOKEN": True,
        "PRIVATE": True,
        "SENSITIVE": True,
        "EXTRACTABLE": False,
        "SIGN": True,
        "SIGN_RECOVER": False,
        "DECRYPT": False,
        "UNWRAP": False,
        "DERIVE": False,
        "ALWAYS_SENSITIVE": True,
        "NEVER_EXTRACTABLE": True,
        "LOCAL": True,
    }
    assert pair["PUBLIC_KEY"] == {
        "TOKEN": True,
        "VERIFY": True,
        "VERIFY_RECOVER": False,
        "ENCRYPT": False,
        "WRAP": False,
        "LOCAL": True,
    }


def test_nothing_in_the_directory_is_open_to_others(tmp_path: Path) -> None:
    """PINs, settings and SoftHSM's own files are 0600 and directories 0700, whatever the umask is."""
    home = tmp_path / "hsm"
    subprocess.run(command(home, "settlement"), stdout=subprocess.DEVNULL, check=True, umask=0)
    modes = {path.relative_to(home): path.stat().st_mode & 0o777 for path in (home, *home.rglob("*"))}
    assert {Path("pin"), Path("so-pin"), Path("softhsm2.conf"), Path("tokens")} < modes.keys()
    assert modes == {path: 0o700 if (home / path).is_dir() else 0o600 for path in modes}


def test_a_directory_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    """It may be somebody's whole working tree: it is neither tightened nor filled with secrets."""
    tmp_path.chmod(0o755)
    assert "open to others" in refusal(tmp_path, "settlement")
    assert list(tmp_path.iterdir()) == []


def test_no_pin_is_ever_printed(tmp_path: Path) -> None:
    """Neither a run that works nor one that fails at the login says a PIN, and both PINs are long and random."""
    home = tmp_path / "hsm"
    printed = json.dumps(provision(home, "settlement"))
    user, _, password = (home / "pin").read_text().partition(":")
    so_pin = (home / "so-pin").read_text()
    assert user == "signer-dev"
    assert password != so_pin
    assert min(len(password), len(so_pin)) >= 32
    (home / "pin").write_text("signer-dev:" + password.swapcase())
    printed += refusal(home, "settlement")
    assert "does not take the PIN" in printed
    assert all(secret not in printed for secret in (password, password.swapcase(), so_pin))


def test_a_pin_of_another_user_is_refused(tmp_path: Path) -> None:
    """The answer names the Crypto User, so it must be the one in the PIN."""
    provision(tmp_path / "hsm")
    assert "not that of the user other" in refusal(tmp_path / "hsm", more=("--user", "other"))


def test_tokens_are_told_apart_by_label(tmp_path: Path) -> None:
    """Of several tokens in one directory each keeps its own keys, whatever slots they are in."""
    home = tmp_path / "hsm"
    first = {token: provision(home, f"key of {token}", more=("--token", token)) for token in ("a", "dev", "z")}
    again = {token: provision(home, f"key of {token}", more=("--token", token)) for token in ("z", "dev", "a")}
    assert len({answer["serial"] for answer in first.values()}) == 3
    for token, answer in again.items():
        assert answer["serial"] == first[token]["serial"]
        assert answer["keys"] == [{"label": f"key of {token}", "created": False}]
    assert json.loads(run_python(DESCRIBE, home, "key of a")) == []


def test_runs_at_the_same_time_make_one_key(tmp_path: Path) -> None:
    """Four runs start at once on a directory that does not exist; one makes the token and the key, three find them."""
    home = tmp_path / "hsm"
    runs = [subprocess.Popen(command(home, "settlement"), stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [json.loads(run.communicate()[0]) for run in runs]
    assert sorted(answer["keys"][0]["created"] for answer in answers) == [False, False, False, True]
    assert len({answer["serial"] for answer in answers}) == 1
    assert keys(home, "settlement")


def test_a_label_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """Nobody could say which of the two keys is meant."""
    home = tmp_path / "hsm"
    provision(home, "settlement")
    run_python(SECOND_KEY, home, "settlement")
    assert "2 private and 2 public keys" in refusal(home, "settlement")


def test_a_run_that_was_killed_half_way_is_carried_on(tmp_path: Path) -> None:
    """A token without the user's PIN gets it from the next run."""
    home = tmp_path / "hsm"
    home.mkdir(mode=0o700)
    run_python(HALF_DONE, home)
    assert provision(home, "settlement")["keys"] == [{"label": "settlement", "created": True}]
    assert len(list((home / "tokens").iterdir())) == 1


@pytest.mark.parametrize("label", ["", "x" * 33, "\N{GREEK SMALL LETTER ALPHA}" * 17])
def test_a_token_label_that_no_token_can_carry_is_refused(tmp_path: Path, label: str) -> None:
    """C_InitToken takes 32 bytes and would cut off or misread the rest."""
    assert "1 to 32 bytes" in refusal(tmp_path / "hsm", more=("--token", label))
    assert not (tmp_path / "hsm").exists()


def test_the_module_can_lie_anywhere(tmp_path: Path) -> None:
    """SOFTHSM2_MODULE and `--module` come before the usual places, and the option before the variable."""
    real = provision(tmp_path / "hsm")["module"]
    link = tmp_path / "elsewhere.so"
    link.symlink_to(real)
    for variable, more in ((str(link), ()), (str(tmp_path / "absent.so"), ("--module", str(link)))):
        done = subprocess.run(
            command(tmp_path / "hsm", more=more),
            env={**os.environ, "SOFTHSM2_MODULE": variable},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout)["module"] == str(link)
    assert "absent.so is not there" in refusal(tmp_path / "hsm", more=("--module", str(tmp_path / "absent.so")))
