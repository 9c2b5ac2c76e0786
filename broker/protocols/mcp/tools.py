"""What `tools/list` shows: a tool for each agent, and those for executions, which every host can use. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from broker.protocols.mcp.rpc import Json
from emitter.budgets import LIMITS
from emitter.store.announcements import AgentInfo

RUN = "run_"
MAX_NAME = 64
"""What every host takes."""
REQUIRES = "x-mcp-requires"
"""In an agent's input schema: the `ClientCapabilities` without which it cannot be called."""
HEADER = "x-mcp-header"
"""In a parameter's schema: the header `Mcp-Param-…` that repeats it, for those on the way that read no bodies."""
_AGENT = re.compile(r"[a-z0-9_.-]{1,64}\Z")
_READ_ONLY = {"readOnlyHint": True, "openWorldHint": False}
_EXECUTION = {"type": "string", "description": "id of the execution, as run_* gave it"}


def _tool(name: str, title: str, description: str, properties: Json, required: list[str], hints: Json) -> Json:
    schema: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    about = {"name": name, "title": title, "description": description}
    return {**about, "inputSchema": schema, "annotations": {"title": title, **hints}}


WAIT, GET, ANSWER = "wait_for_execution", "get_execution", "answer_input"
SEND, CANCEL, LIST = "send_message", "cancel_execution", "list_executions"
MAX_WAIT_SECONDS = 45
OWN: Mapping[str, Json] = {
    WAIT: _tool(
        WAIT,
        "Wait for an execution",
        "Wait until an execution ends or asks something, and get its result. If it still runs after `seconds`, "
        "the answer says so: call again.",
        {
            "executionId": _EXECUTION,
            "seconds": {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS, "description": "at most so long"},
        },
        ["executionId"],
        _READ_ONLY,
    ),
    GET: _tool(
        GET,
        "Look at an execution",
        "How an execution stands now: its state, what it says, its open questions, its result.",
        {"executionId": _EXECUTION},
        ["executionId"],
        _READ_ONLY,
    ),
    ANSWER: _tool(
        ANSWER,
        "Answer a question",
        "Give an execution the answer to a question it has asked. Ask the user first: the answer is theirs.",
        {
            "executionId": _EXECUTION,
            "inputId": {"type": "string", "description": "id of the question; by default the oldest open one"},
            "value": {
                # Not a list of types: clients that know schemas with one type each would refuse the tool.
                "anyOf": [{"type": each} for each in ("boolean", "string", "number", "object", "array", "null")],
                "description": "true or false for an approval, one of the options for a choice, text, or the form's "
                "object",
            },
            "declined": {"type": "boolean", "description": "true, in place of a value, if the user will not answer"},
        },
        ["executionId"],
        {"destructiveHint": False, "openWorldHint": False},
    ),
    SEND: _tool(
        SEND,
        "Send a message",
        "Say something to an agent at work, if it takes messages: it reads it before its next step.",
        {
            "executionId": _EXECUTION,
            "text": {"type": "string", "description": "what the user says"},
            "mode": {
                "type": "string",
                "enum": ["queue", "interrupt"],
                "description": "interrupt: stop what the agent is doing, where it allows that",
            },
            "messageId": {"type": "string", "description": "a repeat with the same id is the same message"},
        },
        ["executionId", "text"],
        {"destructiveHint": False, "openWorldHint": False},
    ),
    CANCEL: _tool(
        CANCEL,
        "Cancel an execution",
        "Ask an execution to stop. It may take a moment to.",
        {"executionId": _EXECUTION, "reason": {"type": "string", "maxLength": 1024}},
        ["executionId"],
        {"destructiveHint": True, "idempotentHint": True, "openWorldHint": False},
    ),
    LIST: _tool(
        LIST,
        "List executions",
        "The user's executions, newest first.",
        {
            "state": {
                "type": "string",
                "enum": ["queued", "running", "waiting_input", "completed", "failed", "cancelled"],
            },
            "limit": {"type": "integer", "minimum": 1, "maximum": 50},
            "cursor": {"type": "string", "description": "`nextCursor` of the page before"},
        },
        [],
        _READ_ONLY,
    ),
}


def tool_name(agent: str) -> str:
    """The tool of an agent. Of one whose name is too long it ends with a digest."""
    if len(RUN + agent) <= MAX_NAME:
        return RUN + agent
    return f"{RUN}{agent[: MAX_NAME - len(RUN) - 9]}_{hashlib.sha256(agent.encode()).hexdigest()[:8]}"


def agent_of(tool: str, agents: Iterable[AgentInfo]) -> str | None:
    """The agent that a tool runs, also of one that is not live just now; None for what is no agent's name. A name
    without `run_` is taken, too."""
    for agent in agents:
        if tool in (agent.name, tool_name(agent.name)):
            return agent.name
    name = tool.removeprefix(RUN)
    return name if _AGENT.match(name) else None


def listed(agents: Iterable[AgentInfo]) -> list[Json]:
    """The agents' tools by name, and then ours."""
    return [*(_agent_tool(agent) for agent in agents), *OWN.values()]


def _agent_tool(agent: AgentInfo) -> Json:
    return {
        "name": tool_name(agent.name),
        "title": agent.name,
        "description": agent.description or f"Runs the agent {agent.name}.",
        "inputSchema": input_schema(agent.input_schema),
        "annotations": {"title": agent.name, "openWorldHint": True},
    }


_TASK = {"type": "string", "description": "what the agent is asked to do, in words"}
BUDGET = "budget"
_BUDGET = {
    "type": "object",
    "description": "what the run may spend at most, if the user sets a limit",
    "properties": {name: {"type": "number", "exclusiveMinimum": 0} for name in LIMITS.values()},
    "additionalProperties": False,
}


def input_schema(params: dict[str, Any] | None) -> Json:
    """An agent's parameters, with the task before and the budget after them if they have none of that name."""
    if not params or params.get("type", "object") != "object":
        return {"type": "object", "properties": {"task": _TASK, BUDGET: _BUDGET}, "required": ["task"]}
    given = {name: value for name, value in params.items() if name != REQUIRES}
    properties = given.get("properties")
    known = properties if isinstance(properties, dict) else {}
    ours = {} if "task" in known else {"task": _TASK}
    rest = {} if BUDGET in known else {BUDGET: _BUDGET}
    return {**given, "type": "object", "properties": {**ours, **known, **rest}}


def schema_of(agents: Iterable[AgentInfo], name: str) -> dict[str, Any] | None:
    return next((agent.input_schema for agent in agents if agent.name == name), None)


def requirements(schema: dict[str, Any] | None) -> Json:
    """What a client must be capable of for an agent with this schema."""
    wanted = (schema or {}).get(REQUIRES)
    return wanted if isinstance(wanted, dict) else {}


def repeated_in_headers(schema: dict[str, Any] | None, arguments: Json) -> Json:
    """The arguments that the schema marks with `x-mcp-header`, by the names there."""
    properties = (schema or {}).get("properties")
    found: Json = {}
    for name, each in properties.items() if isinstance(properties, dict) else ():
        header = each.get(HEADER) if isinstance(each, dict) else None
        if isinstance(header, str) and isinstance(arguments.get(name), str | int | float):
            found[header] = arguments[name]
    return found


class Wanted(NamedTuple):
    """What a call of an agent's tool asks for. `budget` as it was given."""

    task: str
    params: Json
    budget: Any = None


def wanted_of(agent: str, arguments: Json, schema: dict[str, Any] | None) -> Wanted:
    """If the agent's own parameters have a `task`, it is one of them, too; if they have a `budget`, it is no limit."""
    given = arguments.get("task")
    task = given if isinstance(given, str) and given else agent
    properties = (schema or {}).get("properties")
    own = properties if isinstance(properties, dict) else {}
    params = {name: value for name, value in arguments.items() if name in own or name not in ("task", BUDGET)}
    return Wanted(task, params, None if BUDGET in own else arguments.get(BUDGET))
