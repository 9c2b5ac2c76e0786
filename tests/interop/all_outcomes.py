"""What every client of `test_all_clients.py` must have in the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from all_stand import A2A, AG_UI, AI_SDK, DURABLE_STREAM, MCP_TASK, NATIVE, RESPONSES, Json

from broker.executions.fold import Fold
from emitter.wire import entries, ids
from tests.edges import Received

NOT_TOLD = {"thinking:delta", "usage"}
"""Types of events that A2A has no updates for."""


def folded(state: Json) -> Json:
    """The folded log, in the words in which the clients tell what they have."""
    return {
        "status": state["status"],
        "text": state["text"],
        "tools": [
            {"name": each["toolName"], "params": each["params"]}
            | ({"error": each["error"]} if each["status"] == "error" else {"result": each["result"]})
            for each in state["tools"]
        ],
        "result": state["result"],
        "partials": [each["result"] for each in state["partialResults"]],
        "artifacts": {each["artifactId"]: each["text"] for each in state["artifacts"]},
        "phases": [each["name"] for each in state["phases"] if each["status"] == "complete"],
        "specialists": sorted(each["specialist"] for each in state["specialists"] if each["status"] == "complete"),
        "usage": state["usage"] and {name: value for name, value in state["usage"].items() if value is not None},
        "attempt": state["attempt"],
    }


def check(name: str, outcome: Json, state: Json, *, customs: Sequence[str] = ()) -> None:
    """The client has what the execution's state has; `customs` are the agent's own events."""
    if name in OWN_CHECKS:
        OWN_CHECKS[name](outcome, state)
        return
    wanted = folded(state)
    missing = {field: (outcome.get(field), value) for field, value in wanted.items() if outcome.get(field) != value}
    assert missing == {}, f"{name} has (and should): {missing}"
    whole = [each["thought"] for each in state["thinking"] if name not in A2A or each["messageId"] is None]
    assert outcome["thoughts"] == whole, name
    assert outcome["customs"] == [f"custom:{each}" for each in customs], name
    if name not in A2A and state["progress"]:
        assert outcome["progress"] == state["progress"]["progress"], name
    if name in AI_SDK:
        assert (outcome["open"], outcome["messages"]) == (0, 2), name
    if name == AG_UI:
        assert outcome["state"] == {field: state[field] for field in outcome["state"]}
        assert (outcome["theirs"], outcome["ended"]) == (1, "success"), "what the client itself has in its state stays"


def _check_native(outcome: Json, state: Json) -> None:
    assert outcome["state"] == state


def _check_task(outcome: Json, state: Json) -> None:
    """A task has its result, and the resource the transcript."""
    assert outcome["status"] == state["status"]
    assert outcome["structured"]["executionId"] == state["executionId"]
    assert outcome["structured"]["result"] == state["result"]
    assert outcome["texts"][0] == state["messages"][-1]["text"]
    shown = [each["toolName"] for each in state["tools"]] + [each["text"] for each in state["messages"]]
    assert [text for text in shown if text not in outcome["page"]] == []


def _check_stream(outcome: Json, state: Json) -> None:
    last = outcome["items"][-1]
    assert (last["executionId"], last["data"]["result"]) == (state["executionId"], state["result"])


def _check_responses(outcome: Json, state: Json) -> None:
    """All responses together: what is said, the agent's calls, its thoughts, files, usage and result."""
    responses = outcome["responses"]
    items = [item for each in responses for item in each["output"]]

    def of(kind: str) -> list[Json]:
        return [item for item in items if item["type"] == kind]

    texts = ["".join(part["text"] for part in item["content"]) for item in of("message")]
    assert texts == [each["text"] for each in state["messages"]]
    thoughts = ["".join(part["text"] for part in item["summary"]) for item in of("reasoning")]
    assert thoughts == [each["thought"] for each in state["thinking"]]
    for call, tool in zip(of("mcp_call"), state["tools"], strict=True):
        assert (call["name"], json.loads(call["arguments"])) == (tool["toolName"], tool["params"])
        result = tool["result"]
        output = result if result is None or isinstance(result, str) else json.loads(call["output"])
        assert (call["error"], output) == (tool["error"], result)
    artifacts: dict[str, str] = {}
    for item in of("runcast:artifact"):
        artifacts[item["artifactId"]] = artifacts.get(item["artifactId"], "") + item["text"]
    assert artifacts == {each["artifactId"]: each["text"] for each in state["artifacts"]}
    assert [item["result"] for item in of("runcast:result")] == [state["result"]]
    last = responses[-1]
    assert (last["status"], last["error"], last["metadata"]) == (state["status"], None, {})
    assert state["usage"] is None or last["usage"]["total_tokens"] == state["usage"]["totalTokens"]
    for each in responses:
        assert each["numbers"] == list(range(len(each["numbers"])))
        assert each["same"], "the same on another edge"
        assert each["kept"], "as it is without a stream"


OWN_CHECKS: dict[str, Callable[[Json, Json], None]] = {
    NATIVE: _check_native,
    MCP_TASK: _check_task,
    DURABLE_STREAM: _check_stream,
    RESPONSES: _check_responses,
}
"""What readers have that have more or less than `folded`."""


def check_each_once(name: str, outcome: Json, log: Sequence[Received]) -> None:
    """Events came once and in order, where the client can tell. To A2A's the first of them came with the task."""
    if name == NATIVE:
        assert outcome["ids"] == [event.id for event in log]
    if name == AG_UI:
        assert outcome["twice"] == []
    if name == DURABLE_STREAM:
        assert outcome["items"] == [json.loads(event.data) for event in log]
    if name not in A2A:
        return
    told = [int(seq) for seq, _ in outcome["generations"]]
    assert told == sorted(told), name
    once = [each for each in outcome["generations"] if each[1] != "execution:complete"]  # which is two updates
    assert len(once) == len({seq for seq, _ in once}), name
    missing = {int(event.id.split("-")[1]) for event in log if event.type not in NOT_TOLD} - set(told)
    assert [seq for seq in missing if seq >= told[0]] == [], name


def fold_of(log: Sequence[Received], execution_id: str) -> Json:
    """What one has who folds the events he got."""
    fold = Fold(execution_id)
    for event in log:
        fold.apply_entry(entries.Entry(*ids.parse_event_id(event.id), event.type.encode(), event.data.encode()))
    found: Any = json.loads(msgspec.json.encode(fold.state()))
    return dict(found)
