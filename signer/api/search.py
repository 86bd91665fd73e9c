"""`GET /v1/signatures`: did we sign this, when, with which key, for whom? For auditors."""

import base64
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from signer import strict_json
from signer.api.body import MEDIA_TYPE
from signer.api.exchange import Exchange
from signer.api.intake import Intake
from signer.api.parts import Parts
from signer.api.requests import parse_search
from signer.errors import InvalidInputError
from signer.inquiries import Search
from signer.ports import Binding
from signer.signatures import ALGORITHMS
from signer.work import Refused


class SearchEndpoint:
    """Looks up what was claimed and signed, in the ledger that every task shares."""

    def __init__(self, parts: Parts, intake: Intake) -> None:
        self._inquiries = parts.inquiries
        self._intake = intake

    async def search(self, request: Request) -> Response:
        """Give what was signed for a transaction, or over a digest."""
        query = request.query_params.multi_items()

        def work(_body: bytes, exchange: Exchange) -> Response:
            return self._search(query, exchange)

        return await self._intake.serve(request, "searched", work, has_body=False)

    def _search(self, query: list[tuple[str, str]], exchange: Exchange) -> Response:
        found = self._inquiries.search(_read(query), exchange.origin)
        exchange.audit_id = found.audit_id
        if isinstance(found, Refused):
            raise found.error
        exchange.about |= {"found": len(found.bindings), "audit_id": found.audit_id}
        answer = {"signatures": [_described(binding) for binding in found.bindings], "audit_id": found.audit_id}
        return Response(strict_json.dumps(answer), media_type=MEDIA_TYPE)


def _read(query: list[tuple[str, str]]) -> Search | InvalidInputError:
    """Leave what is wrong with it to whoever decides about the caller first, and records both."""
    try:
        return parse_search(query)
    except InvalidInputError as error:
        return error.without_frames()


def _described(binding: Binding) -> dict[str, Any]:
    claim = binding.claim
    return {
        "transaction_id": claim.transaction_id,
        "key_alias": claim.key_alias,
        "caller": claim.caller,
        "algorithm": claim.algorithm,
        "jose_algorithm": ALGORITHMS[claim.algorithm].jose,
        "digest": base64.b64encode(claim.digest).decode("ascii"),
        "signature": binding.signature.to_message() if binding.signature is not None else None,
    }
