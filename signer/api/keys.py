"""The keys as callers see them: a list, and public keys as PEM or JWK."""

from typing import Any, Final

from starlette.responses import Response

from signer import strict_json
from signer.api.body import MEDIA_TYPE
from signer.errors import UnknownKeyError
from signer.ports import SigningKey
from signer.signatures import ALGORITHMS, public_jwk, public_key_pem
from signer.signing import SigningService

PEM_MEDIA_TYPE: Final = "application/x-pem-file"
JWK_MEDIA_TYPE: Final = "application/jwk+json"
_VARY: Final = {"Vary": "Accept"}


def keys_by_alias(service: SigningService) -> dict[str, SigningKey]:
    """Give the configured keys; they are in memory, the HSM is not asked."""
    keys = service.keys()
    return {key.alias: key for key in keys}


def find_key(service: SigningService, alias: str) -> SigningKey:
    """Give one key; raises `UnknownKeyError`."""
    try:
        return keys_by_alias(service)[alias]
    except KeyError:
        msg = "no key with this alias is configured"
        raise UnknownKeyError(msg) from None


def describe(key: SigningKey) -> dict[str, Any]:
    """Say which key it is and what it signs with."""
    return {
        "alias": key.alias,
        "label": key.label,
        "fingerprint": key.fingerprint,
        "algorithms": [{"name": algorithm.name, "jose": algorithm.jose} for algorithm in ALGORITHMS.values()],
    }


def public_key_response(key: SigningKey, accept: str) -> Response:
    """Give the public key as JWK (RFC 7517) to whoever names JSON in `Accept`, and as PEM to everyone else."""
    named = {item.partition(";")[0].strip().lower() for item in accept.split(",")}
    if named.isdisjoint({MEDIA_TYPE, JWK_MEDIA_TYPE}):
        return Response(public_key_pem(key.public_key), headers=_VARY, media_type=PEM_MEDIA_TYPE)
    jwk = strict_json.dumps(public_jwk(key.public_key, key.fingerprint))
    return Response(jwk, headers=_VARY, media_type=JWK_MEDIA_TYPE)
