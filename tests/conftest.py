"""What the run is over (`--preset`), how much of some things there is in it, and what it measured."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

import pytest

from softhsm.provision import find_module
from softhsm.shim.client import LIBRARY, Shim

Preset = Literal["cloudhsm"] | None
SLOW: Final = "cloudhsm-slow"
"""Signs in 5-10 ms and is throttled, too: what `make test` leaves out, for it has 15 minutes."""

WITHOUT_HSM: Final = ("unit", "integration", "fuzz")
"""Directories whose tests open no module: over a preset they would only do again what they have done."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--preset", choices=["none", "cloudhsm", SLOW], default="none", help="what SoftHSM is to be like")
    parser.addoption("--outage", type=float, default=6, metavar="S", help="how long the HSM is away in its long outage")
    parser.addoption("--sigterms", type=int, default=4, metavar="N", help="how often it is told to end")


def pytest_report_header(config: pytest.Config) -> str:
    return f"preset: {config.getoption('preset')}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("preset") == "none":
        return
    config.hook.pytest_deselected(items=[item for item in items if _is_the_same_again(item)])
    items[:] = [item for item in items if not _is_the_same_again(item)]


def _is_the_same_again(item: pytest.Item) -> bool:
    return item.path.parent.name in WITHOUT_HSM or item.get_closest_marker("once") is not None


@pytest.fixture(scope="session")
def softhsm_module() -> Path:
    """SoftHSM itself, whatever stands before it in this run."""
    return find_module()


@pytest.fixture(scope="session", autouse=True)
def preset(request: pytest.FixtureRequest) -> Iterator[Preset]:
    """Put the shim where everybody looks for SoftHSM, if the run is over a preset: in this process and its children."""
    if request.config.getoption("preset") == "none":
        yield None
        return
    module: Path = request.getfixturevalue("softhsm_module")  # found before the shim stands before it
    with TemporaryDirectory(prefix="shim") as directory, pytest.MonkeyPatch.context() as patch:
        slow = request.config.getoption("preset") == SLOW
        environment = Shim(Path(directory)).environment(module, "cloudhsm", latency=slow)
        for name, value in {**environment, "SOFTHSM2_MODULE": str(LIBRARY)}.items():
            patch.setenv(name, value)
        yield "cloudhsm"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests have measured by `record_property`: nobody sees what a test prints that passes."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.line(f"measured: {report.nodeid.rpartition('::')[2]}: {name} = {value}")
