"""Settings are read from file and environment, refused as a whole, and never show a secret."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from signer.errors import ConfigurationError
from signer.settings import Settings, load, read_pin

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


JWT = '[http.jwt]\nissuer = "https://issuer"\naudience = "signer"\njwks_file = "jwks.json"\n'
TLS = '[http.tls]\ncertificate = "server.pem"\nkey = "server.key"\n'
YEAR = "2029-01-01T00:00:00Z"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A settings file with nothing in it that could be left out."""
    (tmp_path / "pin").write_text("user:canary-pin\n")
    (tmp_path / "pin").chmod(0o600)
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
    "sections",
    [
        f'{TLS}client_ca = "ca.pem"\n',
        f"{TLS}{JWT}",
        '[http.proxy]\nnetworks = ["10.0.0.0/24"]\n',
        f'[http.proxy]\nnetworks = ["10.0.0.0/24"]\n{JWT}',
    ],
)
def test_who_authenticates_may_listen_everywhere(config: Path, sections: str) -> None:
    """Client certificates, a balancer's word, or tokens that travel encrypted."""
    config.write_text(config.read_text() + f'[http]\nhost = "0.0.0.0"\n{sections}')
    http = load(config).http
    assert http is not None
    assert http.authenticates


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('token = "t"', 'token = "t"\ncanary = 1', "hsm.canary"),
        ('token = "t"', 'token = ""', "hsm.token"),
        ('label = "k"', 'label = "k"\nfingerprint = "canary"', "keys.settlement.fingerprint"),
        ('label = "k"', 'label = "k"\nwaive = ["extractable"]', "keys.settlement.waive"),
        ('label = "k"', "", "either label"),
        ('label = "k"', 'label = "k"\nversions = [{label = "a"}]', "either label"),
        ('label = "k"', 'waive = ["local"]\nversions = [{label = "a"}]', "either label"),
        ('label = "k"', 'versions = [{label = "a"}, {label = "b"}]', "eldest first"),
        (
            'label = "k"',
            f'versions = [{{label = "a"}}, {{label = "a", active_from = {YEAR}}}]',
            "two versions have one label",
        ),
        ('label = "k"', 'versions = [{label = "a"}, {label = "b", active_from = 2029-01-01}]', "active_from"),
        ('label = "k"', 'versions = [{label = "a"}, {label = "b", active_from = 2029-01-01T00:00:00}]', "timezone"),
        (
            'label = "k"',
            f'versions = [{{label = "a", active_from = {YEAR}}}, {{label = "b", active_from = {YEAR}}}]',
            "eldest",
        ),
        (
            'label = "k"',
            f'versions = [{{label = "a", verify_until = {YEAR}}}, {{label = "b", active_from = {YEAR}}}]',
            "beyond",
        ),
        (
            'label = "k"',
            f'versions = [{{label = "a", active_from = {YEAR}, verify_until = {YEAR}}}]',
            "after its active_from",
        ),
        ("[ledger]", '[http]\nhost = "0.0.0.0"\n[ledger]', "loopback"),
        ("[ledger]", f'[http]\nhost = "0.0.0.0"\n{JWT}[ledger]', "need http.tls or http.proxy"),
        ("[ledger]", f'[http]\nhost = "0.0.0.0"\n{TLS}[ledger]', "loopback"),
        ("[ledger]", f'{TLS}client_crl = "crl"\n[ledger]', "client_crl needs client_ca"),
        ("[ledger]", f'{JWT}algorithms = ["HS256"]\n[ledger]', "http.jwt.algorithms"),
        ("[ledger]", f'{JWT}algorithms = ["none"]\n[ledger]', "http.jwt.algorithms"),
        ("[ledger]", f"{JWT}algorithms = []\n[ledger]", "http.jwt.algorithms"),
        ("[ledger]", f"{JWT}leeway_s = 121\n[ledger]", "http.jwt.leeway_s"),
        ("[ledger]", f'{JWT}jwks_url = "https://canary"\n[ledger]', "exactly one of"),
        ("[ledger]", f"{JWT}[ledger]".replace("jwks_file", "jwks_url"), "by https"),
        ("[ledger]", f"{JWT}[ledger]".replace("https://issuer", "https://#issuer"), "contains no #"),
        ("[ledger]", "[http.proxy]\nnetworks = []\n[ledger]", "http.proxy.networks"),
        ("[ledger]", '[http.proxy]\nnetworks = ["canary"]\n[ledger]', "not an IP network"),
        ("[ledger]", '[http.proxy]\nnetworks = ["10.0.0.1/8"]\n[ledger]', "not an IP network"),
        ("[ledger]", '[http.health]\nhost = "canary"\n[ledger]', "http.health.host"),
        ("[ledger]", '[http]\nhost = "192.0.2.1"\n[ledger]', "loopback"),
        ("[ledger]", '[http]\nhost = "::"\n[ledger]', "loopback"),
        ("[ledger]", '[http]\nhost = "canary"\n[ledger]', "http.host"),
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
    assert "'canary'" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIGNER_HSM", "{canary"),
        ("SIGNER_HSM", "[7]"),
        ("SIGNER_KEYS__SETTLEMENT", "{canary"),
        ("SIGNER_KEYS__SETTLEMENT__CALLERS", "canary"),
        ("SIGNER_HTTP", "{canary"),
        ("SIGNER_AUDITT__DIRECTORY", "canary"),
        ("SIGNER_HSM_TOKEN", "canary"),
        ("SIGNER_LOG_LEVEL__X", "canary"),
        ("SIGNER_CONFIG__X", "canary"),
        ("signer_auditt", "canary"),
    ],
)
def test_a_wrong_variable_is_named_but_not_quoted(
    config: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """What is no JSON, and what is no setting of ours, is refused; a misspelt one is never ignored."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load(config)
    assert name.lower().removeprefix("signer_").partition("__")[0] in caught.value.message.lower()
    assert "canary" not in caught.value.message


def test_variables_that_are_no_settings_are_known(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the file, and what the shim over a PKCS#11 module reads, stand beside the settings."""
    monkeypatch.setenv("SIGNER_CONFIG", str(config))
    monkeypatch.setenv("SIGNER_SHIM_MODULE", "/usr/lib/softhsm/libsofthsm2.so")
    assert load(None).hsm.sessions == 2


def test_an_error_that_gets_out_shows_no_value() -> None:
    """Not even the validator's own text quotes its input: whoever logs it logs no PIN."""
    with pytest.raises(ValidationError) as caught:
        Settings(hsm={"token": 7, "pin": ["canary"]}, signing_timeout_s="canary")
    assert "signing_timeout_s" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b" \n", b"canary\xff"])
def test_a_pin_that_can_be_none_is_refused_before_any_login(config: Path, content: bytes) -> None:
    """An empty PIN is never tried, and what is not UTF-8 is not shown."""
    (config.parent / "pin").write_bytes(content)
    with pytest.raises(ConfigurationError, match="the PIN") as caught:
        read_pin(load(config).hsm)
    assert "canary" not in caught.value.message


def test_an_empty_pin_from_the_environment_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that was injected empty is no PIN either."""
    config.write_text(config.read_text().replace("pin_file", "# pin_file"))
    monkeypatch.setenv("SIGNER_HSM__PIN", "")
    with pytest.raises(ConfigurationError, match="the PIN is empty"):
        read_pin(load(config).hsm)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o444, 0o602])
def test_a_pin_file_that_everybody_may_open_is_refused(config: Path, mode: int) -> None:
    """The message says what to do about it; owner and group may read, as secrets are mounted in containers."""
    pin = config.parent / "pin"
    for allowed in (0o400, 0o440, 0o600, 0o640):
        pin.chmod(allowed)
        assert read_pin(load(config).hsm) == "user:canary-pin"
    pin.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_pin(load(config).hsm)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    """A path that was given must exist."""
    with pytest.raises(ConfigurationError, match=r"absent\.toml"):
        load(tmp_path / "absent.toml")


def test_versions_are_read_in_utc(config: Path) -> None:
    """Whatever their offset; one label alone is a plan of one."""
    assert [version.label for version in load(config).keys["settlement"].plan] == ["k"]
    plan = 'versions = [{label = "a"}, {label = "b", active_from = 2029-01-01T01:00:00+01:00}]'
    config.write_text(config.read_text().replace('label = "k"', plan))
    assert [version.active_from for version in load(config).keys["settlement"].plan] == [
        None,
        datetime(2029, 1, 1, tzinfo=UTC),
    ]
