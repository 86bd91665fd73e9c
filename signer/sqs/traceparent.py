"""The trace that a batch belongs to, as W3C Trace Context writes it."""

import re
from typing import Final

from signer.sqs.messages import Attributes

ATTRIBUTE: Final = "traceparent"
_VALID: Final = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent_of(attributes: Attributes, content_sha256: str) -> str:
    """Pass on the trace that a message came with; without one, begin a trace that every copy of the batch shares."""
    attribute = attributes.get(ATTRIBUTE)
    given = "" if attribute is None else attribute.get("StringValue", "")
    return given if _VALID.fullmatch(given) else f"00-{content_sha256[:32]}-{content_sha256[32:48]}-01"
