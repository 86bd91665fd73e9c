"""Runs the application on a thread of its own, so that the main thread is free to wait for signals."""

import asyncio
import math
import resource
import socket
import threading
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from signer.api.credentials import Credentials
from signer.api.handshake import TlsConfig
from signer.api.protocol import HttpProtocol
from signer.errors import ConfigurationError
from signer.http_settings import HealthSettings
from signer.logs import Logger
from signer.settings import HttpSettings

SPARE_DESCRIPTORS: Final = 128
"""File descriptors left to ledger, audit log, queues and HSM when all connections are open."""
_BACKLOG: Final = 1024
# asyncio accepts so many before it looks at the first: by then they hold descriptors beyond the cap. Should the
# descriptors run out all the same, it logs as many errors in a second.
_ACCEPTED_AT_ONCE: Final = 8


class ApiServer:
    """Listens from `start` to `close`."""

    def __init__(
        self,
        app: FastAPI,
        settings: HttpSettings | HealthSettings,
        logger: Logger,
        drain_timeout_s: float,
        credentials: Credentials | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "loop": "asyncio",
            "ws": "none",
            "lifespan": "on",
            "interface": "asgi3",
            "log_config": None,  # its loggers write where all others do
            "log_level": "error",
            "access_log": False,  # it quotes path and query
            "proxy_headers": False,  # it would believe any X-Forwarded-For from this machine
            "server_header": False,
            "backlog": _ACCEPTED_AT_ONCE,
            "limit_concurrency": settings.max_connections,
            "timeout_graceful_shutdown": math.ceil(drain_timeout_s),
        }
        if credentials is None or credentials.tls is None:
            config = uvicorn.Config(app, http=HttpProtocol, **options)
        else:
            config = TlsConfig(credentials.tls, credentials.refusals, app, options)
        self._server = _Server(config)
        self._tls = credentials.tls if credentials is not None else None
        self._settings = settings
        self._logger = logger
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Give the bound port once requests are answered.

        Raises `ConfigurationError` if that port cannot be had, or fewer file descriptors than the connections need.
        """
        _require_descriptors(self._settings.max_connections)
        listener = self._listen()
        port: int = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="http", daemon=True)
        self._thread.start()
        self._server.settled.wait()
        if not self._server.started:
            listener.close()
            msg = "the HTTP server could not start"
            raise ConfigurationError(msg)
        if self._tls is not None:
            self._tls.watch(self._server.renew_connections)
        self._logger.info("http.listening", host=self._settings.host, port=port)
        return port

    def close(self, within_s: float | None = None) -> bool:
        """Take no new connection, let the requests in flight finish within the drain time, then cut off the rest.

        The drain time is `within_s`, if it is given: what is left of it.

        Gives whether any was cut off; its work may still be running in the core afterwards. Safe to call at any time,
        also twice.
        """
        if self._thread is not None:
            if within_s is not None:
                self._server.config.timeout_graceful_shutdown = within_s  # type: ignore[assignment] # asyncio takes both
            self._server.should_exit = True
            self._thread.join()
            self._thread = None
            self._logger.info("http.closed", cut_off=self._server.cut_off)
        return self._server.cut_off

    def _listen(self) -> socket.socket:
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # The protocol is named because asyncio turns Nagle's algorithm off only where it is; head and body of an
        # answer are two writes, and the second would wait for the client's delayed acknowledgement.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            msg = f"cannot listen on {host} port {port}: {error.strerror}"
            raise ConfigurationError(msg) from None
        return listener


def _require_descriptors(max_connections: int) -> None:
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft_limit != resource.RLIM_INFINITY and max_connections > soft_limit - SPARE_DESCRIPTORS:
        msg = (
            f"http.max_connections is {max_connections}, but this process may have {soft_limit} open files only, and"
            f" needs {SPARE_DESCRIPTORS} of them for other things: lower the one or raise the other (ulimit -n)"
        )
        raise ConfigurationError(msg)


class _Server(uvicorn.Server):
    """Tells when it is up, or that it will never be, and whether its end cut anything off."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()
        self.cut_off = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start up as uvicorn does."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(_BACKLOG)  # asyncio made it as short as what it accepts at once
        self.settled.set()

    def renew_connections(self) -> None:
        """End idle connections now, and busy ones after their answer; safe to call from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._renew)

    def _renew(self) -> None:
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does; it cancels the requests that outlast the drain time."""
        in_flight = list(self.server_state.tasks)
        await super().shutdown(sockets)
        self.cut_off = any(request.cancelling() for request in in_flight)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Run until `should_exit`; uvicorn leaves the signals alone on any thread but the main one."""
        try:
            super().run(sockets)
        finally:
            self.settled.set()
