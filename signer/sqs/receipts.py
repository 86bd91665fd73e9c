"""What SQS answers to a message that it accepted, reckoned by ourselves: botocore leaves that to its caller.

See "Calculating the MD5 message digest for message attributes" in the SQS developer guide. MD5 guards against accidents
here, not against people.
"""

import hashlib
from typing import Final

from signer.sqs.messages import Attributes

_STRING: Final = b"\x01"
_BINARY: Final = b"\x02"


def md5_of_body(body: str) -> str:
    """Give `MD5OfMessageBody`."""
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()


def md5_of_attributes(attributes: Attributes) -> str:
    """Give `MD5OfMessageAttributes`."""
    digest = hashlib.md5(usedforsecurity=False)
    for name, attribute in sorted(attributes.items()):
        digest.update(_measured(name.encode()) + _measured(attribute["DataType"].encode()))
        binary = attribute.get("BinaryValue")
        if binary is None:
            digest.update(_STRING + _measured(attribute.get("StringValue", "").encode()))
        else:
            digest.update(_BINARY + _measured(binary))
    return digest.hexdigest()


def _measured(octets: bytes) -> bytes:
    return len(octets).to_bytes(4, "big") + octets
