"""What others may keep for a while: `Cache-Control`, `ETag`, and 304 for who has it already (RFC 9110, RFC 9111)."""

import hashlib
import re
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[!#-~\x80-\xff]*")')


def cached_response(request: Request, body: bytes, media_type: str, max_age_s: int) -> Response:
    """Give `body`, or say that the client's copy is the same."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": f"public, max-age={max_age_s}"}
    if _has(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def _has(fields: list[str], tag: str) -> bool:
    """Compare weakly, as is right here (RFC 9110, section 13.1.2)."""
    return any(field.strip() == "*" or tag in _ENTITY_TAG.findall(field) for field in fields)
