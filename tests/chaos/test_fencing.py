"""A slow first owner in a fleet: what it asked of the ledger arrives when another has taken over and is done."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest

from tests.chaos.batches import Mill
from tests.chaos.checker import Violation, check
from tests.chaos.evidence import Journal
from tests.chaos.feeder import Collector, Feeder
from tests.chaos.guards import FENCING
from tests.chaos.keeper import end
from tests.chaos.proxy import Exchange, Proxy
from tests.chaos.run import evidence_of, public_key_of
from tests.chaos.site import ROOT, Site, open_site

# Whoever was overtaken meets the ledger, whatever the module is like.
pytestmark = pytest.mark.once

PATIENCE_S = 90.0
COMPLETES = "UpdateItem"
"""What a batch of one is completed with, and nothing else while nobody takes over."""


class Detour:
    """Keeps calls on the way: whoever made them gives up, and then they arrive."""

    def __init__(self, proxy: Proxy) -> None:
        self._over = asyncio.Event()
        self.kept: list[Exchange] = []
        self.arrived = 0
        proxy.every(COMPLETES, self._keep)

    async def end(self) -> None:
        """Let them arrive."""
        self._over.set()

    async def _keep(self, exchange: Exchange) -> None:
        self.kept.append(exchange)
        await self._over.wait()
        await exchange.pass_on()
        self.arrived += 1


def until(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as `condition` holds; fails saying `what` was waited for."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s, f"waited in vain: {what}"
        time.sleep(0.1)


def mill_of_one() -> Mill:
    """Give a mill whose first good batch has one transaction."""
    seeds = (seed for seed in count() if len(json.loads(Mill(seed).of("good")[0].body)["transactions"]) == 1)
    return Mill(next(seeds))


def overtaken(site: Site) -> list[Violation]:
    """Let the first process be overtaken by the second one while its results are on their way; gives what is found."""
    first, second = site.services
    journals = [Journal(site.directory / f"{name}.jsonl") for name in ("sent", "out", "set-aside")]
    detour = Detour(first.proxy)
    with ExitStack() as stack:
        collector = stack.enter_context(closing(Collector(site, journals[1], journals[2])))
        process = first.start()
        stack.callback(process.kill)
        (site.directory / "public-key.pem").write_bytes(public_key_of(first, process))
        Feeder(site, mill_of_one(), journals[0], collector.is_out).send_of("good")
        until(lambda: bool(detour.kept), "the first process completes")
        process.kill()
        process.wait()
        process = second.start()
        stack.callback(process.kill)
        until(lambda: collector.is_out("B-00001"), "the second process forwards")
        site.loop.run(detour.end())
        until(lambda: detour.arrived == len(detour.kept), "the calls arrive")
        end(process)
    return check(evidence_of(site))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fenced", [True, False])
def test_who_was_overtaken_overwrites_nothing_unless_the_fence_is_down(*, fenced: bool, tmp_path: Path) -> None:
    """The ledger keeps the signature that came out; without token and signature in its condition, the checker tells."""
    code = ROOT if fenced else FENCING.taken_out(tmp_path / "code")
    with open_site(tmp_path / "run", "dynamodb", 2, fifo=True, code=code) as site:
        found = overtaken(site)
    assert {violation.rule for violation in found} == (set() if fenced else {FENCING.finds}), found
