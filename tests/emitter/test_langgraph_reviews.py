"""Actions that people review, by LangChain's own middleware and in the inbox's form; and answers of any JSON."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import interrupt

from emitter.errors import InvalidEvent
from emitter.events import InputRequired
from emitter.integrations.langgraph import run_graph, stream_graph
from emitter.testing import RecordingEmitter
from tests.emitter.langgraph_graphs import HELLO, State, line
from tests.emitter.langgraph_models import Whole, calling

sent: list[dict[str, Any]] = []


@tool
def send(to: str, copies: int = 1) -> str:
    """Send a letter."""
    sent.append({"to": to, "copies": copies})
    return f"sent to {to}"


@tool
def wipe(disk: str) -> str:
    """Wipe a disk."""
    sent.append({"disk": disk})
    return f"wiped {disk}"


class Model(Whole):
    def bind_tools(self, tools: Any, **more: Any) -> Any:
        return self


def mailer(*calls: tuple[str, dict[str, Any], str], mode: str = "batched") -> Any:
    sent.clear()
    middleware: Any = HumanInTheLoopMiddleware(
        interrupt_on={"send": True, "wipe": {"allowed_decisions": ["approve", "reject"], "description": "Careful"}},
        interrupt_mode=mode,  # type: ignore[arg-type]
    )
    model = Model(script=[calling(*calls), AIMessage("Done")])
    return create_agent(model, [send, wipe], middleware=[middleware], checkpointer=InMemorySaver())


BOTH = (("send", {"to": "Ada", "copies": 2}, "c1"), ("wipe", {"disk": "sda"}, "c2"))


def answering(*answers: Any) -> Any:
    """An emitter whose questions get these answers, in the order in which they are asked."""
    left = iter(answers)
    return RecordingEmitter(answers=lambda question: next(left))


@pytest.mark.parametrize("mode", ["batched", "per_call"])
async def test_every_action_is_approved_edited_or_rejected(mode: str) -> None:
    """Unmodified middleware: each call is a choice of what it allows; an edit is a form with the arguments there are,
    a reason and an answer in place of the tool are texts; the model is told what the middleware makes of it."""

    def decide(question: InputRequired) -> Any:
        if question.kind == "form":
            assert question.schema is not None
            assert question.schema["properties"]["copies"] == {"type": "number", "default": 2}
            return {"to": "Bob"}
        if question.kind == "text":
            return "it is in use"
        return "edit" if "send" in question.prompt else "reject with a reason"

    emitter = RecordingEmitter(answers=decide)
    output = await stream_graph(mailer(*BOTH, mode=mode), HELLO, emitter)
    assert sent == [{"to": "Bob", "copies": 2}]
    choices = {question.prompt: question.options for question in emitter.of("input:required") if question.options}
    assert sorted(map(list, choices.values()), key=len, reverse=True) == [
        ["approve", "edit", "reject", "respond", "reject with a reason"],
        ["approve", "reject", "reject with a reason"],
    ]
    assert all(args in str(choices) for args in ("Ada", "sda", "Careful"))
    told = [message for message in output["messages"] if isinstance(message, ToolMessage)]
    assert any("it is in use" in message.text for message in told)


@pytest.mark.parametrize("mode", ["batched", "per_call"])
@pytest.mark.parametrize(
    ("answers", "done", "said"),
    [
        (["approve"], [{"to": "Ada", "copies": 2}], "sent to Ada"),
        (["reject"], [], "rejected"),
        (["respond", "Ask later"], [], "Ask later"),
    ],
)
async def test_one_action(mode: str, answers: list[str], done: list[Any], said: str) -> None:
    """A decision without more is one question."""
    emitter = answering(*answers)
    output = await stream_graph(mailer(BOTH[0], mode=mode), HELLO, emitter)
    assert sent == done
    assert said in next(message.text for message in output["messages"] if isinstance(message, ToolMessage))
    assert len(emitter.of("input:required")) == len(answers)


async def test_an_action_with_large_arguments_can_be_edited_too() -> None:
    """What a question cannot hold is not offered in its form, and stays as it was; the prompt says what is cut."""
    to = "é" * 50_000
    emitter = answering("edit", {"copies": 3})
    await stream_graph(mailer(("send", {"to": to, "copies": 2}, "c1")), HELLO, emitter)
    assert sent == [{"to": to, "copies": 3}]
    choice, form = emitter.of("input:required")
    assert "clipped" in choice.prompt
    assert form.schema["properties"] == {"to": {"type": "string"}, "copies": {"type": "number", "default": 2}}


def asking(value: Any) -> Any:
    def ask(state: State) -> dict[str, Any]:
        return {"said": [interrupt(value)]}

    return line(ask, checkpointer=InMemorySaver())


def request(**allowed: bool) -> dict[str, Any]:
    action = {"action": "send", "args": {"to": "Ada"}}
    return {"action_request": action, "config": allowed, "description": "Look at this"}


INBOX = request(allow_accept=True, allow_edit=True, allow_respond=True, allow_ignore=True)


@pytest.mark.parametrize(
    ("answers", "response"),
    [
        (["accept"], {"type": "accept", "args": None}),
        (["ignore"], {"type": "ignore", "args": None}),
        (["response", "Shorter"], {"type": "response", "args": "Shorter"}),
        (["edit", {"to": "Bob"}], {"type": "edit", "args": {"action": "send", "args": {"to": "Bob"}}}),
    ],
)
@pytest.mark.parametrize("value", [INBOX, [INBOX]])
async def test_the_inbox_is_answered_as_it_answers(answers: list[Any], response: Any, value: Any) -> None:
    """One request or a list of them: a list of responses."""
    emitter = answering(*answers)
    assert (await run_graph(asking(value), {"said": []}, emitter))["said"] == [[response]]
    question = emitter.of("input:required")[0]
    assert question.options == ["accept", "edit", "response", "ignore"]
    assert "Look at this" in question.prompt
    assert "Ada" in question.prompt


async def test_only_what_is_allowed_is_offered() -> None:
    """What the request does not allow is no option, and several requests are asked one after the other."""
    value = [request(allow_accept=True), request(allow_ignore=True)]
    emitter = answering("accept", "ignore")
    (responses,) = (await run_graph(asking(value), {"said": []}, emitter))["said"]
    assert [each["type"] for each in responses] == ["accept", "ignore"]
    assert [question.options for question in emitter.of("input:required")] == [["accept"], ["ignore"]]
    with pytest.raises(InvalidEvent, match="one of"):
        await run_graph(asking(value), {"said": []}, answering("edit"))


@pytest.mark.parametrize(
    ("answer", "meant"),
    [
        ({"correct": "y"}, {"correct": "y"}),
        ('{"correct": "y"}', {"correct": "y"}),
        (" [1, 2] ", [1, 2]),
        (True, True),
        ("false", False),
        ("null", None),
        (None, None),
        (7, 7),
        ("0123", "0123"),
        ("12345", "12345"),
        ("plain words", "plain words"),
        ('"quoted"', '"quoted"'),
        ("{not json", "{not json"),
    ],
)
@pytest.mark.parametrize("value", [{"query": "Who?"}, {"question": "Right?", "name": "n"}, ["a"], 3])
async def test_what_names_no_kind_takes_any_json(answer: Any, meant: Any, value: Any) -> None:
    """A client gives it as it is, a person as text; words and figures stay text."""
    emitter = answering(answer)
    assert (await run_graph(asking(value), {"said": []}, emitter))["said"] == [meant]
    assert [(q.kind, q.schema) for q in emitter.of("input:required")] == [("text", {})]


@pytest.mark.parametrize("value", ["A name?", {"prompt": "A name?", "kind": "text"}])
async def test_a_text_that_is_asked_for_stays_a_text(value: Any) -> None:
    """An edge takes no object for it, nor does a recording emitter; what looks like JSON is what it says."""
    assert (await run_graph(asking(value), {"said": []}, answering("[1]")))["said"] == ["[1]"]
    with pytest.raises(InvalidEvent, match="text"):
        await run_graph(asking(value), {"said": []}, answering({"name": "Ada"}))
