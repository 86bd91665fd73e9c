"""Runs the demo: in a directory of its own, and so that nothing of it is left behind when it is stopped."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from signer.demo.fresh import make_fresh
from signer.demo.processes import Program
from signer.demo.stack import Stack, running_stack
from signer.demo.story import Story


def run_demo(directory: Path, console: Console, *, keep: bool) -> bool:
    """Tell the story in a fresh `directory`; with `keep`, leave the stack up until interrupted. True if all held.

    Raises `ConfigurationError` if `directory` holds what no demo has made, and `KeyboardInterrupt` at SIGTERM.
    """
    make_fresh(directory, "demo")
    console.print("[dim]Starting an AWS emulator, a fresh SoftHSM token and a real `signer serve` …[/]")
    with _running_until_sigterm(directory) as (stack, service):
        story = Story(stack, console)
        story.tell()
        if keep:
            _explain(stack, console)
            _until_interrupted()
        status = service.terminate()
    story.check("the service drained and ended cleanly on SIGTERM", holds=status == 0)
    for name in ("signed-batch.json", "public-key.pem", "audit"):
        console.print(f"   [dim]{escape(str(directory / name))}[/]")
    return story.held


@contextlib.contextmanager
def _running_until_sigterm(directory: Path) -> Iterator[tuple[Stack, Program]]:
    """Bring the stack up, let SIGTERM do what Ctrl-C does, and take the stack down undisturbed."""
    asked = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        with running_stack(directory) as running:
            # From here on every child has somebody who ends it.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                if asked.is_set():
                    raise KeyboardInterrupt
                yield running
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _explain(stack: Stack, console: Console) -> None:
    console.print(
        Panel(
            f"HTTP API   {stack.http_url}   (/v1/sign, /v1/keys, /readyz, /metrics)\n"
            + "".join(f"{role:<11}{url}\n" for role, url in stack.queues.items())
            + f"settings   {stack.config}\nlog        {stack.directory}/serve.log\n\n"
            f"""curl -s {stack.http_url}/v1/sign -H 'Content-Type: application/json' \\
  -d '{{"key": "settlement", "transaction_id": "TRY-1", "message": {{"amount": "1.00"}}}}'\n\n"""
            "Ctrl-C ends everything.",
            title="The stack stays up",
            title_align="left",
            border_style="green",
        ),
        soft_wrap=True,
        highlight=False,
    )


def _until_interrupted() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
