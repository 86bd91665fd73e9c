"""Runs the phases of a load test: starts what is due when it is due, whatever has become of what was before."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from loadtest.knee import saturated
from loadtest.resources import Meter
from loadtest.schedule import Phase, arrivals
from loadtest.tally import Tally

MOST_UNDER_WAY: Final = 4000
_TICK_S: Final = 1.0
Watch = Callable[[Tally], None]


class Driver(Protocol):
    """An entrance."""

    @property
    def size(self) -> int:
        """Transactions that one arrival brings."""
        ...

    async def send(self, tally: Tally, intended_s: float) -> None:
        """Do one arrival from beginning to end; note it as started, then as finished or failed."""
        ...


async def run(
    driver: Driver, phases: Iterable[Phase], meter: Meter, watch: Watch, chance: random.Random | None = None
) -> list[Tally]:
    """Run them one after another, each from nothing under way; a ramp ends one step after its saturation."""
    tallies: list[Tally] = []
    ramp: list[Tally] = []
    for phase in phases:
        if ramp and saturated(ramp[-1].figures(), ramp[0].figures()):
            break
        before = meter.read()
        tally = await run_phase(driver, phase, watch, chance)
        tally.resources = meter.used(before, meter.read())
        tallies.append(tally)
        if phase.name.startswith("ramp-"):
            ramp.append(tally)
    return tallies


async def run_phase(driver: Driver, phase: Phase, watch: Watch, chance: random.Random | None = None) -> Tally:
    """Run one phase, and wait for all of it."""
    tally = Tally(phase, driver.size)
    under_way: set[asyncio.Task[None]] = set()
    watching = asyncio.create_task(_watch(tally, watch))
    try:
        for due_s in arrivals(phase.seconds, phase.rate / driver.size, chance):
            intended_s = tally.began_s + due_s
            if (early_s := intended_s - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            elif not tally.due % 16:
                await asyncio.sleep(0)  # late: let answers in all the same
            tally.due += 1
            if len(under_way) >= MOST_UNDER_WAY:
                continue
            task = asyncio.create_task(driver.send(tally, intended_s))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        while under_way:
            await asyncio.gather(*under_way)
    finally:
        watching.cancel()
    watch(tally)
    return tally


async def _watch(tally: Tally, watch: Watch) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        watch(tally)
