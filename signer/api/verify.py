"""`POST /v1/verify`: is this signature ours? Answered with the public keys; the HSM is not asked."""

import base64

from starlette.requests import Request
from starlette.responses import Response

from signer import strict_json
from signer.api.body import MEDIA_TYPE
from signer.api.exchange import Exchange
from signer.api.intake import Intake
from signer.api.parts import Parts
from signer.api.requests import parse_verify
from signer.ports import KeyVersion
from signer.work import Refused


class VerifyEndpoint:
    """Checks signatures for whoever the policy lets ask."""

    def __init__(self, parts: Parts, intake: Intake) -> None:
        self._inquiries = parts.inquiries
        self._intake = intake

    async def verify(self, request: Request) -> Response:
        """Say whether a signature is valid, and which version of the key made it."""
        return await self._intake.serve(request, "verified", self._verify)

    def _verify(self, body: bytes, exchange: Exchange) -> Response:
        wanted = parse_verify(body)
        verdict = self._inquiries.verify(wanted, exchange.origin)
        exchange.audit_id = verdict.audit_id
        if isinstance(verdict, Refused):
            raise verdict.error
        version = verdict.signed_by
        exchange.about |= {"key": wanted.key_alias, "valid": version is not None, "audit_id": verdict.audit_id}
        answer = {
            "valid": version is not None,
            "key_alias": wanted.key_alias,
            "key_label": version.label if version is not None else None,
            "key_fingerprint": version.fingerprint if version is not None else None,
            "algorithm": wanted.algorithm.name,
            "jose_algorithm": wanted.algorithm.jose,
            "digest": base64.b64encode(wanted.digest).decode("ascii"),
            "tried": [_named(version) for version in verdict.tried],
            "audit_id": verdict.audit_id,
        }
        return Response(strict_json.dumps(answer), media_type=MEDIA_TYPE)


def _named(version: KeyVersion) -> dict[str, str | None]:
    return {"key_label": version.label, "key_fingerprint": version.fingerprint}
