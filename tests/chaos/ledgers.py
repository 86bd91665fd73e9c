"""The ledgers, read without the service's code."""

import json
import sqlite3
from base64 import b64encode
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.evidence import Row

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_ROWS: Final = "SELECT key_alias, transaction_id, hex(digest), signature FROM claims"


def read_sqlite(path: Path) -> list[Row]:
    """Read the file that no process holds any more."""
    with closing(sqlite3.connect(path)) as connection:
        return [
            Row(alias, transaction_id, digest.lower(), json.loads(signature) if signature else None)
            for alias, transaction_id, digest, signature in connection.execute(_ROWS)
        ]


def read_dynamodb(client: "DynamoDBClient", table: str) -> list[Row]:
    """Read the table."""
    pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return [_row(item) for page in pages for item in page["Items"]]


def _row(item: Mapping[str, Any]) -> Row:
    digest = bytes(item["digest"]["B"])
    alias, transaction_id = item["key_alias"]["S"], item["transaction_id"]["S"]
    if "signature" not in item:
        return Row(alias, transaction_id, digest.hex(), None)
    # What the claim says already is not kept a second time.
    said = {"key_alias": alias, "algorithm": item["algorithm"]["S"], "digest": b64encode(digest).decode()}
    if "key_label" in item:
        said["key_label"] = item["key_label"]["S"]
    kept = {name: value["S"] for name, value in item["signature"]["M"].items()}
    return Row(alias, transaction_id, digest.hex(), {**said, **kept})
