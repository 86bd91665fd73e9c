"""Every return code of PKCS#11 2.40 has its row, and python-pkcs11's way of raising it leads there."""

import re
from contextlib import closing
from pathlib import Path

import pkcs11
import pytest

from signer.demo.stack import Token
from signer.hsm.breaker import Trouble
from signer.hsm.errors import RULES, Fate, rule_for
from signer.hsm.module import Module
from tests.hsm.tap import answer, tapped

DOCUMENT = Path(__file__).parents[2] / "docs" / "recovery.md"
# PKCS#11 2.40 base specification, section 3.6 (CK_RV), without CKR_OK and CKR_VENDOR_DEFINED.
SPECIFIED = """
1 2 3 5 6 7 8 9 A 10 11 12 13 1B 20 21 30 31 32 40 41 50 51 54 60 62 63 64 65 66 67 68 69 6A 70 71 82 90 91 A0 A1 A2
A3 A4 B0 B1 B3 B4 B5 B6 B7 B8 C0 C1 D0 D1 E0 E1 E2 F0 F1 F2 100 101 102 103 104 105 110 112 113 114 115 120 121 130 140
150 160 170 180 190 191 1A0 1A1 1B0 1B1 1C0 1C1 1C2 1C3 1C4 200
"""
CODES = [int(code, 16) for code in SPECIFIED.split()]


def test_no_code_is_missing() -> None:
    """The table holds exactly the codes of the specification, each once."""
    assert sorted(RULES) == CODES
    assert len({rule.name for rule in RULES.values()}) == len(RULES)


@pytest.mark.parametrize("code", CODES, ids=lambda code: f"0x{code:X}")
def test_what_the_library_raises_leads_to_the_row(softhsm: Token, code: int) -> None:
    """The code, answered by a real module to a real call, is found again in the row."""
    with tapped(softhsm.module) as tap, closing(Module(softhsm.module, softhsm.label)) as module:
        tap.instead["C_OpenSession"] = answer(code)
        with pytest.raises(pkcs11.PKCS11Error) as caught:
            module.token.open(rw=True)
        assert rule_for(caught.value) is RULES[code]


def test_a_code_of_a_vendor_is_unknown_and_so_refused(softhsm: Token) -> None:
    """A code that is in no specification costs the session, and nothing is tried again blindly."""
    with tapped(softhsm.module) as tap, closing(Module(softhsm.module, softhsm.label)) as module:
        tap.instead["C_OpenSession"] = answer(0x80000001)
        with pytest.raises(pkcs11.PKCS11Error) as caught:
            module.token.open(rw=True)
    rule = rule_for(caught.value)
    assert (rule.fate, rule.retry) == (Fate.DISCARD, False)
    assert re.fullmatch("CKR 0x80000001", rule.name)


@pytest.mark.parametrize(
    ("error", "fate", "retry"),
    [
        (pkcs11.NoSuchKey, Fate.LOG_IN, True),
        (pkcs11.NoSuchToken, Fate.REBUILD, True),
        (pkcs11.MultipleObjectsReturned, Fate.DISCARD, False),
        (pkcs11.MultipleTokensReturned, Fate.DISCARD, False),
        (pkcs11.PKCS11Error, Fate.DISCARD, False),
    ],
)
def test_what_the_library_raises_without_a_code_has_a_row(
    error: type[pkcs11.PKCS11Error], fate: Fate, *, retry: bool
) -> None:
    """The library finds these itself: no module answered with them."""
    rule = rule_for(error("whatever it says"))
    assert (rule.fate, rule.retry) == (fate, retry)


def test_every_error_of_the_library_has_a_row() -> None:
    """None falls through to what is not understood."""
    errors = [item for item in vars(pkcs11.exceptions).values() if isinstance(item, type)]
    named = [error for error in errors if error is not pkcs11.PKCS11Error]
    assert len(named) > 70
    assert [error.__name__ for error in named if rule_for(error()).name == error.__name__] == []


def table() -> str:
    """The table as the documentation shows it."""
    rows = [
        f"| `{rule.name}` | 0x{code:X} | {rule.fate} | {'yes' if rule.retry else 'no'} | `{rule.error.code}` |"
        for code, rule in sorted(RULES.items())
    ]
    return "\n".join(["| return code | | fate | try again | our code |", "| --- | --- | --- | --- | --- |", *rows])


def test_the_documented_table_is_the_one_in_force() -> None:
    """docs/recovery.md holds the table as it stands in the code; on failure, this is what to put there."""
    assert table() in DOCUMENT.read_text(encoding="utf-8"), table()


def test_a_refused_login_is_final() -> None:
    """No code about a PIN or a user is ever worth another try."""
    for rule in RULES.values():
        if "_PIN_" in rule.name:
            assert (rule.fate, rule.retry) == (Fate.FATAL, False)


@pytest.mark.parametrize("trouble", Trouble)
def test_each_reason_of_the_breaker_has_its_runbook_entry(trouble: Trouble) -> None:
    """Who is paged finds what the log line names."""
    entries = re.findall(r"^- \*\*`(\w+)`\*\*: ", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert trouble.value in entries
