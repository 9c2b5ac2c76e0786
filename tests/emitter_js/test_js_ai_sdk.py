"""`@runcast/emitter/ai-sdk` with the real `ai` package, versions 6 and 7, and its models for tests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.edges import EdgeProcess, call
from tests.emitter_js.stand import Script, log_of, needs_packages, text_of, token

pytestmark = [needs_packages, pytest.mark.parametrize("version", ["ai6", "ai7"])]
ID = "ex_ai"


def scene(name: str, version: str, of: EdgeProcess, user: str) -> Script:
    given = {"url": f"http://127.0.0.1:{of.port}", "token": token(user), "executionId": ID, "scene": name}
    return Script("ai_sdk.mjs", version, **given)


def of_type(events: list[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    return [event["data"] for event in events if event["type"] == type_]


async def test_a_result(js_edge: EdgeProcess, user: str, version: str) -> None:
    """Text, reasoning, calls with their results and errors, sources, files and usage of two steps, in order."""
    async with scene("result", version, js_edge, user) as script:
        piped = (await script.end())[0]["piped"]
    assert piped["text"] == "It is 21."
    assert piped["finishReason"] == "stop"
    assert piped["usage"] == {"inputTokens": 23, "outputTokens": 15, "totalTokens": 38}
    events = await log_of(js_edge, user, ID)
    assert "".join(each["delta"] for each in of_type(events, "thinking:delta")) == "let me see"
    texts = {each["messageId"]: text_of(events, each["messageId"]) for each in of_type(events, "message:complete")}
    assert list(texts.values()) == ["I look. ", "It is 21."]
    started = {each["callId"]: (each["toolName"], each["params"]) for each in of_type(events, "tool:start")}
    assert started == {"c1": ("weather", {"city": "Ulm"}), "c2": ("broken", {}), "c3": ("slow", {})}
    results = {each["callId"]: each["result"] for each in of_type(events, "tool:complete")}
    assert results == {"c1": {"city": "Ulm", "degrees": 21}, "c3": {"done": 2}}
    assert [(each["callId"], each["error"]) for each in of_type(events, "tool:error")] == [("c2", "RangeError: no")]
    assert {each["message"] for each in of_type(events, "tool:progress")} == {'{"done":1}', '{"done":2}'}
    assert [each["inputTokens"] for each in of_type(events, "model:call")] == [3, 20]
    assert {each["model"] for each in of_type(events, "model:call")} == {"mock-1"}
    assert of_type(events, "usage")[-1]["totalTokens"] == 38
    assert of_type(events, "custom:source")[0]["url"] == "http://x.test/"
    assert of_type(events, "artifact")[0]["url"] == "data:image/png;base64,iVBORw0K"


async def test_one_call(js_edge: EdgeProcess, user: str, version: str) -> None:
    """With a task, one call makes the whole execution."""
    async with scene("task", version, js_edge, user) as script:
        await script.end()
    events = await log_of(js_edge, user, ID)
    assert (events[0]["type"], events[-1]["type"]) == ("execution:started", "execution:complete")
    assert events[-1]["data"]["result"] == "Hello"


async def test_an_agent(js_edge: EdgeProcess, user: str, version: str) -> None:
    """An agent of the SDK is run with a prompt."""
    async with scene("agent", version, js_edge, user) as script:
        piped = (await script.end())[0]["piped"]
    assert piped["text"] == "done"
    events = await log_of(js_edge, user, ID)
    assert of_type(events, "tool:complete")[0]["result"] == {"city": "Ulm", "degrees": 21}
    assert events[-1]["data"]["result"] == "done"


async def test_approvals(js_edge: EdgeProcess, user: str, version: str) -> None:
    """Tools that need approval are asked for, both at once; what is approved runs, what is not is denied, and the model
    hears of both."""
    async with scene("approval", version, js_edge, user) as script:
        asked = await _asked(js_edge, user, 2)
        for prompt, value in (("Remove /b?", True), ("Remove /a?", False)):
            body = {"inputId": asked[prompt], "value": value}
            path = f"/api/agent/executions/{ID}/input"
            assert (await call(js_edge.port, "POST", path, token(user), body)).status == 202
        said = await script.end()
    assert said[0]["ran"] == ["Ulm", "/b"]
    assert said[0]["piped"]["approvals"] == []
    assert "removed" in str(said[1]["last"])
    assert "degrees" in str(said[1]["last"])  # of the step before
    events = await log_of(js_edge, user, ID)
    assert [(each["callId"], each["result"]) for each in of_type(events, "tool:complete")] == [
        ("c0", {"city": "Ulm", "degrees": 21}),
        ("c2", "removed"),
    ]
    assert [(each["callId"], each["error"]) for each in of_type(events, "tool:error")] == [("c1", "denied")]
    assert events[-1]["data"]["result"] == "done"


async def _asked(of: EdgeProcess, user: str, count: int) -> dict[str, str]:
    async with asyncio.timeout(20):
        while True:
            state = (await call(of.port, "GET", f"/api/agent/executions/{ID}", token(user))).body
            if len(inputs := state.get("openInputs", [])) == count:
                return {each["prompt"]: each["inputId"] for each in inputs}
            await asyncio.sleep(0.05)


async def test_a_failure(js_edge: EdgeProcess, user: str, version: str) -> None:
    """The model's error is raised, and ends the execution."""
    async with scene("failure", version, js_edge, user) as script:
        assert (await script.end())[0] == {"failed": "TypeError: the model is away"}
    last = (await log_of(js_edge, user, ID))[-1]
    assert (last["type"], last["data"]["error"]) == ("execution:error", "TypeError: the model is away")


async def test_a_cancel(js_edge: EdgeProcess, user: str, version: str) -> None:
    """A cancel aborts the SDK's run and the tool in it."""
    async with scene("cancel", version, js_edge, user) as script:
        async with asyncio.timeout(20):
            while (await call(js_edge.port, "GET", f"/api/agent/executions/{ID}", token(user))).body.get("tools") in (
                None,
                [],
            ):
                await asyncio.sleep(0.05)
        body = {"reason": "enough"}
        assert (await call(js_edge.port, "POST", f"/api/agent/executions/{ID}/cancel", token(user), body)).status == 202
        assert await script.until("failed") == {"name": "AbortError", "reason": "enough"}
        await script.end()
