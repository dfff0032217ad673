"""Traces: sent over OTLP where the environment asks for them, and nothing at all where not."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import BatchScored, HealFailed, HealPublished, RunStarted
from selfheal_cli.scores import Scores
from selfheal_cli.serve import tracing
from selfheal_cli.serve.tracing import HealSpans, Tracing, open_tracing
from tests.events.examples import example
from tests.forked import in_fork
from tests.serve.conftest import serving

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Takes traces as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[Any] = []

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resource(self) -> dict[str, str]:
        resource_attributes = self.requests[0].resource_spans[0].resource.attributes
        return {one.key: one.value.string_value for one in resource_attributes}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    new_collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            request = ExportTraceServiceRequest()
            request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            new_collector.requests.append(request)
            new_collector.headers.append(self.headers)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{port}")
        yield new_collector


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def attributes(span: Span) -> dict[str, Any]:
    return {
        one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes
    }


def test_a_request_is_a_span_in_its_callers_trace(
    short_run: Path,
    tmp_path: Path,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "credit-scoring")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k1")
    with serving(short_run, tmp_path) as server:
        body = {"dataframe_split": server.rows(3)}
        caller = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        scored = server.post("/invocations", json=body, headers=caller)
        refused = server.post("/invocations", json={"instances": "secret-value"})
        server.get("/nowhere?account=secret-value")
        server.get("/ping")
        served = server.front.scorer.served
    assert (scored.status_code, refused.status_code) == (200, 400)
    assert collector.resource["service.name"] == "credit-scoring"
    assert collector.headers[0]["x-key"] == "k1"
    assert len(collector.spans) == 3
    first = next(span for span in collector.spans if span.trace_id.hex() == TRACE)
    assert first.parent_span_id.hex() == PARENT
    assert first.name == "POST /invocations"
    assert first.kind == Span.SPAN_KIND_SERVER
    assert (
        attributes(first).items()
        >= {
            "http.request.method": "POST",
            "http.route": "/invocations",
            "http.response.status_code": 200,
            "selfheal.rows": 3,
            "selfheal.version": served.shown_version,
            "selfheal.snapshot": served.snapshot,
        }.items()
    )
    others = {span.name: span for span in collector.spans if span is not first}
    assert set(others) == {"POST /invocations", "GET other"}
    assert attributes(others["POST /invocations"])["http.response.status_code"] == 400
    sent = b"".join(request.SerializeToString() for request in collector.requests)
    assert b"secret-value" not in sent
    assert b"V14" not in sent


def event(kind: type[Event], at: str, **fields: Any) -> Event:
    return example(kind, at=f"2026-11-25T10:00:{at}+00:00", **fields)


def test_a_heal_is_a_span_from_its_batch_to_what_became_of_it(collector: Collector) -> None:
    tracing = open_tracing("selfheal-healer")
    spans = HealSpans(tracing)
    spans.add(event(RunStarted, "00", config={"heal": {"recipe": "anchored"}}))
    spans.add(event(BatchScored, "01.000", batch=7))
    spans.add(event(BatchScored, "01.500", batch=8))
    spans.add(
        event(HealPublished, "01.250", heal_id="h7", batch=7, recipe="anchored", to_snapshot="s9",
              after=Scores(tp=30, tn=30, fp=30, fn=30))
    )  # fmt: skip
    spans.add(event(HealFailed, "02.000", heal_id="h8", batch=8, reason="worker ended"))
    tracing.close()
    healed, failed = sorted(collector.spans, key=lambda span: span.start_time_unix_nano)
    assert healed.name == failed.name == "heal"
    assert healed.end_time_unix_nano - healed.start_time_unix_nano == 250_000_000
    assert attributes(healed) == {
        "selfheal.heal_id": "h7",
        "selfheal.batch": 7,
        "selfheal.outcome": "healed",
        "selfheal.recipe": "anchored",
        "selfheal.judged_rows": 120,
        "selfheal.snapshot": "s9",
    }
    assert attributes(failed)["selfheal.outcome"] == "failed"
    assert attributes(failed)["selfheal.recipe"] == "anchored"
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert failed.status.message == "worker ended"
    assert healed.trace_id != failed.trace_id
    assert collector.resource["service.name"] == "selfheal-healer"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {ENDPOINT: ""},
        {ENDPOINT: "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {ENDPOINT: "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_where_nobody_asks_the_application_is_the_application(environ: dict[str, str]) -> None:
    tracing = open_tracing("selfheal", environ)
    assert type(tracing) is Tracing

    async def app(*_: object) -> None: ...

    assert tracing.traced(app) is app


def test_where_nobody_asks_nothing_of_opentelemetry_is_loaded() -> None:
    def exporters() -> list[str]:
        return [name for name in sys.modules if name.startswith("opentelemetry.exporter")]

    def ask() -> None:
        for name in exporters():
            del sys.modules[name]
        importlib.reload(tracing).open_tracing("selfheal", {}).traced(Mock())
        assert exporters() == []

    assert in_fork(ask) == 0


def test_what_is_missing_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'selfheal-cli\[otel\]'"):
        open_tracing("selfheal", {ENDPOINT: "http://127.0.0.1:1"})


def test_a_protocol_that_is_not_spoken_is_refused() -> None:
    asked = {ENDPOINT: "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_PROTOCOL=grpc"):
        open_tracing("selfheal", asked)
