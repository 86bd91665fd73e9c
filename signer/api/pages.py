"""What people read in a browser: the API with Swagger UI, and the error catalogue; no CDN, no inline script.

The scripts come out of the package `fastapi-swagger`, of which nothing else is used.
"""

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from signer.api import catalogue
from signer.api.caching import cached_response
from signer.api.problems import CATALOGUE_PATH

DOCS_PATH: Final = "/docs"
ASSETS_PATH: Final = "/docs/assets"
_MAX_AGE_S: Final = 3600
_HTML: Final = "text/html; charset=utf-8"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_PAGE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Signer: API</title>'
    f'<link rel="stylesheet" href="{ASSETS_PATH}/swagger-ui.css"><div id="api"></div>'
    f'<script src="{ASSETS_PATH}/swagger-ui-bundle.js"></script><script src="{ASSETS_PATH}/start.js"></script></html>'
).encode()
_START: Final = b'SwaggerUIBundle({url: "/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null});\n'
_STYLE: Final = b"""body { font: 1rem/1.4 sans-serif; margin: 2rem }
table { border-collapse: collapse }
td, th { border-bottom: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top }
tr:target { background: #ffd }
"""


class Pages:
    """Pages and their files; Swagger UI's 2 MB are read for who asks, which is seldom."""

    def __init__(self) -> None:
        resources = files("fastapi_swagger") / "resources"
        self._assets: Mapping[str, tuple[bytes | Traversable, str]] = MappingProxyType(
            {
                "swagger-ui-bundle.js": (resources / "swagger-ui-bundle.js", "text/javascript"),
                "swagger-ui.css": (resources / "swagger-ui.css", "text/css"),
                "start.js": (_START, "text/javascript"),
                "errors.css": (_STYLE, "text/css"),
            }
        )

    def add_to(self, app: FastAPI) -> None:
        """Serve them beside the API, outside of its description."""
        for path, endpoint in ((DOCS_PATH, self.get_docs), (CATALOGUE_PATH, self.get_errors)):
            app.add_api_route(path, endpoint, include_in_schema=False)
        for name in self._assets:
            app.add_api_route(f"{ASSETS_PATH}/{name}", self.get_asset, include_in_schema=False)

    async def get_docs(self, request: Request) -> Response:
        """Show the API."""
        return _page(request, _PAGE)

    async def get_errors(self, request: Request) -> Response:
        """Show the error catalogue."""
        return _page(request, catalogue.html())

    async def get_asset(self, request: Request) -> Response:
        """Give a file that a page needs."""
        content, media_type = self._assets[request.url.path.rpartition("/")[2]]
        body = content if isinstance(content, bytes) else content.read_bytes()
        return cached_response(request, body, media_type, _MAX_AGE_S)


def _page(request: Request, body: bytes) -> Response:
    response = cached_response(request, body, _HTML, _MAX_AGE_S)
    response.headers["Content-Security-Policy"] = _POLICY
    return response
