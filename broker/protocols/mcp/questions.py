"""An agent's questions as requests to the client, and its responses as answers. Pure."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from broker.protocols.mcp.content import as_json
from broker.protocols.mcp.rpc import INVALID_PARAMS, Json, McpError
from broker.protocols.mcp.versions import Capabilities
from emitter.errors import Declined
from emitter.events import InputRequired
from emitter.wire.inputs import ANY_JSON

REQUEST = "x-mcp-request"
"""In the schema of a question: the request {method, params} that an MCP client gets for it. Its result is the answer.
Elsewhere the question is a form like any."""
CONFIRM, VALUE = "confirm", "value"
_KEPT = {
    "string": {"minLength", "maxLength", "format", "enum", "enumNames", "oneOf"},
    "number": {"minimum", "maximum"},
    "integer": {"minimum", "maximum"},
    "boolean": set[str](),
    "array": {"items", "minItems", "maxItems"},
}
_ALWAYS = {"type", "title", "description", "default"}
_FORMATS = frozenset({"email", "uri", "date", "date-time"})
_SECRET = re.compile(r"pass(word|phrase)|secret|token|api.?key|credential|private.?key", re.IGNORECASE)


class LeftOpen(Exception):
    """The person closed the question without a decision: it stays open."""


class Asked(NamedTuple):
    """How clients may be asked: what they can do, and where a person can answer in a browser."""

    can: Capabilities
    console: str
    is_modern: bool

    def request(self, execution_id: str, question: InputRequired) -> Json | None:
        """The request {method, params} for the client; None if it cannot be asked this."""
        schema = question.schema or {}
        if isinstance(own := schema.get(REQUEST), dict):
            return _own(own, self.can)
        flat = flat_schema(question)
        if flat is not None and self.can.form:
            mode = {"mode": "form"} if self.is_modern else {}
            params = {**mode, "message": question.prompt, "requestedSchema": flat}
            return {"method": "elicitation/create", "params": params}
        if self.can.url:
            url = f"{self.console}/#/x/{execution_id}"
            about = {"mode": "url", "message": question.prompt, "url": url}
            key = {} if self.is_modern else {"elicitationId": f"{execution_id}/{question.input_id}"}
            return {"method": "elicitation/create", "params": {**about, **key}}
        return None


def _own(request: Json, can: Capabilities) -> Json | None:
    method, params = request.get("method"), request.get("params")
    is_able = {"sampling/createMessage": can.sampling, "roots/list": can.roots}.get(str(method), False)
    return {"method": method, "params": params if isinstance(params, dict) else {}} if is_able else None


def flat_schema(question: InputRequired) -> Json | None:
    """The schema of the client's form; None where a form must not ask for it: a secret."""
    match question.kind:
        case "approval":
            return _object({CONFIRM: {"type": "boolean", "title": "Approve"}})
        case "choice":
            return _object({VALUE: {"type": "string", "enum": list(question.options or [])}})
        case "text" if question.schema == ANY_JSON:
            return _object({VALUE: {"type": "string", "description": "any JSON"}})
        case "text":
            return _object({VALUE: {"type": "string"}})
    properties = (question.schema or {}).get("properties")
    if isinstance(properties, dict) and any(_is_secret(name, each) for name, each in properties.items()):
        return None
    flat = _flat(question.schema or {})
    if flat is not None:
        return flat
    return _object({VALUE: {"type": "string", "description": f"JSON that fits {as_json(question.schema or {})}"}})


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _is_secret(name: str, schema: Any) -> bool:
    given = schema if isinstance(schema, dict) else {}
    return given.get("format") == "password" or given.get("writeOnly") is True or bool(_SECRET.search(name))


def _flat(schema: Json) -> Json | None:
    """A form's schema with what the protocol has words for; None if it has parts of parts."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        return None
    flat = {name: _primitive(each) for name, each in properties.items()}
    if None in flat.values():
        return None
    required = [name for name in schema.get("required") or [] if name in flat]
    return {"type": "object", "properties": flat, **({"required": required} if required else {})}


def _primitive(schema: Any) -> Json | None:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if not isinstance(kind, str) or kind not in _KEPT:
        return None
    items = schema.get("items")
    if kind == "array" and not (isinstance(items, dict) and ("enum" in items or "anyOf" in items)):
        return None
    kept = {name: value for name, value in schema.items() if name in _ALWAYS | _KEPT[kind]}
    if kept.get("format") not in _FORMATS:
        kept.pop("format", None)
    return kept


# --- answers ---------------------------------------------------------------------------------------------------------


def answer_of(question: InputRequired, response: Any) -> Any:
    """The value that a client's response gives. Raises `Declined`, `LeftOpen`, and `McpError`."""
    if not isinstance(response, dict):
        raise McpError(INVALID_PARAMS, f"the response to {question.input_id} is an object", key=question.input_id)
    if isinstance((question.schema or {}).get(REQUEST), dict):
        return response
    action, content = response.get("action"), response.get("content")
    if action == "cancel":
        raise LeftOpen
    if action == "decline":
        raise Declined(question.input_id)
    if action != "accept":
        raise McpError(INVALID_PARAMS, "action is accept, decline or cancel", key=question.input_id)
    if content is None:
        raise LeftOpen  # a person was sent to the console, and answers there
    if not isinstance(content, dict):
        raise McpError(INVALID_PARAMS, "content is an object", key=question.input_id)
    return _value(question, content)


def _value(question: InputRequired, content: Json) -> Any:
    if question.kind == "form" and _flat(question.schema or {}) is not None:
        return content
    name = CONFIRM if question.kind == "approval" else VALUE
    value = content.get(name, next(iter(content.values()), None) if len(content) == 1 else None)
    is_json = question.kind == "form" or (question.kind == "text" and question.schema == ANY_JSON)
    return _json_of(value) if is_json and isinstance(value, str) else value


def _json_of(value: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return value
