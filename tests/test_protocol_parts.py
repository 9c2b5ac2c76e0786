"""Every `StreamProtocol` has all the parts that a protocol needs. The list is in CONTRIBUTING, "A protocol"."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.base.metrics import Metrics
from broker.base.reasons import StreamProtocol
from broker.edge.openapi import build_openapi
from broker.live.rendering import Rendering
from tests.protocols.shows import HELD, SHOWS
from tests.protocols.test_all_renderers import STREAMS

ROOT = Path(__file__).parents[1]
HERE = "tests/test_protocol_parts.py"
OWN_FRAMES = {
    StreamProtocol.NATIVE: "an execution's events as they are stored",
    StreamProtocol.FEED: "an owner's events as they are stored",
    StreamProtocol.OPS: "no execution: snapshots of the operation",
}
"""What is not a rendering of a log, and so has no module below `broker/protocols`."""


class Parts(NamedTuple):
    """A path that answers with a stream, its tag in the OpenAPI document, and the beginning of the names of its golden
    files."""

    path: str
    tag: str
    golden: str = ""


PARTS = {
    StreamProtocol.NATIVE: Parts("/api/agent/executions/{id}/stream", "streams"),
    StreamProtocol.FEED: Parts("/api/agent/stream", "streams"),
    StreamProtocol.OPS: Parts("/api/ops/stream", "operations"),
    StreamProtocol.AI_SDK: Parts("/api/agent/chat", "ai-sdk", "ai_sdk"),
    StreamProtocol.AG_UI: Parts("/ag-ui/{name}", "ag-ui", "ag_ui"),
    StreamProtocol.MCP: Parts("/mcp", "mcp", "mcp"),
    StreamProtocol.DURABLE_STREAMS: Parts("/ds/executions/{id}", "durable-streams", "durable_streams"),
    StreamProtocol.RESPONSES: Parts("/v1/responses", "responses", "responses"),
    StreamProtocol.A2A: Parts("/a2a/message:stream", "a2a", "a2a"),
}


def imports(path: Path) -> set[str]:
    """The modules that a file imports from."""
    tree = ast.parse(path.read_text())
    return {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


def missing(protocols: Iterable[str]) -> list[str]:
    """The parts that are not there, each with the file to touch."""
    document = build_openapi("0")
    rendered = {make().name for make in STREAMS.values()}
    benched = imports(ROOT / "tests" / "bench" / "bench_render.py")
    found = []
    for name in protocols:
        parts = PARTS.get(StreamProtocol(name)) if name in set(StreamProtocol) else None
        if parts is None:
            found.append(f"{name} is not described: add it to PARTS in {HERE}")
            continue
        operations = document["paths"].get(parts.path, {})
        if not any(parts.tag in each["tags"] for each in operations.values()):
            found.append(f"{name} has no {parts.path} with tag {parts.tag}: add it to broker/protocols/openapi.py")
        if name in OWN_FRAMES:
            continue
        folder = f"broker/protocols/{name}"
        found += [f"{name} has no {folder}/{part}.py" for part in ("renderer", "routes") if not is_file(folder, part)]
        if name not in rendered:
            found.append(f"{name} is not bounded: add it to STREAMS in tests/protocols/test_all_renderers.py")
        if f"broker.protocols.{name}.renderer" not in benched:
            found.append(f"{name} is not measured: add it to TAKERS in tests/bench/bench_render.py")
        if not list((ROOT / "tests" / "golden").glob(f"{parts.golden}_*.txt")):
            found.append(f"{name} has no golden file: add tests/golden/{parts.golden}_every_event.txt")
        if not any(show.name.split()[0] == name for show in [*SHOWS, *HELD]):
            found.append(f"{name} is asked for by no test: add it to SHOWS in tests/protocols/shows.py")
    return found


def is_file(folder: str, name: str) -> bool:
    return (ROOT / folder / f"{name}.py").is_file()


def test_every_protocol_has_all_its_parts() -> None:
    """Routes in the OpenAPI document, a renderer, a golden file, a place among the bounded and the measured ones."""
    assert missing(StreamProtocol) == []


def test_every_folder_of_protocols_is_a_protocol() -> None:
    """And what has frames of its own has no folder there."""
    folders = {path.parent.name for path in (ROOT / "broker" / "protocols").glob("*/__init__.py")}
    assert folders == {str(name) for name in StreamProtocol} - {str(name) for name in OWN_FRAMES}


def test_every_protocol_is_counted() -> None:
    """Each has its child of the counter from the start, so that a rate of zero can be told from nothing."""
    assert set(Metrics().connections_opened) == set(StreamProtocol)


def test_every_renderer_satisfies_the_protocol_of_renderings() -> None:
    """All members of `Rendering` are there."""
    members = {name for name in (*Rendering.__annotations__, *vars(Rendering)) if not name.startswith("_")}
    for name, make in STREAMS.items():
        assert members <= set(dir(make())), name


@pytest.mark.parametrize("name", ["smoke_signals"])
def test_a_new_protocol_is_missed(name: str) -> None:
    """A name without parts is reported, with the file to touch."""
    assert missing([name]) == [f"{name} is not described: add it to PARTS in {HERE}"]


def test_a_protocol_with_nothing_but_a_name_is_missed_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is described, each part that is not there is named."""
    monkeypatch.setitem(PARTS, StreamProtocol.OPS, Parts("/smoke", "smoke", "smoke"))
    monkeypatch.delitem(OWN_FRAMES, StreamProtocol.OPS)
    found = missing([StreamProtocol.OPS])
    assert [message.split(":")[0] for message in found] == [
        "ops has no /smoke with tag smoke",
        "ops has no broker/protocols/ops/renderer.py",
        "ops has no broker/protocols/ops/routes.py",
        "ops is not bounded",
        "ops is not measured",
        "ops has no golden file",
        "ops is asked for by no test",
    ]
