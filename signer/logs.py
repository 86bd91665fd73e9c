"""One JSON line per event on stdout, for our own events and for foreign loggers alike."""

import logging
import sys
import threading
import traceback
from contextlib import suppress
from functools import partial
from typing import Any, TextIO

import structlog
from structlog.typing import ExcInfo, FilteringBoundLogger, Processor

Logger = FilteringBoundLogger


class _Lines:
    """Writes lines, whole; as with the standard library, a stream that takes none fails nobody's work."""

    def __init__(self, stream: TextIO, lock: threading.Lock, name: str = "") -> None:
        self.name = name
        self._stream = stream
        self._lock = lock

    def msg(self, line: str) -> None:
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = msg


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send events of ours and of the standard library's loggers through one set of processors to `stream` (stdout).

    Ours take the short way: through the standard library each costs twice as much, and there is one for each request.
    """
    output = stream or sys.stdout
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_where_it_arose),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=partial(_Lines, output, threading.Lock()),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These log every call at DEBUG or INFO, bodies included.
    for name in ("boto3", "botocore", "urllib3", "s3transfer", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def frames_of(error: BaseException) -> list[str]:
    """Give where an error arose, innermost last: neither its text nor locals, which could quote a message or a PIN."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]


def _where_it_arose(exc_info: ExcInfo) -> list[dict[str, Any]]:
    """Render an exception and those that led to it, outermost first."""
    chain: list[BaseException] = []
    error: BaseException | None = exc_info[1]
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return [{"type": type(error).__qualname__, "frames": frames_of(error)} for error in chain]


def get(name: str) -> Logger:
    """Give the logger called `name`."""
    logger: Logger = structlog.get_logger(name)
    return logger
