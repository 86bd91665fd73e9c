"""The keys as callers see them: what an alias stands for, and public keys as PEM, JWK and JWK Set."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from signer import strict_json
from signer.api.body import MEDIA_TYPE
from signer.api.caching import cached_response
from signer.api.exchange import Exchange
from signer.api.intake import Intake
from signer.api.parts import Parts
from signer.errors import UnavailableError
from signer.inquiries import KeyVersions, KnownKeys
from signer.ports import KeyVersion, SigningKey, VersionState
from signer.signatures import ALGORITHMS, public_jwk, public_key_pem
from signer.versions import keepable_s
from signer.work import Refused, timestamp

PEM_MEDIA_TYPE: Final = "application/x-pem-file"
JWK_MEDIA_TYPE: Final = "application/jwk+json"
JWK_SET_MEDIA_TYPE: Final = "application/jwk-set+json"
_VARY: Final = {"Vary": "Accept"}


class KeyEndpoints:
    """Tells what the policy lets a caller know; the HSM is not asked."""

    def __init__(self, parts: Parts, intake: Intake) -> None:
        self._inquiries = parts.inquiries
        self._intake = intake
        self._look_interval_s = parts.readiness.interval_s

    async def list_keys(self, request: Request) -> Response:
        """Describe every key that the caller may know of."""

        def work(_body: bytes, exchange: Exchange) -> Response:
            known = _or_raise(self._inquiries.list_keys(exchange.origin), exchange)
            described = [_describe(alias, versions) for alias, versions in known.by_alias.items()]
            answer = {"keys": described, "audit_id": known.audit_id}
            return Response(strict_json.dumps(answer), media_type=MEDIA_TYPE)

        return await self._intake.serve(request, "keys_read", work, has_body=False)

    async def get_key(self, request: Request) -> Response:
        """Describe one key."""
        alias = request.path_params["alias"]

        def answer(known: KnownKeys) -> Response:
            described = _describe(alias, known.by_alias[alias])
            return Response(strict_json.dumps({**described, "audit_id": known.audit_id}), media_type=MEDIA_TYPE)

        return await self._serve(request, alias, answer)

    async def get_public_key(self, request: Request) -> Response:
        """Give the public key that signs now."""
        alias = request.path_params["alias"]

        def answer(known: KnownKeys) -> Response:
            version = _active(known.by_alias[alias])
            if version is None or version.key is None:
                msg = "no version of this key may sign now"
                raise UnavailableError(msg)
            return _public_key_response(version.key, request.headers.get("accept", ""))

        return await self._serve(request, alias, answer)

    async def get_key_set(self, request: Request) -> Response:
        """Give every public key that signs, is about to, or did; to whoever asks, from memory, on the event loop."""
        versions, now = self._inquiries.key_set()
        body = strict_json.dumps({"keys": list(_jwks(versions))})
        max_age_s = keepable_s(versions, now, self._look_interval_s)
        return cached_response(request, body, JWK_SET_MEDIA_TYPE, max_age_s)

    async def _serve(self, request: Request, alias: str, answer: Callable[[KnownKeys], Response]) -> Response:
        def work(_body: bytes, exchange: Exchange) -> Response:
            known = _or_raise(self._inquiries.read_key(alias, exchange.origin), exchange)
            exchange.about["key"] = alias
            return answer(known)

        return await self._intake.serve(request, "keys_read", work, has_body=False)


def _or_raise(answer: KnownKeys | Refused, exchange: Exchange) -> KnownKeys:
    if isinstance(answer, Refused):
        exchange.audit_id = answer.audit_id
        raise answer.error
    exchange.about["audit_id"] = answer.audit_id
    return answer


def _describe(alias: str, versions: KeyVersions) -> dict[str, Any]:
    active = _active(versions)
    return {
        "alias": alias,
        "label": active.label if active is not None else None,
        "fingerprint": active.fingerprint if active is not None else None,
        "algorithms": [{"name": algorithm.name, "jose": algorithm.jose} for algorithm in ALGORITHMS.values()],
        "versions": [_describe_version(version) for version in versions],
    }


def _active(versions: KeyVersions) -> KeyVersion | None:
    return next((version for version in versions if version.state is VersionState.ACTIVE), None)


def _describe_version(version: KeyVersion) -> dict[str, Any]:
    return {
        "label": version.label,
        "fingerprint": version.fingerprint,
        "state": version.state.value,
        "active_from": _moment(version.active_from),
        "verify_until": _moment(version.verify_until),
    }


def _moment(moment: datetime | None) -> str | None:
    return timestamp(moment) if moment is not None else None


def _jwks(versions: Iterable[KeyVersion]) -> Iterable[dict[str, str]]:
    # Two aliases may stand for one key; a verifier wants each `kid` once.
    keys = {version.key.fingerprint: version.key for version in versions if version.key is not None}
    return (public_jwk(key.public_key, fingerprint) for fingerprint, key in keys.items())


def _public_key_response(key: SigningKey, accept: str) -> Response:
    """Give the public key as JWK (RFC 7517) to whoever names JSON in `Accept`, and as PEM to everyone else."""
    named = {item.partition(";")[0].strip().lower() for item in accept.split(",")}
    if named.isdisjoint({MEDIA_TYPE, JWK_MEDIA_TYPE}):
        return Response(public_key_pem(key.public_key), headers=_VARY, media_type=PEM_MEDIA_TYPE)
    jwk = strict_json.dumps(public_jwk(key.public_key, key.fingerprint))
    return Response(jwk, headers=_VARY, media_type=JWK_MEDIA_TYPE)
