"""The checker finds it when a guard is taken out: the real service, without one of them at a time, and with all."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from softhsm.shim.client import LIBRARY, Shim
from tests.chaos.batches import Mill
from tests.chaos.checker import Violation, check
from tests.chaos.evidence import Journal
from tests.chaos.feeder import Collector, Feeder
from tests.chaos.guards import GUARDS, Guard
from tests.chaos.keeper import end
from tests.chaos.run import evidence_of, public_key_of
from tests.chaos.site import ROOT, Site, open_site
from tests.conftest import Preset

PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A service under trial, with what goes in and comes out."""

    site: Site
    feeder: Feeder
    collector: Collector
    shim: Shim

    @property
    def public_key(self) -> Path:
        """Where the checker finds the service's key."""
        return self.site.directory / "public-key.pem"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the service, and learn its key while it is up."""
        (service,) = self.site.services
        process = service.start()
        self.public_key.write_bytes(public_key_of(service, process))
        return process

    def kill_at(self, failpoint: str, kinds: Sequence[str]) -> None:
        """Let it come by a failpoint, and die there: the first time may be while it starts."""
        if not self.public_key.exists():
            end(self.start())
        (service,) = self.site.services
        process = service.start(SIGNER_FAILPOINT=f"{failpoint}:1")
        self.send(kinds)
        assert process.wait(PATIENCE_S) == -9

    def send(self, kinds: Sequence[str]) -> None:
        """Send some batches."""
        for kind in kinds:
            self.feeder.send_of(kind)

    def finish(self, process: subprocess.Popen[bytes], settled: Callable[[], bool]) -> list[Violation]:
        """Let it go on until all is `settled`, or as long as it lives; gives what is found then."""
        until_s = time.monotonic() + PATIENCE_S
        while not settled() and process.poll() is None and time.monotonic() < until_s:
            time.sleep(0.1)
        end(process)
        self.collector.close()
        return check(evidence_of(self.site))

    def is_empty(self) -> bool:
        """Whether the inbound queue is."""
        return self.site.depth("inbound") == 0

    def is_out(self) -> bool:
        """Whether the first batch is."""
        return self.collector.is_out("B-00001")


@contextmanager
def trial(directory: Path, code: Path, softhsm_module: Path, preset: Preset) -> Iterator[Trial]:
    """Open a site whose service is of the source tree `code`."""
    directory.mkdir()
    with TemporaryDirectory(prefix="shim") as short, ExitStack() as stack:  # a socket's path must be short
        shim = Shim(Path(short))
        extra = shim.environment(softhsm_module, preset, latency=False) | {"SIGNER_HSM__MODULE": str(LIBRARY)}
        site = stack.enter_context(open_site(directory, "sqlite", 1, fifo=True, code=code, extra=extra))
        journals = [Journal(directory / f"{name}.jsonl") for name in ("sent", "out", "set-aside")]
        collector = stack.enter_context(closing(Collector(site, journals[1], journals[2])))
        yield Trial(site, Feeder(site, Mill(1), journals[0], collector.is_out), collector, shim)


@pytest.mark.once  # it proves the checker; the service as it is runs below, over the preset too
@pytest.mark.timeout(240)
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name.replace(" ", "-"))
def test_what_a_guard_holds_back_is_found_without_it(
    guard: Guard, tmp_path: Path, softhsm_module: Path, preset: Preset
) -> None:
    """With one guard taken out, what must never happen does, and the checker names it."""
    code = guard.taken_out(tmp_path / "code")
    with trial(tmp_path / "run", code, softhsm_module, preset) as made:
        if guard.killed_at:
            made.kill_at(guard.killed_at, guard.sends)
            (service,) = made.site.services
            process = service.start()
        else:
            process = made.start()
            if guard.wrong_signature:
                made.shim.spoil_signatures("flip", times=1)
            made.send(guard.sends)
        # Without the guard named "delete" it never is.
        settled = made.is_out if guard.finds == "left_behind" else made.is_empty
        found = made.finish(process, settled)
    assert guard.finds in {violation.rule for violation in found}, found


@pytest.mark.timeout(240)
def test_with_every_guard_in_its_place_nothing_is_found(tmp_path: Path, softhsm_module: Path, preset: Preset) -> None:
    """The same batches, the same deaths and the same wrong signature do no harm to the service as it is."""
    with trial(tmp_path / "run", ROOT, softhsm_module, preset) as made:
        for failpoint in sorted({guard.killed_at for guard in GUARDS if guard.killed_at}):
            made.kill_at(failpoint, ("good", "bad"))
        process = made.start()
        made.shim.spoil_signatures("flip", times=1)
        made.send(("good", "rival", *("bad",) * 11))
        found = made.finish(process, made.is_empty)
    assert found == []
