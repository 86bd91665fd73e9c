"""The ledger's DynamoDB table: its client, the schema it must have, and what is kept of one transaction."""

from typing import TYPE_CHECKING, Any, Final

import boto3

from signer.aws import client_config, insist, making_client, region
from signer.errors import ConfigurationError, DigestNotIndexedError, LedgerUnavailableError
from signer.ledger.items import KEY_ALIAS, TRANSACTION_ID, TTL, is_forgotten, record_of
from signer.ledger.record import Record
from signer.settings import LedgerSettings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import KeySchemaElementTypeDef

# The keys of one transaction lie together: one query gives its whole history, without an index.
KEY_SCHEMA: Final["tuple[KeySchemaElementTypeDef, ...]"] = (
    {"AttributeName": TRANSACTION_ID, "KeyType": "HASH"},
    {"AttributeName": KEY_ALIAS, "KeyType": "RANGE"},
)
DIGEST_INDEX: Final = "by-digest"
"""May be made for who wants to ask by digest: key `digest` (HASH, B), projection KEYS_ONLY."""
_CALLS: Final = 4
"""So many times of a call fit into the time of a commit: one that hangs is made again within it."""


def make_client(settings: LedgerSettings) -> "DynamoDBClient":
    """Build it (the first in a process costs up to a second); raises `ConfigurationError`."""
    call_timeout_s = settings.commit_timeout_s / _CALLS
    config = client_config(settings.parallel_transactions, call_timeout_s, call_timeout_s)
    with making_client("DynamoDB", "ledger.endpoint_url"):
        return boto3.client("dynamodb", region_name=region(), endpoint_url=settings.endpoint_url, config=config)


def require_table(client: "DynamoDBClient", name: str) -> str:
    """Say what the table is; raises `ConfigurationError` if it is not ours, `LedgerUnavailableError`."""

    def describe() -> Any:
        try:
            return client.describe_table(TableName=name)["Table"]
        except client.exceptions.ResourceNotFoundException:
            msg = f"the ledger's table {name} does not exist in this region and account"
            raise ConfigurationError(msg) from None

    table = insist("DescribeTable", describe, LedgerUnavailableError)
    types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
    if tuple(table["KeySchema"]) != KEY_SCHEMA or any(types[each["AttributeName"]] != "S" for each in KEY_SCHEMA):
        msg = f"the ledger's table {name} needs the key {TRANSACTION_ID} (HASH, S), {KEY_ALIAS} (RANGE, S)"
        raise ConfigurationError(msg)
    return f"{name}, {table['TableStatus']}"


def forgets(client: "DynamoDBClient", name: str) -> bool:
    """Tell whether the table deletes what is older than the retention; raises `LedgerUnavailableError`."""
    answer = insist("DescribeTimeToLive", lambda: client.describe_time_to_live(TableName=name), LedgerUnavailableError)
    found = answer["TimeToLiveDescription"]
    return found["TimeToLiveStatus"] in ("ENABLED", "ENABLING") and found.get("AttributeName") == TTL


def find_all(client: "DynamoDBClient", name: str, transaction_id: str, now: float) -> list[Record]:
    """Give what is known of a transaction under every key; raises `LedgerUnavailableError`."""
    pages = client.get_paginator("query").paginate(
        TableName=name,
        ConsistentRead=True,
        KeyConditionExpression=f"{TRANSACTION_ID} = :transaction_id",
        ExpressionAttributeValues={":transaction_id": {"S": transaction_id}},
    )
    found = insist("Query", lambda: [item for page in pages for item in page["Items"]], LedgerUnavailableError)
    records = [(record_of(item), item) for item in found]
    return [record for record, item in records if not is_forgotten(item, now)]


def find_digest(client: "DynamoDBClient", name: str, digest: bytes, limit: int, now: float) -> list[Record]:
    """Give what is known of transactions of a digest; the index is a moment behind.

    Raises `DigestNotIndexedError`, `LedgerUnavailableError`.
    """
    if not has_digest_index(client, name):
        msg = f"this ledger cannot be asked by digest: its table has no index {DIGEST_INDEX}"
        raise DigestNotIndexedError(msg)

    def query() -> Any:
        return client.query(
            TableName=name,
            IndexName=DIGEST_INDEX,
            KeyConditionExpression="digest = :digest",
            ExpressionAttributeValues={":digest": {"B": digest}},
            Limit=limit,
        )

    names = insist("Query", query, LedgerUnavailableError)["Items"]
    transaction_ids = dict.fromkeys(item[TRANSACTION_ID]["S"] for item in names)
    found = [record for each in transaction_ids for record in find_all(client, name, each, now)]
    return [record for record in found if record.claim.digest == digest]


def has_digest_index(client: "DynamoDBClient", name: str) -> bool:
    """Tell whether the table can be asked by digest; raises `LedgerUnavailableError`."""
    table = insist("DescribeTable", lambda: client.describe_table(TableName=name)["Table"], LedgerUnavailableError)
    return any(index["IndexName"] == DIGEST_INDEX for index in table.get("GlobalSecondaryIndexes", []))
