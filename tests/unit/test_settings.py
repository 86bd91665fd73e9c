"""Settings are read from file and environment, refused as a whole, and never show a secret."""

from pathlib import Path

import pytest

from signer.errors import ConfigurationError
from signer.settings import load, read_pin

MINIMAL = """
[hsm]
module = "/usr/lib/softhsm/libsofthsm2.so"
token = "t"
pin_file = "{pin_file}"
[keys.settlement]
label = "k"
[ledger]
path = "ledger.sqlite3"
[audit]
directory = "audit"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A settings file with nothing in it that could be left out."""
    (tmp_path / "pin").write_text("user:canary-pin\n")
    path = tmp_path / "signer.toml"
    path.write_text(MINIMAL.format(pin_file=tmp_path / "pin"))
    return path


def test_the_environment_wins_over_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`SIGNER_<SECTION>__<NAME>` changes one setting and leaves its neighbours."""
    monkeypatch.setenv("SIGNER_HSM__SESSIONS", "7")
    settings = load(config)
    assert (settings.hsm.sessions, settings.hsm.token) == (7, "t")


def test_nobody_may_sign_unless_the_settings_say_so(config: Path) -> None:
    """A key without callers has none: default deny."""
    assert load(config).keys["settlement"].callers == frozenset()


def test_the_pin_is_read_and_never_shown(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PIN comes from its file or from the environment; no representation of the settings holds it."""
    settings = load(config)
    assert read_pin(settings.hsm) == "user:canary-pin"
    monkeypatch.setenv("SIGNER_HSM__PIN", "user:canary-env")
    with pytest.raises(ConfigurationError, match="exactly one of"):
        load(config)
    config.write_text(config.read_text().replace("pin_file", "# pin_file"))
    settings = load(config)
    assert read_pin(settings.hsm) == "user:canary-env"
    assert "canary" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('token = "t"', 'token = "t"\ncanary = 1', "hsm.canary"),
        ('token = "t"', 'token = ""', "hsm.token"),
        ('label = "k"', 'label = "k"\nfingerprint = "canary"', "keys.settlement.fingerprint"),
        ('label = "k"', 'label = "k"\nwaive = ["extractable"]', "keys.settlement.waive"),
        ("[ledger]", '[http]\nhost = "0.0.0.0"\n[ledger]', "loopback"),
        ("[ledger]", '[http]\nhost = "192.0.2.1"\n[ledger]', "loopback"),
        ("[ledger]", '[http]\nhost = "::"\n[ledger]', "loopback"),
        ("[ledger]", "[ledger]\nlease_s = 1", "longer than signing_timeout_s"),
        ("[hsm]", "[hsm", "not TOML"),
    ],
)
def test_a_wrong_setting_is_named_but_not_quoted(config: Path, old: str, new: str, said: str) -> None:
    """The message says which setting and why, without its value."""
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ConfigurationError) as caught:
        load(config)
    assert said in caught.value.message
    assert "192.0.2.1" not in caught.value.message


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    """A path that was given must exist."""
    with pytest.raises(ConfigurationError, match=r"absent\.toml"):
        load(tmp_path / "absent.toml")
