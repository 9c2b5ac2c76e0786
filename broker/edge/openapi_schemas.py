"""The schemas of the description of the HTTP interface."""

from __future__ import annotations

from typing import Any

import msgspec

from broker.base.reasons import CloseReason
from broker.edge.openapi_webhooks import WebhookList
from broker.executions import tree_types
from broker.executions import types as api
from broker.executions.accepted import AcceptedRequest
from broker.executions.control_types import CONTROL_EVENTS
from broker.http import jobs_openapi as jobs
from broker.http import message_openapi as messages
from broker.http import share_openapi as shares
from broker.http.openapi_parts import REF, Json, only, ref
from broker.jobs import types as job_types
from broker.ops import types as ops_types
from broker.ops.types import OpsSnapshot
from broker.protocols import openapi as protocols
from emitter import events
from emitter.events import CATALOGUE, Custom, Event
from emitter.wire.envelope import CUSTOM_TYPE, Envelope

_BODIES: tuple[type[msgspec.Struct], ...] = (
    api.ExecuteRequest, api.CancelRequest, api.InputRequest, api.TicketRequest, api.RevocationRequest,
    api.PublishRequest, api.ExecuteResponse, api.ExecutionList, api.EventPage, api.CancelResponse, api.InputResponse,
    api.PublishResponse, api.TicketResponse, api.RevocationResponse, api.AgentList, api.ExecutionState, api.ProblemBody,
    tree_types.ExecutionNode, AcceptedRequest,
    WebhookList, *CONTROL_EVENTS.values(), OpsSnapshot,
)  # fmt: skip


def schemas() -> Json:
    """All components, as clients' generators read them best."""
    bodies = (*_BODIES, *jobs.BODIES, *protocols.BODIES, *messages.BODIES, *shares.BODIES, *CATALOGUE, Envelope)
    _, found = msgspec.json.schema_components(bodies, ref_template=REF)
    found = _named(found)
    head = found.pop("Envelope")
    names = {event.type: event.__name__ + "Event" for event in CATALOGUE}
    for event in CATALOGUE:
        found[names[event.type]] = _event(head, {"const": event.type}, ref(event.__name__), event)
    custom = {"type": "string", "pattern": "^" + CUSTOM_TYPE.pattern.replace(r"\Z", "$")}
    found["CustomEvent"] = _event(head, custom, {"type": "object"}, Custom)
    mapping = {type_: REF.format(name=name) for type_, name in names.items()}
    found["Event"] = {
        "title": "Event",
        "description": "One event of a log. Types `custom:<name>` are CustomEvent.",
        "oneOf": [ref(name) for name in (*names.values(), "CustomEvent")],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    # What the code passes on without decoding is typed here all the same, and what it checks after that.
    found["LoggedEvent"]["properties"]["event"] = ref("Event")
    found["PublishRequest"]["properties"] |= {
        "type": {"anyOf": [{"enum": list(names)}, custom]},
        "data": {"type": "object"},
    }
    found["RevocationRequest"]["oneOf"] = [only("jti", "user"), only("user", "jti")]
    found["StreamEnd"]["properties"]["reason"] = {"type": "string", "enum": list(CloseReason)}
    _say_what_is_always_there(found)
    return _plain(dict(sorted({**found, **protocols.schemas()}.items())))  # type: ignore[no-any-return]


def _say_what_is_always_there(schemas: Json) -> None:
    """Structs that leave nothing out have all their members, null where they are unset; requests may leave out what has
    a default, whatever they leave out otherwise."""
    for module in (api, job_types, tree_types, ops_types, events):
        for name in schemas.keys() & vars(module).keys():
            config = getattr(module, name).__struct_config__
            if not (config.omit_defaults or config.forbid_unknown_fields):
                schemas[name]["required"] = list(schemas[name]["properties"])


def _plain(document: Any) -> Any:
    """Without what generators of clients misread: a member with a default, which they take for one that is always
    there; and an object of which nothing is said, which they take for an empty one."""
    if isinstance(document, list):
        return [_plain(each) for each in document]
    if not isinstance(document, dict):
        return document
    found = {name: _plain(each) for name, each in document.items() if name not in ("default", "properties")}
    if "properties" in document:
        found["properties"] = {name: _plain(each) for name, each in document["properties"].items()}
    if found.get("type") == "object" and not found.keys() & {"properties", "additionalProperties"}:
        found["additionalProperties"] = True
    return found


def _named(schemas: Json) -> Json:
    """The public names: `broker.protocols.ai_sdk.chat.Message` is `AiSdkMessage`, and `ProblemBody` is `Problem`."""
    names = {name: _short(name) for name in schemas if "." in name} | {"ProblemBody": "Problem"}
    text = msgspec.json.encode(schemas).decode()
    for name, short in names.items():
        text = text.replace(f'"{REF.format(name=name)}"', f'"{REF.format(name=short)}"')
    found: Json = msgspec.json.decode(text)
    for name, short in names.items():
        found[short] = found.pop(name) | {"title": short}
    return found


def _short(name: str) -> str:
    protocol, _, class_ = name.removeprefix("broker.protocols.").split(".")
    return "".join(word.capitalize() for word in protocol.split("_")) + class_


def _event(head: Json, type_: Json, data: Json, event: type[Event]) -> Json:
    """An event as it is on the wire: the envelope, with this type and this data."""
    properties = {**head["properties"], "type": type_, "data": data}
    schema: Json = {"title": event.__name__ + "Event", "type": "object"}
    if event.__doc__:
        schema["description"] = event.__doc__
    return {**schema, "properties": properties, "required": head["required"]}
