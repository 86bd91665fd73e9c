"""Runs the phases of a load test: starts what is due when it is due, whatever has become of what was before."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from loadtest.knee import saturated
from loadtest.resources import Meter
from loadtest.schedule import Phase, arrivals
from loadtest.stopping import Stop
from loadtest.tally import Tally

MOST_UNDER_WAY: Final = 4000
_TICK_S: Final = 1.0
_GRACE_S: Final = 10.0
"""How long a run that is ended early waits for what it has sent."""
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
    driver: Driver, phases: Iterable[Phase], meter: Meter, watch: Watch, chance: random.Random | None, stop: Stop
) -> list[Tally]:
    """Run them one after another, each from nothing under way; a ramp ends one step after its saturation."""
    tallies: list[Tally] = []
    ramp: list[Tally] = []
    for phase in phases:
        if stop.signal is not None or (ramp and saturated(ramp[-1].figures(), ramp[0].figures())):
            break
        before = meter.read()
        tally = await run_phase(driver, phase, watch, chance, stop)
        tally.resources = meter.used(before, meter.read())
        tallies.append(tally)
        if phase.name.startswith("ramp-"):
            ramp.append(tally)
    return tallies


async def run_phase(
    driver: Driver, phase: Phase, watch: Watch, chance: random.Random | None = None, stop: Stop | None = None
) -> Tally:
    """Run one phase, and wait for all of it."""
    tally = Tally(phase, driver.size)
    stop = stop or Stop()
    under_way: set[asyncio.Task[None]] = set()
    watching = asyncio.create_task(_watch(tally, watch))
    starting = asyncio.create_task(_start_all(driver, tally, under_way, chance))
    try:
        with stop.cancels(starting):
            await asyncio.wait([starting])
        if starting.cancelled():
            tally.end_early()
        else:
            starting.result()
        await _finish(under_way, stop)
    finally:
        watching.cancel()
    watch(tally)
    return tally


async def _start_all(
    driver: Driver, tally: Tally, under_way: set[asyncio.Task[None]], chance: random.Random | None
) -> None:
    for due_s in arrivals(tally.phase.seconds, tally.phase.rate / driver.size, chance):
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


async def _finish(under_way: set[asyncio.Task[None]], stop: Stop) -> None:
    """Wait for all; if somebody wants it to end, not for long."""
    left_s = _GRACE_S
    while under_way:
        await asyncio.wait(under_way, timeout=_TICK_S)
        if stop.signal is not None:
            left_s -= _TICK_S
        if left_s <= 0:
            for task in under_way:
                task.cancel()


async def _watch(tally: Tally, watch: Watch) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        watch(tally)
