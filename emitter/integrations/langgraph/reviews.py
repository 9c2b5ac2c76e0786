"""Actions that a person reviews before an agent takes them.

LangChain's middleware for human approval asks for all calls of a turn at once or for each (`interrupt_mode`); the agent
inbox has an older form. Each action is a choice; new arguments are a form, a reason or an answer in words a text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from emitter.integrations.langgraph.values import storable
from emitter.wire.storable import cut_text, encoded_bytes, text

Ask = Callable[..., Awaitable[Any]]

PROMPT_CHARS = 4000
WITH_REASON = "reject with a reason"
DEFAULTS_BYTES = 16 * 1024
NAME_CHARS = 200
TYPES = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
INBOX = {"accept": "allow_accept", "edit": "allow_edit", "response": "allow_respond", "ignore": "allow_ignore"}
"""What may be answered to a request of the inbox, and what of its `config` allows it."""


class Action(NamedTuple):
    """What is to be decided, and what may be decided of it. `shown` are the arguments as JSON can hold them."""

    name: str
    args: dict[str, Any]
    shown: dict[str, Any]
    description: str
    allowed: list[str]


async def decide(value: Any, response_schema: Any, ask: Ask) -> Any:
    """What the graph goes on with, once a person has decided on each action; None if the value is no such request."""
    if (requests := _requests(value)) is not None:
        return {"decisions": [_decision(each, *found) for each, found in await _decided(requests, ask)]}
    if (one := _tool_approval(value, response_schema)) is not None:
        ((action, found),) = await _decided([one], ask)
        return _decision(action, *found)
    if (inbox := _inbox(value)) is not None:
        return [_response(each, *found) for each, found in await _decided(inbox, ask)]
    return None


# --- requests -------------------------------------------------------------------------------------------------------


def _requests(value: Any) -> list[Action] | None:
    """Of a `HITLRequest`."""
    listed = value.get("action_requests") if isinstance(value, Mapping) else None
    if not (listed and isinstance(listed, list) and all(isinstance(each, Mapping) for each in listed)):
        return None
    reviews = [each for each in value.get("review_configs") or () if isinstance(each, Mapping)]
    allowed = {each.get("action_name"): each.get("allowed_decisions") for each in reviews}
    return [_action(each, "name", allowed.get(each.get("name")) or ["approve", "reject"]) for each in listed]


def _tool_approval(value: Any, schema: Any) -> Action | None:
    """Of a `ToolApprovalRequest`, whose allowed decisions stand in the schema of its answer."""
    if not (isinstance(value, Mapping) and value.get("type") == "tool_approval"):
        return None
    given = schema if isinstance(schema, dict) else {}
    only = given.get("properties", {}).get("type", {}).get("const")
    allowed = [only] if only else list(given.get("discriminator", {}).get("mapping", ()))
    return _action(value, "name", allowed or ["approve", "reject"])


def _inbox(value: Any) -> list[Action] | None:
    """Of a `HumanInterrupt`, or a list of them."""
    listed = value if isinstance(value, list) else [value]
    are_requests = all(isinstance(each, Mapping) and isinstance(each.get("action_request"), Mapping) for each in listed)
    if not (listed and are_requests):
        return None
    found = []
    for each in listed:
        config = each.get("config") or {}
        allowed = [type_ for type_, name in INBOX.items() if config.get(name)]
        about = {**each["action_request"], "description": each.get("description")}
        found.append(_action(about, "action", allowed or ["accept", "ignore"]))
    return found


def _action(given: Mapping[str, Any], name: str, allowed: list[str]) -> Action:
    args = given.get("args")
    args = dict(args) if isinstance(args, Mapping) else {}
    return Action(
        name=text(given.get(name) or "action")[:NAME_CHARS],
        args=args,
        shown=storable(args),
        description=text(given.get("description") or ""),
        allowed=[str(each) for each in allowed],
    )


# --- decisions -------------------------------------------------------------------------------------------------------


async def _decided(actions: list[Action], ask: Ask) -> list[tuple[Action, tuple[str, Any]]]:
    """One after the other, so that a retry asks in the same order and finds the same answers."""
    found = []
    for number, action in enumerate(actions, 1):
        of = f" ({number} of {len(actions)})" if len(actions) > 1 else ""
        found.append((action, await _ask(action, of, ask)))
    return found


async def _ask(action: Action, of: str, ask: Ask) -> tuple[str, Any]:
    """The decision, and its new arguments or text."""
    options = list(dict.fromkeys([*action.allowed, *([WITH_REASON] if "reject" in action.allowed else [])]))
    decision = await ask(_prompt(action, of), kind="choice", options=options)
    if decision == "edit":
        # What is left out of the answer stays as it was.
        return decision, action.args | await ask(
            f"New arguments of {action.name}{of}", kind="form", schema=_form(action)
        )
    if decision in ("respond", "response"):
        return decision, await ask(f"Answer in place of {action.name}{of}", kind="text")
    if decision == WITH_REASON:
        return "reject", await ask(f"Why not {action.name}{of}?", kind="text")
    return decision, None


def _prompt(action: Action, of: str) -> str:
    """The prompt always contains the action and its arguments, also if the description does not."""
    asked = action.description or f"Allow {action.name}?"
    if not (action.name in asked and str(action.args) in asked):
        asked += f"\n\n{action.name} {msgspec.json.encode(action.shown).decode()}"
    asked += of
    return asked if len(asked) <= PROMPT_CHARS else cut_text(asked[:PROMPT_CHARS], len(asked))


def _form(action: Action) -> dict[str, Any]:
    """The arguments there are, with their values as far as an input can hold them."""
    room = DEFAULTS_BYTES
    properties: dict[str, dict[str, Any]] = {}
    for name, value in action.shown.items():
        properties[name] = {} if value is None else {"type": TYPES[type(value)]}
        if (size := encoded_bytes(value)) <= room:
            properties[name]["default"] = value
            room -= size
    return {"type": "object", "properties": properties}


# --- results ----------------------------------------------------------------------------------------------------------


def _decision(action: Action, type_: str, given: Any) -> dict[str, Any]:
    """For the middleware."""
    if type_ == "edit":
        return {"type": type_, "edited_action": {"name": action.name, "args": given}}
    return {"type": type_} if given is None else {"type": type_, "message": given}


def _response(action: Action, type_: str, given: Any) -> dict[str, Any]:
    """As the inbox answers."""
    return {"type": type_, "args": {"action": action.name, "args": given} if type_ == "edit" else given}
