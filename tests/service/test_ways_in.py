"""Nobody gets in who should not: each way is refused with its code, leaves its record, and never reaches the HSM."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from signer.api import catalogue
from signer.demo.stack import Emulator, Token
from tests.canaries import leaks, pin_in
from tests.issuer import bound_to
from tests.pki import Holder
from tests.service.endpoints import ALL, BATCH, DRY_RUN, ENDPOINTS, KEY, KEYS, PUBLIC_KEY, SEARCH, VERIFY
from tests.service.entrance import BALANCER, PAYLOAD, Answer, People, Site, leaf, site
from tests.service.running import until
from tests.service.ways_in import WAYS, Way

Sites = dict[bool, Site]
_ISSUED = "jwt:https://issuer.example/realms/bank#"
ALL_WAYS = [*WAYS, *ENDPOINTS]


@pytest.fixture(scope="module")
def sites(
    tmp_path_factory: pytest.TempPathFactory, emulator: Emulator, service_token: Token, softhsm_module: Path
) -> Iterator[Sites]:
    """Two services: one lets connect only who shows a certificate (True), the other whoever comes (False)."""
    directory, people = tmp_path_factory.mktemp("ways-in"), People()
    optional = {"SIGNER_HTTP__TLS__CLIENT_CERTIFICATE": "optional"}
    with (
        site(directory / "required", emulator, service_token, softhsm_module, people) as required,
        site(directory / "optional", emulator, service_token, softhsm_module, people, **optional) as open_to_all,
    ):
        yield {True: required, False: open_to_all}


def test_there_are_enough_ways() -> None:
    """The table has the size it was promised to have, and says nothing twice."""
    assert len(ALL_WAYS) >= 270
    assert len({way.name for way in ALL_WAYS}) == len(ALL_WAYS)


@pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)
def test_a_way_in_is_closed(sites: Sites, way: Way) -> None:
    """Refused with its code; one record with that code; not one C_Sign more."""
    service = sites[way.required]
    if way.before is not None:
        assert way.before(service).status == 200
    signed, recorded = service.signatures(), len(service.records())
    answer = way.go(service)
    expected = (None, None) if way.status is None else (way.status, way.code)
    assert (answer.status, answer.code) == expected
    until(lambda: len(service.records()) > recorded, "a record")
    (record,) = service.records()[recorded:]
    outcome = "failed" if way.code == "rate_limited" else "refused"
    assert (record["outcome"], record["error_code"], record["entrance"]) == (outcome, way.code, "http")
    assert (record.get("message_id"), record["channel"]) == (answer.request_id, answer.source)
    assert_names_the_caller(record, answer)
    if way.code == "caller_killed" or answer.holder is service.people.other:
        assert record["operation"] in {"admit", "authenticate"}, "no endpoint hears who is killed or unknown"
    assert service.signatures() == signed
    if way.status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer realm=")


def assert_names_the_caller(record: dict[str, Any], answer: Answer) -> None:
    """Once it is known who asks, the record says who; before that it names nobody."""
    if record["operation"] == "authenticate":
        assert "caller" not in record
    elif answer.holder is None:
        assert record["caller"] in {f"{_ISSUED}somebody-else", "spiffe://bank.example/other"}
    else:
        assert record["caller"] in (uris_of(answer.holder) or ["subject:CN=settlement"])


def uris_of(holder: Holder) -> list[str]:
    """The names in a certificate that a caller of ours may have."""
    names = [extension.value for extension in holder.certificate.extensions]
    alternatives = [value for value in names if isinstance(value, x509.SubjectAlternativeName)]
    return [uri for value in alternatives for uri in value.get_values_for_type(x509.UniformResourceIdentifier)]


def test_every_endpoint_has_its_ways(sites: Sites) -> None:
    """Whatever the service describes for callers is in the table, and so will be what is added to it."""
    service = sites[False]
    paths = json.loads(service.ask(service.people.honest, method="GET", target="/openapi.json").body)["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods if "/v1/" in path}
    tried = {(endpoint.method, endpoint.path) for endpoint in ALL}
    assert described == tried


def test_every_code_of_a_way_has_its_entry() -> None:
    """In the catalogue, with that status, or with none where there was no answer."""
    entries = {entry.code: entry.status for entry in catalogue.entries()}
    assert {way.name: way.status for way in ALL_WAYS} == {
        way.name: None if way.status is None else entries[way.code] for way in ALL_WAYS
    }
    assert all(way.code in entries for way in ALL_WAYS)


def test_an_item_of_a_batch_is_no_way_in_either(sites: Sites) -> None:
    """One that is refused among others: its code is in its place, its record is there, and the HSM signs the other."""
    service = sites[False]
    signed, recorded = service.signatures(), len(service.records())
    items = [{"message": {}}, {"transaction_id": "M-3", "message": {}}]
    answer = BATCH.ask(service, service.people.honest, transactions=items)
    assert answer.status == 200
    refused, good = json.loads(answer.body)["results"]
    assert (refused["error"]["code"], good["signature"]["key_alias"]) == ("transaction_id_required", "settlement")
    codes = Counter(record.get("error_code") for record in service.records()[recorded:])
    assert codes == {"transaction_id_required": 1, None: 1}
    assert service.signatures() == signed + 1


def test_honest_callers_get_in(sites: Sites) -> None:
    """Each kind of credential opens the door for whom it names, and the HSM's counter moves: it is no dead number."""
    for required, service in sites.items():
        people, signed = service.people, service.signatures()
        answers = [service.ask(people.honest, transaction_id="A"), service.ask(people.dns_only, transaction_id="B")]
        bound = service.issuer.token(cnf=bound_to(people.honest))
        answers.append(service.bearer(bound, people.honest, transaction_id="C"))
        if not required:
            answers += _without_certificate(service)
        assert [answer.status for answer in answers] == [200] * len(answers)
        assert service.signatures() >= signed + len(answers)
        callers = Counter(record["caller"] for record in service.records() if record["outcome"] == "signed")
        assert callers["spiffe://bank.example/settlement"] >= 1
        assert callers["dns:settlement.bank.example"] == 1
        assert callers[f"{_ISSUED}settlement-service"] >= 1


def test_each_endpoint_serves_who_may(sites: Sites) -> None:
    """What is closed above is open to somebody, or the table would prove nothing."""
    service = sites[False]
    honest, auditor = service.people.honest, service.people.auditor
    assert service.ask(honest).status == 200
    asked = [endpoint.ask(service, honest) for endpoint in (DRY_RUN, BATCH, VERIFY, KEYS, KEY, PUBLIC_KEY)]
    asked += [endpoint.ask(service, auditor) for endpoint in (SEARCH, VERIFY, KEYS, KEY, PUBLIC_KEY)]
    assert [answer.status for answer in asked] == [200] * len(asked)


def _without_certificate(service: Site) -> list[Answer]:
    issuer = service.issuer
    return [
        service.bearer(issuer.token(), transaction_id="D"),
        service.bearer(issuer.ec_token({}, aud=["account", "signer"]), transaction_id="E"),
        service.ask(None, [leaf(service.people.honest)], source=BALANCER, transaction_id="F"),
    ]


def test_health_is_asked_elsewhere(sites: Sites) -> None:
    """A balancer's check needs no certificate, reaches nothing else, and the port for callers tells nothing of it."""
    for service in sites.values():
        health = service.stack.http_url
        for path in ("/livez", "/readyz", "/metrics"):
            assert httpx.get(health + path, headers={"Host": "10.0.0.1:8081"}).status_code == 200
            assert service.ask(service.people.honest, target=path).status == 404
        assert [httpx.post(health + path).status_code for path in ("/v1/sign", "/v1/keys", "/openapi.json")] == [
            404
        ] * 3


def test_no_secret_came_out_of_any(sites: Sites, service_token: Token) -> None:
    """Of all that was asked above: neither PIN nor payload, nor what a client's token holds; nor might it yet."""
    for service in sites.values():
        tokens = {part for value in service.sent for part in value.partition(" ")[2].split(".")[1:] if len(part) > 20}
        secrets = {pin_in(service_token.pin_file), PAYLOAD, *tokens}
        assert list(leaks(service.directory, service.stack.http_url, service.heard, secrets)) == []
