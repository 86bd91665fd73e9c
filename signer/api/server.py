"""Runs the application on a thread of its own, so that the main thread is free to wait for signals."""

import math
import socket
import threading

import uvicorn
from fastapi import FastAPI

from signer.api.protocol import HttpProtocol
from signer.errors import ConfigurationError
from signer.logs import Logger
from signer.settings import HttpSettings

_BACKLOG = 1024


class ApiServer:
    """Listens from `start` to `close`."""

    def __init__(self, app: FastAPI, settings: HttpSettings, logger: Logger, drain_timeout_s: float) -> None:
        config = uvicorn.Config(
            app,
            http=HttpProtocol,
            loop="asyncio",
            ws="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,  # its loggers write where all others do
            log_level="error",
            access_log=False,  # it quotes path and query
            proxy_headers=False,  # it would believe any X-Forwarded-For from this machine
            server_header=False,
            timeout_graceful_shutdown=math.ceil(drain_timeout_s),
        )
        self._server = _Server(config)
        self._settings = settings
        self._logger = logger
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Give the bound port once requests are answered; raises `ConfigurationError` if that port cannot be had."""
        listener = self._listen()
        port: int = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="http", daemon=True)
        self._thread.start()
        self._server.settled.wait()
        if not self._server.started:
            listener.close()
            msg = "the HTTP server could not start"
            raise ConfigurationError(msg)
        self._logger.info("http.listening", host=self._settings.host, port=port)
        return port

    def close(self) -> None:
        """Take no new connection, let the requests in flight finish within the drain time, then cut off the rest.

        Safe to call at any time, also twice. Work that was cut off may still be running in the core afterwards.
        """
        if self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._thread = None
        self._logger.info("http.closed")

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


class _Server(uvicorn.Server):
    """Tells when it is up, or that it will never be."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start up as uvicorn does."""
        await super().startup(sockets)
        self.settled.set()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Run until `should_exit`; uvicorn leaves the signals alone on any thread but the main one."""
        try:
            super().run(sockets)
        finally:
            self.settled.set()
