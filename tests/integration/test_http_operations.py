"""What operators and load balancers see: probes, metrics, the OpenAPI document, and no telemetry behind their backs."""

import secrets
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.util.types import Attributes
from prometheus_client.parser import text_string_to_metric_families

from signer.errors import AuditUnavailableError, HsmUnavailableError
from tests.integration.http_support import Entrance, running


def test_readiness_follows_the_probe() -> None:
    """Not ready is a 503 with every reason, and does not make the process look dead."""
    with running() as entrance:
        ready = entrance.client.get("/readyz")
        entrance.key_ring.fail_next(HsmUnavailableError("the connection is lost"))
        entrance.readiness.probe()
        unready = entrance.client.get("/readyz")
        assert entrance.client.get("/livez").status_code == 200
        entrance.readiness.probe()
        assert entrance.client.get("/readyz").status_code == 200
        entrance.readiness.drain()
        draining = entrance.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "problems": [], "warnings": []})
    assert (unready.status_code, unready.json()["code"], unready.headers["Retry-After"]) == (503, "not_ready", "1")
    assert unready.json()["problems"] == ["key settlement: hsm_unavailable: the connection is lost"]
    assert (draining.status_code, draining.json()["problems"]) == (503, ["the service is shutting down"])


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_may_ask_for_the_head_alone(path: str) -> None:
    """HEAD is answered as GET is, without the body; the refusal of another method names both."""
    with running() as entrance:
        for changed in (False, True):
            if changed:
                entrance.readiness.drain()
            head, get = entrance.client.head(path), entrance.client.get(path)
            assert (head.status_code, head.content) == (get.status_code, b"")
            assert head.headers["content-type"] == get.headers["content-type"]
            assert get.content
        refused = entrance.client.delete(path)
    assert (refused.status_code, set(refused.headers["Allow"].split(", "))) == (405, {"GET", "HEAD"})


def test_an_audit_log_that_cannot_write_is_not_ready() -> None:
    """Nothing could be released, so nothing should be sent here."""
    with running() as entrance:
        entrance.audit.fail_next(AuditUnavailableError("the disk is full"), times=2)
        entrance.readiness.probe()
        response = entrance.client.get("/readyz")
    assert response.status_code == 503
    assert all("audit_unavailable" in problem for problem in response.json()["problems"])


def test_metrics_are_what_prometheus_reads() -> None:
    """They parse, and a signature shows in requests, stages, signatures and the time of the last success."""
    with running() as entrance:
        assert entrance.sign().status_code == 200
        response = entrance.client.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    requests = {tuple(sample.labels.values()): sample.value for sample in families["signer_http_requests"].samples}
    assert requests["/v1/sign", "200"] == 1.0
    assert families["signer_http_in_flight"].samples[0].value == 0.0
    successes = {
        sample.labels["entrance"]: sample.value for sample in families["signer_last_success_timestamp_seconds"].samples
    }
    assert successes["http"] > 1.7e9
    assert "signer_stage_seconds" in families


def label_sets(entrance: Entrance) -> set[tuple[str, ...]]:
    """Every label set that any metric has."""
    families = text_string_to_metric_families(entrance.client.get("/metrics").text)
    return {(sample.name, *sample.labels.values()) for family in families for sample in family.samples}


def test_clients_cannot_make_up_labels() -> None:
    """A hundred random paths, methods, aliases and ids leave not one more time series than the first of each kind."""
    with running() as entrance:

        def visit(word: str) -> None:
            entrance.client.get(f"/{word}")
            entrance.client.get(f"/v1/keys/{word}/public-key?{word}")
            entrance.client.request("PROPFIND", f"/v1/{word}", headers={word: word, "User-Agent": word})
            entrance.sign(key=word, transaction_id=word)
            entrance.client.get("/metrics")

        visit("first")
        before = label_sets(entrance)
        for _ in range(100):
            visit("x" + secrets.token_hex(6))
        assert label_sets(entrance) == before


class _Recorder(trace.NoOpTracer):
    def __init__(self) -> None:
        self.spans: list[str] = []

    def start_span(self, name: str, *_: object, **__: object) -> trace.Span:
        self.spans.append(name)
        return trace.INVALID_SPAN


class _Provider(trace.TracerProvider):
    def __init__(self) -> None:
        self.recorder = _Recorder()

    def get_tracer(
        self,
        instrumenting_module_name: str,  # noqa: ARG002 - the signature is OpenTelemetry's
        instrumenting_library_version: str | None = None,  # noqa: ARG002
        schema_url: str | None = None,  # noqa: ARG002
        attributes: Attributes = None,  # noqa: ARG002
    ) -> trace.Tracer:
        return self.recorder


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Provider]:
    """A telemetry provider that something else in the process has set, and an environment that asks for export."""
    provider = _Provider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9/")
    yield provider
    assert trace.get_tracer_provider() is provider


def test_requests_are_recorded_nowhere_else(provider: _Provider) -> None:
    """FastAPI's built-in OpenTelemetry stays off, whatever the environment says: paths and queries are input."""
    with running() as entrance:
        assert entrance.sign().status_code == 200
    assert provider.recorder.spans == []
