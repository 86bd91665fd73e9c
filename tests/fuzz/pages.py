"""What is served beside the API, described for schemathesis: the description of the API leaves it out."""

import copy
from collections.abc import Mapping
from typing import Any, Final

PAGES: Final[Mapping[str, str]] = {
    "/docs": "text/html",
    "/docs/errors": "text/html",
    "/docs/assets/swagger-ui-bundle.js": "text/javascript",
    "/docs/assets/swagger-ui.css": "text/css",
    "/docs/assets/start.js": "text/javascript",
    "/docs/assets/errors.css": "text/css",
    "/openapi.json": "application/json",
}
_LIKE: Final = "/.well-known/jwks.json"
"""Open to all, and cached, as they are."""


def with_pages(document: Mapping[str, Any]) -> dict[str, Any]:
    """Add them to the description of a service."""
    whole = copy.deepcopy(dict(document))
    for path, media_type in PAGES.items():
        page = copy.deepcopy(whole["paths"][_LIKE]["get"]) | {"operationId": path, "summary": path}
        page["responses"]["200"]["content"] = {media_type: {"schema": {"type": _type_of(media_type)}}}
        whole["paths"][path] = {"get": page}
    return whole


def _type_of(media_type: str) -> str:
    return "object" if media_type == "application/json" else "string"
