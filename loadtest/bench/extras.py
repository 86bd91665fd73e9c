"""What no closed loop shows: latency at a steady rate, and memory after a million signatures."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from loadtest.bench.cells import PATHS, Setup, opened
from loadtest.messages import Book
from loadtest.objectives import MOST_LAG_MS, Objective, fell_behind, missed
from loadtest.open_http import HttpDriver, HttpTarget
from loadtest.openloop import run_phase
from loadtest.proof import NotProvenError
from loadtest.schedule import Phase
from loadtest.stage import MODULES, Service, open_stage
from loadtest.tally import Tally
from loadtest.verifier import Verdict, Verifier

STEADY: Final = "http-single 200/s"
MANY: Final = "sqs-500 for long"
_RATE: Final = 200.0
_PAGES: Final = 500
_WARM_UP_S: Final = 3.0
_LIMIT_THREADS: Final = 4
_BETWEEN_LOOKS_S: Final = 10.0


def steady_rate(directory: Path, seconds: float) -> dict[str, Any]:
    """Ask for 200 signatures a second, answered or not, and give the latencies beside the HSM's own."""
    module = MODULES["shim-cloudhsm"]
    with open_stage(directory, module) as stage, stage.service("service", {}) as service:
        before = stage.limit(_LIMIT_THREADS, seconds / 2)
        figures = _drive(service, seconds)
        after = stage.limit(_LIMIT_THREADS, seconds / 2)
    p50_ms, p99_ms = (before.p50_ms + after.p50_ms) / 2, (before.p99_ms + after.p99_ms) / 2
    return {
        "path": STEADY,
        "module": module.name,
        "p50_ms": figures["p50_ms"],
        "p99_ms": figures["p99_ms"],
        "hsm_p50_ms": round(p50_ms, 3),
        "hsm_p99_ms": round(p99_ms, 3),
        "p50_beyond_ms": round(figures["p50_ms"] - p50_ms, 3),
        "p99_beyond_ms": round(figures["p99_ms"] - p99_ms, 3),
        "generator_lag_p99_ms": figures["generator_lag_p99_ms"],
    }


def _drive(service: Service, seconds: float) -> dict[str, Any]:
    with closing(Verifier(service.public_key())) as verifier:
        made_before = service.signed()
        warm_up, steady = asyncio.run(_phases(service, verifier, seconds))
        made = service.signed() - made_before
        service.program.terminate()
        verdict = verifier.result([service.audit], [service.ledger]).beside(warm_up.done + steady.done, made)
    return judged(steady.figures(), verdict)


def judged(figures: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    """Give the figures back; raises `NotProvenError` if they do not count, as those of the load test would not."""
    problems = [*verdict.problems, *fell_behind([figures], MOST_LAG_MS), *missed([figures], [Objective("errors", 0)])]
    if problems:
        raise NotProvenError("; ".join(problems))
    return figures


async def _phases(service: Service, verifier: Verifier, seconds: float) -> tuple[Tally, Tally]:
    async with HttpDriver(HttpTarget(service.stack.http_url), Book(250, _PAGES), verifier, "steady") as driver:
        warm_up = await run_phase(driver, Phase("warm-up", _WARM_UP_S, _RATE), lambda _: None)
        return warm_up, await run_phase(driver, Phase("steady", seconds, _RATE, judged=True), lambda _: None)


def memory(directory: Path, signatures: int) -> dict[str, Any]:
    """Have so many signatures made, and give the memory of the service on the way and in the end."""
    module = MODULES["shim-replay"]
    with open_stage(directory, module) as stage, opened(stage, "service", Setup()) as bench:
        load = bench.load(PATHS["sqs-500"])
        looks: list[tuple[int, float]] = []
        done = 0
        while done < signatures:
            ran = bench.run(load, "long", _BETWEEN_LOOKS_S)
            load.verify()
            done += ran.signatures
            looks.append((done, round(bench.rss_mb(), 1)))
        bench.check()
    half_way = next(rss_mb for made, rss_mb in looks if made >= done / 2)
    return {
        "path": MANY,
        "module": module.name,
        "signatures": done,
        "rss_mb": looks[-1][1],
        "growth_mb": round(looks[-1][1] - half_way, 1),
        "rss_mb_after": looks,
    }
