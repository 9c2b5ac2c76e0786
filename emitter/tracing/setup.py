"""Whether this process makes spans, by the environment variables that OpenTelemetry's specification names.

It does if the environment has an address for them (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`,
or `OTEL_TRACES_EXPORTER=otlp` for the usual address), or if OpenTelemetry is set up already, for example by an
agent's module. Otherwise OpenTelemetry is not imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import structlog

from emitter.tracing.trace import OURS, Tracer

log = structlog.get_logger("emitter.tracing")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN = "http/protobuf"


def tracer_from(environ: Mapping[str, str], service: str) -> Tracer:
    """The tracer of this process; the caller closes it. `service` is the default name. Never raises: a fault in the
    variables is logged, and no spans are made."""
    given = {name: text.strip() for name, text in environ.items() if name.startswith("OTEL_")}
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Tracer()
    is_ready = _is_set_up()
    if not is_ready:
        if not _is_wanted(given):
            return Tracer()
        protocol = next((given[name] for name in PROTOCOLS if given.get(name)), SPOKEN)
        if protocol != SPOKEN:
            log.warning("tracing_off", reason=f"spans are sent by {SPOKEN}, not by {protocol[:40]}")
            return Tracer()
    return _load(service, is_ready=is_ready)


def _is_wanted(given: Mapping[str, str]) -> bool:
    exporters = given.get("OTEL_TRACES_EXPORTER", "").lower()
    if exporters:
        return "otlp" in [each.strip() for each in exporters.split(",")]
    return any(given.get(name) for name in ENDPOINTS)


def _is_set_up() -> bool:
    """Whether a provider of spans is there that is not ours."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return False
    provider = api.get_tracer_provider()
    return not isinstance(provider, api.ProxyTracerProvider | api.NoOpTracerProvider) and not hasattr(provider, OURS)


def _load(service: str, *, is_ready: bool) -> Tracer:
    try:
        from emitter.tracing.otel import tracer_of_others, tracer_of_our_own

        tracer = tracer_of_others() if is_ready else tracer_of_our_own(service)
    except ImportError as error:
        log.warning("tracing_off", reason="it needs pip install 'runcast[tracing]'", error=str(error)[:200])
    except Exception as error:  # an error of the SDK about a variable must not stop the process
        log.warning("tracing_off", reason="OpenTelemetry could not be set up", error=f"{type(error).__name__}: {error}")
    else:
        log.info("tracing_on", provider="theirs" if is_ready else "ours")
        return tracer
    return Tracer()
