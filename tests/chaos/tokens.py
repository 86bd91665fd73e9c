"""The token of one service process, made anew before each start.

SoftHSM writes its token file at every login, and not atomically: killed in the middle of that, a process leaves an
empty file, and nobody finds the token again. An HSM is not a file of its clients, so this is no fault to test.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from signer.demo.stack import Token


@dataclass(frozen=True, slots=True)
class TokenCopy:
    """A copy of a token, with the same keys."""

    token: Token
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it."""
        return {"SOFTHSM2_CONF": str(self._conf)}

    def renew(self) -> None:
        """Make it what the token was in the beginning; no process may have it open."""
        original = self.token.conf.parent
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(original, self.directory)
        settings = self.token.conf.read_text(encoding="utf-8")
        self._conf.write_text(settings.replace(str(original), str(self.directory)), encoding="utf-8")

    @property
    def _conf(self) -> Path:
        return self.directory / self.token.conf.name
