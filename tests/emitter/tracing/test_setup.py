"""Whether a process makes spans: by the standard variables, each case in an interpreter of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from structlog.testing import capture_logs

from emitter.tracing.setup import tracer_from
from tests.edges import ROOT

ADDRESS = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
PROGRAM = """
import json, os, sys
from emitter.tracing.setup import tracer_from
from emitter.tracing.trace import Trace
{before}
tracer = tracer_from(os.environ, "runcast-test")
about = {{"is_on": tracer.is_on, "sdk": "opentelemetry.sdk.trace" in sys.modules}}
if tracer.is_on:
    from opentelemetry import trace
    provider = trace.get_tracer_provider()
    with tracer.start("run", "consumer", None) as span:
        about |= {{"sampled": span.trace.is_sampled, "current": trace.get_current_span().get_span_context().is_valid}}
    about |= {{"service": provider.resource.attributes.get("service.name"), "owned": tracer._shutdown is not None}}
print(json.dumps(about))
os._exit(0)  # nobody takes the span, and its exporter tries again and again
"""
ON = {"is_on": True, "sdk": True, "sampled": True, "current": True, "service": "runcast-test", "owned": True}


def decided(environ: dict[str, str], before: str = "") -> dict[str, Any]:
    """What a process with these variables does."""
    given = {"PATH": "/usr/bin:/bin", **environ}
    command = [sys.executable, "-c", PROGRAM.format(before=before).replace("os._exit", "sys.stdout.flush(); os._exit")]
    run = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=30, check=True)
    *lines, decision = run.stdout.splitlines()
    return {**json.loads(decision), "said": " ".join(lines)}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "  "},
        {"OTEL_SERVICE_NAME": "mine", "OTEL_TRACES_SAMPLER": "always_on"},
        {**ADDRESS, "OTEL_SDK_DISABLED": "TRUE"},
        {**ADDRESS, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
    ],
)
def test_nobody_asked_for_spans(environ: dict[str, str]) -> None:
    """Without an address, or where it is switched off, no spans are made, and nobody is bothered with a line."""
    with capture_logs() as lines:
        assert not tracer_from(environ, "s").is_on
    assert lines == []


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_a_protocol_we_do_not_speak_is_said(name: str) -> None:
    """Spans by gRPC are not made rather than sent in vain."""
    with capture_logs() as lines:
        assert not tracer_from({**ADDRESS, name: "grpc"}, "s").is_on
    [line] = lines
    assert (line["event"], line["reason"]) == ("tracing_off", "spans are sent by http/protobuf, not by grpc")


@pytest.mark.parametrize(
    ("environ", "changed"),
    [
        (ADDRESS, {}),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1", "OTEL_SERVICE_NAME": "s"},
            {"service": "s"},
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_RESOURCE_ATTRIBUTES": "service.name=r"}, {"service": "r"}),
        ({**ADDRESS, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, {"sampled": False}),
    ],
    ids=["address", "address of traces", "exporter", "sampler"],
)
def test_the_variables_of_the_specification_count(environ: dict[str, str], changed: dict[str, Any]) -> None:
    """An address is enough; name and sampler are those of the variables."""
    decision = decided(environ)
    assert "tracing_on" in decision.pop("said")
    assert decision == ON | changed


def test_what_an_agents_module_has_set_up_is_used() -> None:
    """A provider that is there already gets the spans, without any variable, and is left to whoever made it."""
    before = (
        "from opentelemetry import trace\nfrom opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.resources import Resource\n"
        "trace.set_tracer_provider(TracerProvider(resource=Resource({'service.name': 'theirs'})))"
    )
    decision = decided({}, before)
    assert "theirs" in decision.pop("said")
    assert decision == ON | {"service": "theirs", "owned": False}


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (
            "sys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None",
            "it needs pip install 'runcast[tracing]'",
        ),
        (
            "from opentelemetry.sdk.trace import export\nexport.BatchSpanProcessor.__init__ = lambda *_: 1 / 0",
            "OpenTelemetry could not be set up",
        ),
    ],
    ids=["not installed", "broken"],
)
def test_what_cannot_be_set_up_stops_nothing(before: str, reason: str) -> None:
    """Without the extra, or when the SDK does not like its variables, the process says so and goes on without spans."""
    decision = decided(ADDRESS, before)
    assert decision["is_on"] is False
    assert reason in decision["said"]
