"""Traces of requests and heals by OpenTelemetry, where its environment variables ask for them.

``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``..._TRACES_ENDPOINT``) switches them on; name, resource,
sampler, headers and batches are OpenTelemetry's own variables too. Without an endpoint nothing of
OpenTelemetry is loaded and nothing stands before a request. No span holds a value of the data.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from selfheal_cli import __version__
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.events import types as events
from selfheal_cli.events.event import Event
from selfheal_cli.serve.http.auth import OPEN
from selfheal_cli.serve.http.middleware import ROUTE, App, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP = "http/protobuf"
ROWS = "selfheal.rows"  # key of the scope: rows that were scored
TOLD = {b"x-selfheal-version": "selfheal.version", b"x-selfheal-snapshot": "selfheal.snapshot"}
Attributes = Mapping[str, str | int | float | bool]


class Tracing:
    """Nobody asked for traces."""

    def traced(self, app: App) -> App:
        """The application, with a span around each request where there is tracing."""
        return app

    def record(
        self, name: str, begun: float, ended: float, attributes: Attributes, *, failed: str = ""
    ) -> None:
        """A span of something that is over; times in seconds since 1970, ``failed`` says why."""

    def close(self) -> None:
        """Send what is left."""


def open_tracing(service: str, environ: Mapping[str, str] = os.environ) -> Tracing:
    """What the environment asks for. Raises `ConfigurationError` where it cannot be given.

    ``service`` is what it is called unless ``OTEL_SERVICE_NAME`` says otherwise.
    """
    if not _wanted(environ):
        return Tracing()
    for name in PROTOCOLS:
        if environ.get(name, HTTP) not in ("", HTTP):
            raise ConfigurationError(
                f"{name}={environ[name]}: traces are sent by {HTTP}; set that, or leave it out"
            )
    try:
        return _Otlp(service, environ)
    except ImportError as exc:
        name = next(one for one in ENDPOINTS if environ.get(one))
        raise ConfigurationError(
            f"{name} is set, and {exc.name} is not installed: pip install 'selfheal-cli[otel]', or "
            "OTEL_SDK_DISABLED=true"
        ) from exc


def _wanted(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environ.get("OTEL_TRACES_EXPORTER", "") or "otlp"
    asked = "otlp" in [one.strip() for one in exporters.split(",")]
    return asked and any(environ.get(name) for name in ENDPOINTS)


class _Otlp(Tracing):
    """Spans in batches, sent by a thread of OpenTelemetry's."""

    def __init__(self, service: str, environ: Mapping[str, str]) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = {} if _has_name(environ) else {"service.name": service}
        # not the global one, which is MLflow's to use
        self._provider: TracerProvider = TracerProvider(
            resource=Resource.create(named), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("selfheal", __version__)

    def traced(self, app: App) -> App:
        """A span a request by OpenTelemetry's own middleware; see `Tracing`."""
        # the names that are stable by now; who wants the older ones sets it to nothing
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.metrics import NoOpMeterProvider
        from opentelemetry.util.http import ExcludeList

        traced: App = OpenTelemetryMiddleware(
            _named(app),
            excluded_urls=ExcludeList([f"[^/]{path}$" for path in OPEN]),
            # a query is the caller's words and stays out
            default_span_details=lambda scope: (scope["method"], {"url.query": ""}),
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["receive", "send"],
        )
        return traced

    def record(
        self, name: str, begun: float, ended: float, attributes: Attributes, *, failed: str = ""
    ) -> None:
        """See `Tracing`."""
        from opentelemetry.context import Context
        from opentelemetry.trace import StatusCode

        span = self._tracer.start_span(
            name, context=Context(), attributes=dict(attributes), start_time=_nanoseconds(begun)
        )
        if failed:
            span.set_status(StatusCode.ERROR, failed)
        span.end(_nanoseconds(max(begun, ended)))

    def close(self) -> None:
        """See `Tracing`; a collector that is away is not waited for long."""
        self._provider.shutdown()


def _nanoseconds(seconds: float) -> int:
    """Of a time since 1970, which as a float is exact to the microsecond only."""
    return round(seconds * 1e6) * 1_000


def _has_name(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("OTEL_SERVICE_NAME")) or "service.name=" in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )


def _named(app: App) -> App:
    """The application, which gives the span around it the name of its route and what it scored."""
    from opentelemetry.trace import get_current_span

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        span = get_current_span()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":  # the span ends with the body
                route = scope.get(ROUTE) or "refused"
                span.update_name(f"{scope['method']} {route}")
                span.set_attribute("http.route", route)
                if ROWS in scope:
                    span.set_attribute(ROWS, scope[ROWS])
                for key, value in message.get("headers", ()):
                    if key in TOLD:
                        span.set_attribute(TOLD[key], value.decode("latin-1"))
            await send(message)

        await app(scope, receive, noting)

    return call


BATCHES = 1_000  # whose times are remembered


class HealSpans:
    """A heal begins when its batch was looked at, and ends with what became of it."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._recipe = ""
        self._begun: OrderedDict[int, float] = OrderedDict()

    def add(self, event: Event) -> None:
        """Take the run's next event."""
        at = datetime.fromisoformat(event.at).timestamp()
        match event:
            case events.RunStarted():
                self._recipe = event.config["heal"]["recipe"]
                self._begun.clear()
            case events.BatchScored():
                self._begun[event.batch] = at
                if len(self._begun) > BATCHES:
                    self._begun.popitem(last=False)
            case events.HealEnded():
                self._record(event, at)

    def _record(self, heal: events.HealEnded, at: float) -> None:
        attributes: dict[str, str | int] = {
            "selfheal.heal_id": heal.heal_id,
            "selfheal.batch": heal.batch,
            "selfheal.outcome": heal.outcome,
            "selfheal.recipe": self._recipe,
        }
        if isinstance(heal, events.HealJudged):
            attributes["selfheal.recipe"] = heal.recipe
            if heal.after is not None:
                attributes["selfheal.judged_rows"] = heal.after.rows
        if isinstance(heal, (events.HealJudged, events.HealRefuted)) and heal.to_snapshot:
            attributes["selfheal.snapshot"] = heal.to_snapshot
        failed = heal.reason if isinstance(heal, events.HealFailed) else ""
        begun = self._begun.get(heal.batch, at)
        self._tracing.record("heal", begun, at, attributes, failed=failed)
