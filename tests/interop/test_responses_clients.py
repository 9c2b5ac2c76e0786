"""The clients of the Responses API as they are published, against real edges and a worker.

The specification's own kit (github.com/openresponses/openresponses, `bin/compliance-test.ts`) is no package; its cases
are those of `tests/protocols/test_responses_stream.py` and of the client below that has functions.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from clients import HERE, NODE_SECONDS, Stand, needs_node, node, stand
from pythons import OPENAI, python_of

from tests.edges import token_for

pytestmark = pytest.mark.slow
MODELS = ["failer", "listener", "model", "slow", "worker"]


@pytest.fixture(scope="module")
def world() -> Iterator[Stand]:
    """Every test asks the second edge: the first one is killed."""
    with stand("responses_agents:agents") as made:
        yield made


@pytest.fixture(scope="module")
def found(world: Stand) -> dict[str, Any]:
    """What the clients for Python got, of which one had its edge killed."""
    interpreter = python_of(OPENAI)
    if interpreter is None:
        pytest.skip("the clients for Python cannot be installed")
    urls, token = [url + "/v1" for url in world.urls], token_for(world.new_user())
    command = [str(interpreter), "responses_python.py", *urls, token]
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(NODE_SECONDS, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            if process.stdout.readline() == "cut\n":
                world.edges[0].kill()
            out, error = process.communicate()
        finally:
            timer.cancel()
    assert process.returncode == 0, error[-3000:]
    made: dict[str, Any] = json.loads(out.splitlines()[-1])
    return made


def test_turns(found: dict[str, Any]) -> None:
    """Held and streamed answers, instructions, metadata, usage, images, models and input items."""
    found = found["told"]
    assert found["models"] == MODELS
    assert found["text"] == "One two three. Be brief. / user: I am Ann. / []"
    assert (found["metadata"], found["usage"], found["same"]) == ({"k": "v"}, 15, True)
    assert found["numbers"] == list(range(len(found["numbers"])))
    assert found["second"].endswith(f"user: I am Ann. | assistant: {found['text']} | user: Who am I? / []")
    assert found["seen"].endswith("['image/png']")
    assert found["items"] == [["user", "I am Ann."], ["assistant", found["text"]], ["user", "Who am I?"]]


def test_questions(found: dict[str, Any]) -> None:
    """An approval and a call of `ask_user` end a response each; the answers begin the next. One execution."""
    found = found["asked"]
    first = ["reasoning", "mcp_call", "message", "mcp_approval_request"]
    assert found["types"] == [first, ["function_call"], ["message", "runcast:result"]]
    assert found["call"] == ["ask_user", ["here", "there"]]
    assert (found["previous"], found["executions"]) == ([True, True], 1)
    assert (found["text"], found["again"]) == ("Published there.", True)
    assert found["given"] == ["mcp_approval_response", "function_call_output"]


def test_endings(found: dict[str, Any]) -> None:
    """In the background, cancelled, deleted, failed, refused: as the client's own exceptions."""
    found = found["ended"]
    assert found["statuses"][0] in ("queued", "in_progress"), "a worker may be faster than the answer"
    assert found["statuses"][1:] == ["cancelled", "cancelled"]
    assert found["failed"] == ["response.failed", "RuntimeError: as told"]
    assert found["refused"] == [
        ["NotFoundError", "response_not_found", None],
        ["NotFoundError", "response_not_found", None],
        ["NotFoundError", "model_not_found", "model"],
        ["BadRequestError", "previous_response_not_found", "previous_response_id"],
        ["BadRequestError", "invalid", "input[0].content"],
        ["AuthenticationError", "unauthorized", None],
    ]


def test_a_message_to_an_agent_at_work(found: dict[str, Any]) -> None:
    assert found["steered"] == ["You said Hurry.", "Tell me. You said Hurry."]


def test_openai_agents(found: dict[str, Any]) -> None:
    """Its runner runs the function that an agent calls."""
    found = found["agents"]
    assert found["called"] == "It says fog in San Francisco, CA."
    assert found["plain"].endswith("Be brief. / user: Hi. / []")


@needs_node
async def test_the_client_for_node(world: Stand) -> None:
    found = await node("responses_js.mjs", "openai", world.urls[1] + "/v1", token_for(world.new_user()))
    assert found["second"].endswith(f"user: I am Ann. | assistant: {found['text']} | user: Who am I? / []")
    assert found["numbers"] == list(range(len(found["numbers"])))
    assert found["rest"] == found["numbers"][4:]
    assert found["types"] == ["reasoning", "mcp_call", "message", "mcp_approval_request"]
    assert (found["answered"], found["models"]) == ("Left.", len(MODELS))
    assert found["failed"] == ["response.failed", "RuntimeError: as told"]
    assert found["refused"] == [404, "response_not_found"]


@needs_node
async def test_the_open_responses_provider_of_the_ai_sdk(world: Stand) -> None:
    """Text, thoughts, its own functions over several steps, a question as a call, and a failure."""
    found = await node("responses_js.mjs", "ai", world.urls[1] + "/v1", token_for(world.new_user()))
    assert found["plain"] == "One two three. Be brief. / user: Hi. / []"
    assert (found["called"], found["steps"]) == ("It says fog in San Francisco, CA.", 2)
    assert (found["streamed"], found["reasoning"]) == ("One two three. - / user: Hi. / []", "Let me see.")
    assert found["finish"] == "stop"
    assert found["asking"] == ["tool-calls", "ask_user", "Publish?"]
    assert found["failed"] == "RuntimeError: as told"


def test_an_edge_that_dies_in_a_stream(found: dict[str, Any]) -> None:
    """`retrieve(stream=True, starting_after=n)` has the rest from another edge: together it is what was never cut."""
    found = found["cut"]
    assert found["how"] != ""
    assert (found["same"], found["text"]) == (True, "begun ")
    assert min(found["first"], found["rest"]) > 2
    assert found["after"] == [found["count"] - 1, 0]
