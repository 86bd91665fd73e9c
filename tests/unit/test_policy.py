"""Default deny: what the policy file does not grant is refused, and what is killed is refused whoever asks."""

import json
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer.errors import ConfigurationError
from signer.policy import MAX_BATCH, OPERATIONS, CallerPolicy, Grant, Kills, Policy
from signer.policy_changes import changes
from signer.policy_file import parse_policy
from signer.policy_kills import parse_kills
from signer.signatures import ALGORITHMS, RSASSA_PSS_SHA_256, Algorithm
from signer.transactions import CONTENTS, SigningRequest
from tests.unit.policies import AUDITOR, BANK, KILL, POLICY, QUEUE, asked

BASE = parse_policy(POLICY.encode())


def code(policy: Policy, caller: str, request: SigningRequest) -> str:
    """What would happen."""
    denial = policy.denial(caller, request)
    return "allowed" if denial is None else denial.error.code


@pytest.mark.parametrize(
    ("caller", "request_", "expected"),
    [
        (QUEUE, asked(), "allowed"),
        (QUEUE, asked(content="payload"), "allowed"),
        (QUEUE, asked(content="digest"), "not_authorised"),
        (QUEUE, asked(algorithm=RSASSA_PSS_SHA_256), "not_authorised"),
        (QUEUE, asked("payout"), "not_authorised"),
        (QUEUE, asked(named=False), "transaction_id_required"),
        (BANK, asked(named=False), "allowed"),
        (BANK, asked("payout", RSASSA_PSS_SHA_256, "digest"), "allowed"),
        (BANK, asked("payout", RSASSA_PSS_SHA_256, "digest", named=False), "transaction_id_required"),
        (BANK, asked("payout", RSASSA_PSS_SHA_256), "not_authorised"),
        (AUDITOR, asked(), "not_authorised"),
        ("spiffe://bank.example/Settlement", asked(), "not_authorised"),
        ("", asked(), "not_authorised"),
    ],
)
def test_only_what_is_granted_is_allowed(caller: str, request_: SigningRequest, expected: str) -> None:
    """Caller, key, algorithm, kind of content and transaction id must all be as the file says."""
    assert code(BASE, caller, request_) == expected


@given(
    st.sampled_from([BANK, QUEUE, AUDITOR, "stranger"]),
    st.sampled_from(["settlement", "payout", "other"]),
    st.sampled_from(list(ALGORITHMS.values())),
    st.sampled_from(CONTENTS),
    st.booleans(),
)
def test_every_question_is_answered_as_the_file_reads(
    caller: str,
    key: str,
    algorithm: Algorithm,
    content: str,
    named: bool,  # noqa: FBT001 - hypothesis draws it
) -> None:
    """Read independently from the TOML, over every combination, the answer is the same."""
    entries = {item["name"]: item for item in tomllib.loads(POLICY)["callers"]}
    grant = entries.get(caller, {}).get("keys", {}).get(key)
    granted = grant is not None and algorithm.name in grant["algorithms"] and content in grant["content"]
    expected = "allowed" if granted else "not_authorised"
    if granted and grant.get("require_transaction_id", True) and not named:
        expected = "transaction_id_required"
    assert code(BASE, caller, asked(key, algorithm, content, named=named)) == expected


def test_nobody_may_anything_without_a_rule() -> None:
    """An empty policy file is a good one, which denies all."""
    policy = parse_policy(b'schema = "signer-policy/1"')
    assert code(policy, BANK, asked()) == "not_authorised"
    assert not policy.has_role(BANK, "auditor")


def test_roles_and_limits_are_the_callers() -> None:
    """The auditor has its role, the bank its limits; who is not named has neither."""
    assert BASE.has_role(AUDITOR, "auditor")
    assert not BASE.has_role(BANK, "auditor")
    assert (BASE.max_batch(BANK), BASE.max_batch(QUEUE)) == (3, MAX_BATCH)
    assert (BASE.callers[BANK].transactions_per_s, BASE.callers[BANK].burst) == (2, 4)


def test_the_kill_switch_stops_keys_and_callers() -> None:
    """Each has its code; who may not use a key does not learn that it was killed."""
    killed = replace(BASE, kills=Kills(keys={"settlement": KILL}, callers={AUDITOR: KILL}))
    assert code(killed, BANK, asked()) == "key_killed"
    assert code(killed, BANK, asked("payout", RSASSA_PSS_SHA_256, "digest")) == "allowed"
    assert code(killed, AUDITOR, asked()) == "caller_killed"
    assert code(killed, "stranger", asked()) == "not_authorised"
    assert not killed.has_role(AUDITOR, "auditor")


def test_who_may_verify_only_does_not_sign() -> None:
    """And the other way round; who is granted neither is not asked which it wants."""
    verifying = parse_policy(POLICY.replace("require_transaction_id = false", 'operations = ["verify"]').encode())
    signing = parse_policy(POLICY.replace("require_transaction_id = false", 'operations = ["sign"]').encode())
    assert code(verifying, BANK, asked()) == "not_authorised"
    assert verifying.verification_denial(BANK, asked()) is None
    assert code(signing, BANK, asked()) == "allowed"
    denial = signing.verification_denial(BANK, asked())
    assert denial is not None
    assert (denial.error.code, denial.rule) == (
        "not_authorised", f"caller {BANK}, key settlement: operations, without verify"
    )  # fmt: skip


def test_who_has_only_killed_keys_is_halted() -> None:
    """The queue need not be polled then; the bank has another key."""
    killed = replace(BASE, kills=Kills(keys={"settlement": KILL}))
    assert killed.is_halted(QUEUE)
    assert not killed.is_halted(BANK)
    assert not BASE.is_halted(AUDITOR)
    assert replace(BASE, kills=Kills(callers={BANK: KILL})).is_halted(BANK)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('schema = "signer-policy/1"', 'schema = "signer-policy/2"', "schema"),
        ("max_batch = 3", "max_batch = 0", "callers.1.max_batch"),
        ("max_batch = 3", "max_batch = 10001", "callers.1.max_batch"),
        ("max_batch = 3", "max_batch = true", "callers.1.max_batch"),
        ("max_batch = 3", "max_bach = 3", "callers.1.?"),
        ("transactions_per_second = 2", "transactions_per_second = nan", "callers.1.transactions_per_second"),
        ("transactions_per_second = 2", "transactions_per_second = 0", "callers.1.transactions_per_second"),
        ('"message", "payload"', '"message", "everything"', "callers.0.keys.?.content.1"),
        ('["digest"]', "[]", "content"),
        ("RSASSA_PSS_SHA_256", "none", "algorithms"),
        ('roles = ["auditor"]', 'roles = ["admin"]', "callers.2.roles.0"),
        ("require_transaction_id = false", 'operations = ["everything"]', "callers.1.keys.?.operations.0"),
        ("require_transaction_id = false", "operations = []", "operations"),
        ("keys.payout", 'keys."no alias"', "callers.1.keys"),
        (f'name = "{AUDITOR}"', f'name = "{BANK}"', "one caller stands here twice"),
        (f'name = "{AUDITOR}"', 'name = " "', "callers.2.name"),
        ("require_transaction_id = false", 'require_transaction_id = "no"', "require_transaction_id"),
        ("[[callers]]", "[[callers]", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_and_says_where(old: str, new: str, told: str) -> None:
    """The message names the place and what is wrong there, and not the value."""
    assert old in POLICY
    with pytest.raises(ConfigurationError) as refused:
        parse_policy(POLICY.replace(old, new).encode())
    assert told in refused.value.message
    assert "everything" not in refused.value.message


_ALIASES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)
_NAMES = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)
_GRANTS = st.builds(
    Grant,
    st.frozensets(st.sampled_from(sorted(ALGORITHMS)), min_size=1),
    st.frozensets(st.sampled_from(CONTENTS), min_size=1),
    st.booleans(),
    st.frozensets(st.sampled_from(OPERATIONS), min_size=1),
)
_CALLERS = st.builds(
    CallerPolicy,
    st.dictionaries(_ALIASES, _GRANTS, max_size=3),
    st.frozensets(st.just("auditor")),
    st.integers(1, MAX_BATCH),
    st.floats(0.01, 1e6),
    st.integers(1, 1_000_000),
)
_POLICIES = st.builds(Policy, st.dictionaries(_NAMES, _CALLERS, max_size=4))


def quoted(text: str) -> str:
    """A TOML basic string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def as_toml(policy: Policy) -> str:
    """Write a policy as a file."""
    lines = ['schema = "signer-policy/1"']
    for name, known in policy.callers.items():
        lines += ["[[callers]]", f"name = {quoted(name)}", f"roles = {sorted(known.roles)}"]
        lines += [f"max_batch = {known.max_batch}", f"burst = {known.burst}"]
        lines += [f"transactions_per_second = {known.transactions_per_s!r}"]
        for alias, grant in known.keys.items():
            lines += [f"[callers.keys.{quoted(alias)}]", f"algorithms = {sorted(grant.algorithms)}"]
            lines += [f"content = {sorted(grant.contents)}"]
            lines += [f"require_transaction_id = {str(grant.requires_transaction_id).lower()}"]
            lines += [f"operations = {sorted(grant.operations)}"]
    return "\n".join(lines)


@given(_POLICIES)
def test_every_policy_can_be_written_and_is_read_back(policy: Policy) -> None:
    """What stands in the file is what is in force, and reading it again changes nothing."""
    read = parse_policy(as_toml(policy).encode())
    assert read == policy
    assert changes(policy, read) == []


@given(_POLICIES, _POLICIES)
def test_whatever_differs_is_told(old: Policy, new: Policy) -> None:
    """Two policies that are not equal never have an empty difference."""
    assert (changes(old, new) == []) == (old == new)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_stands_in_the_files_it_is_read_or_refused(content: bytes) -> None:
    """The parsers raise `ConfigurationError` and nothing else."""
    for parse in (parse_policy, parse_kills):
        try:
            parse(content)
        except ConfigurationError:
            continue


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["schema", "keys", "callers", "revived"]), _VALUES))
def test_whatever_json_the_kill_file_holds_it_is_read_or_refused(document: dict[str, object]) -> None:
    """It takes no shape for another."""
    try:
        parse_kills(json.dumps(document).encode())
    except ConfigurationError:
        return
    assert document == {**document, "schema": "signer-kills/1"}
