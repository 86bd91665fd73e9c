"""One JSON line per event on stdout, for our own events and for foreign loggers alike."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor

Logger = structlog.stdlib.BoundLogger


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's loggers through one set of processors to `stream` (stdout)."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # show_locals would print the PIN of the frame that logs in.
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stdout)
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


def get(name: str) -> Logger:
    """Give the logger called `name`."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger
