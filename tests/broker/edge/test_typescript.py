from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.cli.main import main
from broker.edge import typescript
from broker.edge.typescript import build_typescript
from broker.executions.control_types import CONTROL_EVENTS
from emitter.events import CATALOGUE

COMMITTED = Path(typescript.__file__).parents[1] / "web" / "client" / "events.d.ts"


def interface(name: str) -> str:
    """The body of one interface, without its comments."""
    match = re.search(rf"^export interface {name} {{\n(.*?)^}}", build_typescript(), re.DOTALL | re.MULTILINE)
    assert match is not None, name
    return re.sub(r" */\*\*.*?\*/\n", "", match[1])


def test_the_client_s_declarations_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    """The file beside the client is what `runcast openapi --typescript` prints."""
    assert main(["openapi", "--typescript"]) == 0
    assert capsys.readouterr().out == COMMITTED.read_text()


def test_every_event_is_there() -> None:
    """Each type of the catalogue has its data and its event, told apart by `type`; so have the control events."""
    text = build_typescript()
    for event in CATALOGUE:
        assert f'  type: "{event.type}";\n' in interface(event.__name__ + "Event")
        assert f"  data: {event.__name__};\n" in interface(event.__name__ + "Event")
        assert f"  | {event.__name__}Event" in text
        assert interface(event.__name__)
    for name, control in CONTROL_EVENTS.items():
        assert f'{{ type: "{name}"; data: {control.__name__} }}' in text
        assert interface(control.__name__)
    assert "type: `custom:${string}`;" in interface("CustomEvent")


def test_what_may_be_left_out() -> None:
    """An event leaves out what is unset, and so may a request; of a state every field is there, null if need be."""
    assert interface("InputRequired") == (
        "  inputId: string;\n"
        "  prompt: string;\n"
        '  kind: "approval" | "choice" | "form" | "text";\n'
        "  options?: readonly string[];\n"
        "  schema?: Record<string, unknown>;\n"
        "  expiresAt?: number;\n"
    )
    assert "  agent?: string;\n" in interface("ExecuteRequest")
    assert "  onDisconnect?: OnDisconnect;\n" in interface("ExecuteRequest")
    assert "  nextCursor?: string;\n" in interface("ExecutionList")
    state = interface("ExecutionState")
    assert "?" not in state
    for line in ("status: State;", "startedAt: number | null;", "tools: readonly ToolState[];", "result: unknown;"):
        assert f"  {line}\n" in state
    assert "?" not in interface("Plan") + interface("OpsSnapshot") + interface("EdgeInfo")


def test_every_name_is_declared() -> None:
    """Whatever is referred to is in the file."""
    text = re.sub(r"/\*\*.*?\*/", "", build_typescript())
    declared = set(re.findall(r"^export (?:interface|type) (\w+)", text, re.MULTILINE))
    used = set(re.findall(r"\b[A-Z]\w+", re.sub(r'"[^"]*"', "", text)))
    assert used - declared == {"Record"}
