"""The types of events, states and requests for TypeScript, made from the schemas of the HTTP description."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

import msgspec

from broker.edge.openapi import build_openapi
from broker.executions.control_types import CONTROL_EVENTS
from broker.http.openapi_parts import REF, Json
from emitter.events import State

ROOTS = (
    "Event", "ExecutionState", "ExecutionNode", "AcceptedRequest", "ExecuteRequest", "ExecuteResponse",
    "ExecutionList", "EventPage", "CancelResponse", "InputResponse", "MessageRequest", "MessageResponse", "MessageList",
    "TicketResponse", "AgentList", "ShareResponse", "ShareList", "Problem", "OpsSnapshot",
    *(control.__name__ for control in CONTROL_EVENTS.values()),
)  # fmt: skip
"""What the browser's client takes and gives; what these refer to comes with them."""

_HEAD = "/** Made by `runcast openapi --typescript` from the types of the edge. */\n"
_SHAPES = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
    "object": "Record<string, unknown>",
}
_NAME = re.compile(REF.replace("{name}", "(.+)"))
_CUSTOM = "^custom:"


def build_typescript() -> str:
    """The text of a declaration file: one interface for each schema, and the unions of them."""
    schemas: dict[str, Json] = build_openapi("")["components"]["schemas"]
    names = sorted(_reachable(schemas, ROOTS))
    states = msgspec.json.schema(State)["enum"]
    parts = [_HEAD, f"export type State = {_literals(states)};\n"]
    parts += [_declaration(name, schemas[name], states) for name in names]
    parts += [
        "/** An event as a stream gives it. */\nexport type StreamEvent = Event & { id: string };\n",
        _controls(),
    ]
    return "\n".join(parts)


def _reachable(schemas: dict[str, Json], roots: Iterable[str]) -> set[str]:
    found: set[str] = set()
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += _named(schemas[name])
    return found


def _named(schema: object) -> Iterator[str]:
    """The schemas that a schema refers to."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield _target(schema)
        for child in schema.values():
            yield from _named(child)
    elif isinstance(schema, list):
        for child in schema:
            yield from _named(child)


def _target(schema: Json) -> str:
    match = _NAME.fullmatch(schema["$ref"])
    assert match is not None, schema
    return match[1]


def _declaration(name: str, schema: Json, states: list[str]) -> str:
    comment = _comment(schema.get("description"), "")
    if "oneOf" in schema:
        members = "\n  | ".join(_target(member) for member in schema["oneOf"])
        return f"{comment}export type {name} =\n  | {members};\n"
    required = set(schema.get("required", ()))
    fields = "".join(
        _field(key, each, states, is_required=key in required) for key, each in schema["properties"].items()
    )
    return f"{comment}export interface {name} {{\n{fields}}}\n"


def _field(key: str, schema: Json, states: list[str], *, is_required: bool) -> str:
    described: Json = next((each for each in (schema, *schema.get("anyOf", ())) if "description" in each), {})
    comment = _comment(described.get("description") if "$ref" not in described else None, "  ")
    if is_required:
        return f"{comment}  {key}: {_type(schema, states)};\n"
    present = (
        {**schema, "anyOf": [each for each in schema["anyOf"] if each != {"type": "null"}]}
        if ("anyOf" in schema)
        else schema
    )
    return f"{comment}  {key}?: {_type(present, states)};\n"


def _type(schema: Json, states: list[str]) -> str:
    if "$ref" in schema:
        return _target(schema)
    if "anyOf" in schema:
        return " | ".join(_type(each, states) for each in schema["anyOf"])
    if "enum" in schema:
        return "State" if schema["enum"] == states else _literals(schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if schema.get("pattern", "").startswith(_CUSTOM):
        return "`custom:${string}`"
    if schema.get("type") == "array":
        return f"readonly {_element(_type(schema['items'], states))}[]"
    if "additionalProperties" in schema and isinstance(schema["additionalProperties"], dict):
        return f"Record<string, {_type(schema['additionalProperties'], states)}>"
    return _SHAPES[schema["type"]] if "type" in schema else "unknown"


def _element(type_: str) -> str:
    return f"({type_})" if " | " in type_ else type_


def _literals(values: Iterable[str]) -> str:
    return " | ".join(json.dumps(str(value)) for value in values)


def _controls() -> str:
    members = "".join(f'\n  | {{ type: "{name}"; data: {struct.__name__} }}' for name, struct in CONTROL_EVENTS.items())
    return f"/** What a stream says of itself. */\nexport type StreamControl ={members};\n"


def _comment(text: str | None, indent: str) -> str:
    return f"{indent}/** {' '.join(text.split())} */\n" if text else ""
