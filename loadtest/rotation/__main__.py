"""Rotates a key under load and proves that nothing went wrong: `python -m loadtest.rotation`; exit status 1 if it did.

Half of the transactions come over HTTP, to both processes, and half in batches through the queue they share. Each
signature is verified with the public key of the version it names, and that version is compared with the moment at
which the transaction was claimed, as the audit log has it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from loadtest.rotation.load import run
from loadtest.rotation.proof import check_ahead, check_rate, prove
from loadtest.rotation.stage import YOUNGER, fleet
from loadtest.stopping import clean_up_at_sigterm
from signer.demo.stack import Stack
from signer.signatures import fingerprint
from signer.verification import read_public_keys


def main() -> None:
    """Rotate, and print what came of it."""
    parser = argparse.ArgumentParser(prog="rotation", description="Rotate a key under load.")
    parser.add_argument("--rate", type=float, default=200.0, help="transactions a second")
    parser.add_argument("--http-share", type=float, default=0.5, help="of them over HTTP, the rest in batches")
    parser.add_argument("--before", type=float, default=30.0, help="seconds to the instant, start included")
    parser.add_argument("--after", type=float, default=20.0, help="seconds of load after the instant")
    parser.add_argument(
        "--ahead", type=float, default=1.0, help="seconds before it that key sets must have the younger"
    )
    arguments = parser.parse_args()
    instant = datetime.now(UTC) + timedelta(seconds=arguments.before)
    with tempfile.TemporaryDirectory(prefix="rotation") as name:
        directory = Path(name)
        with fleet(directory, instant) as running:
            began = datetime.now(UTC)
            if began >= instant:
                sys.exit("the instant was over before both processes were ready: give a longer --before")
            seen = run(running, arguments.rate, arguments.http_share, instant.timestamp() + arguments.after)
            loaded_s = instant.timestamp() + arguments.after - began.timestamp()
        keys = _keys(running.stacks[0])
        report = prove(running, seen, {fingerprint(key): key for key in keys.values()})
    published = {stack.directory.name: seen.published.get(stack.directory.name, {}) for stack in running.stacks}
    check_ahead(report, published, fingerprint(keys[YOUNGER]), instant.timestamp(), arguments.ahead)
    check_rate(report, report.figures["transactions"] / loaded_s, arguments.rate)
    lines = [f"instant {instant.isoformat()}, load from {(instant - began).total_seconds():.1f} s before it"]
    lines += [f"  {what}: {figure}" for what, figure in report.figures.items()]
    lines += [f"WRONG: {problem}" for problem in report.problems]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(1 if report.problems else 0)


def _keys(stack: Stack) -> dict[str, RSAPublicKey]:
    """Ask the HSM for the public key of each version, by label."""
    command = [sys.executable, "-m", "signer", "keys", "attest", "--output", "json", "--config", str(stack.config)]
    done = subprocess.run(  # noqa: S603 - our own
        command, env=stack.environment, capture_output=True, check=True, timeout=60
    )
    attested = json.loads(done.stdout)
    return {item["label"]: read_public_keys([item["public_key"].encode()])[item["fingerprint"]] for item in attested}


if __name__ == "__main__":
    clean_up_at_sigterm()
    main()
