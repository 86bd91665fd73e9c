"""The routes of the HTTP entrance; each answers with bytes of its own making, FastAPI adds routing and OpenAPI."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from signer import __version__, strict_json
from signer.api import openapi
from signer.api.batch import BatchEndpoint
from signer.api.body import MEDIA_TYPE
from signer.api.errors import MethodNotAllowedError, NotFoundError, NotReadyError
from signer.api.frame import Frame, request_id_of
from signer.api.intake import Intake
from signer.api.keys import KeyEndpoints
from signer.api.pages import Pages
from signer.api.parts import Parts
from signer.api.problems import UNKNOWN_PROBLEM, Problem
from signer.api.search import SearchEndpoint
from signer.api.sign import SignEndpoint
from signer.api.verify import VerifyEndpoint
from signer.errors import InvalidInputError, SignerError
from signer.metrics import Metrics
from signer.readiness import Readiness

# FastAPI records requests on its own accord as soon as anything in the process sets a telemetry provider.
_NO_TELEMETRY: Final[TelemetryConfig] = {
    "tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False,
}  # fmt: skip
_OF_FRAMEWORK: Final[Mapping[int, Problem]] = MappingProxyType(
    {
        HTTPStatus.NOT_FOUND: Problem.of(NotFoundError("nothing is served under this path")),
        HTTPStatus.METHOD_NOT_ALLOWED: Problem.of(MethodNotAllowedError("this path is served by other methods")),
    }
)
_INVALID: Final = InvalidInputError("a parameter is absent or malformed")


class RawRoute(APIRoute):
    """A documented route whose endpoint takes the request and gives the response, with nothing in between."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Leave out FastAPI's reading, validating and its stacks of things to close: they cost as much as we do."""
        super().__init__(*args, **kwargs)
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


class _App(FastAPI):
    """FastAPI without its middleware for what we do not use, or do ourselves: `Frame` answers what nobody expected."""

    def build_middleware_stack(self) -> ASGIApp:
        """Put the frame around errors that have an answer, and these around the routes."""
        (frame,) = self.user_middleware
        routes = ExceptionMiddleware(AsyncExitStackMiddleware(self.router), handlers=dict(self.exception_handlers))
        return frame.cls(routes, *frame.args, **frame.kwargs)


def create_app(parts: Parts) -> FastAPI:
    """Build the application; it owns threads from its first request to the end of its lifespan."""
    intake = Intake(parts)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        intake.close()

    app = _bare_app(parts, lifespan, any_host=parts.settings.authenticates)
    max_items = parts.settings.max_batch_transactions
    app.add_api_route("/v1/sign", SignEndpoint(parts, intake).sign, methods=["POST"], **openapi.SIGN)
    app.add_api_route(
        "/v1/sign-batch", BatchEndpoint(parts, intake).sign, methods=["POST"], **openapi.sign_batch(max_items)
    )
    app.add_api_route("/v1/verify", VerifyEndpoint(parts, intake).verify, methods=["POST"], **openapi.VERIFY)
    app.add_api_route("/v1/signatures", SearchEndpoint(parts, intake).search, **openapi.SEARCH)
    _add_key_routes(app, KeyEndpoints(parts, intake))
    Pages().add_to(app)
    if parts.settings.health is None:
        _add_operator_routes(app, parts.readiness, parts.metrics)
    _describe(app, authenticates=parts.settings.authenticates)
    return app


def _describe(app: FastAPI, *, authenticates: bool) -> None:
    # FastAPI caches its document; once complete, it is served as it is.
    app.openapi_schema = openapi.complete(app.openapi(), app.routes, authenticates=authenticates)


def create_health_app(parts: Parts) -> FastAPI:
    """Build what the health listener serves: whoever reaches it learns how the service is, and can do nothing."""
    app = _bare_app(parts, None, any_host=True, openapi_url=None)
    _add_operator_routes(app, parts.readiness, parts.metrics)
    return app


def _bare_app(parts: Parts, lifespan: Lifespan[FastAPI] | None, *, any_host: bool, **options: Any) -> FastAPI:
    app = _App(
        title="Signer",
        summary="Signs settlement transactions with keys that never leave an HSM.",
        version=__version__,
        telemetry=_NO_TELEMETRY,
        docs_url=None,  # both would load their scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat path, query and Host header in its Location
        lifespan=lifespan,
        **options,
        middleware=[Middleware(Frame, parts.metrics, parts.logger, any_host=any_host)],
        exception_handlers={
            SignerError: _on_error,
            HTTPException: _on_framework_error,
            RequestValidationError: _on_validation_error,
        },
    )
    app.router.route_class = RawRoute
    return app


def _add_key_routes(app: FastAPI, keys: KeyEndpoints) -> None:
    app.add_api_route("/v1/keys", keys.list_keys, **openapi.LIST_KEYS)
    app.add_api_route("/v1/keys/{alias}", keys.get_key, **openapi.GET_KEY)
    app.add_api_route("/v1/keys/{alias}/public-key", keys.get_public_key, **openapi.GET_PUBLIC_KEY)
    app.add_api_route("/.well-known/jwks.json", keys.get_key_set, **openapi.GET_KEY_SET)


def _add_operator_routes(app: FastAPI, readiness: Readiness, metrics: Metrics) -> None:
    async def live(_request: Request) -> Response:
        return _json({"live": True})

    async def ready(request: Request) -> Response:
        problems, warnings = list(readiness.problems()), list(readiness.warnings())
        if problems:
            error = NotReadyError("the service cannot sign now")
            return Problem.of(error).response(request_id_of(request), problems=problems, warnings=warnings)
        return _json({"ready": True, "problems": [], "warnings": warnings})

    async def scrape(_request: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    for path, endpoint, description in (("/livez", live, openapi.LIVE), ("/readyz", ready, openapi.READY)):
        # Serves both methods and names both in a 405; the one after it is for the document, where HEAD would need
        # an operation of its own.
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
        app.add_api_route(path, endpoint, **description)
    app.add_api_route("/metrics", scrape, **openapi.METRICS)


def _json(document: Any) -> Response:
    return Response(strict_json.dumps(document), media_type=MEDIA_TYPE)


async def _on_error(request: Request, error: Exception) -> Response:
    problem = Problem.of(error) if isinstance(error, SignerError) else UNKNOWN_PROBLEM
    return problem.response(request_id_of(request))


async def _on_framework_error(request: Request, error: Exception) -> Response:
    # Its own words may quote the request.
    if not isinstance(error, HTTPException) or error.status_code not in _OF_FRAMEWORK:
        raise error  # none of ours raises such, so it is a defect like any other
    response = _OF_FRAMEWORK[error.status_code].response(request_id_of(request))
    response.headers.update(error.headers or {})
    return response


async def _on_validation_error(request: Request, _error: Exception) -> Response:
    # FastAPI's own answer quotes the rejected input.
    return Problem.of(_INVALID).response(request_id_of(request))
