"""What clients send, in each version's shape: what it starts, what it answers, what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from broker.base.problem import Problem
from broker.executions.conversations import Turn
from broker.executions.message_types import message_id_of
from broker.executions.types import BudgetRequest
from broker.protocols.a2a import errors as a2a_errors
from broker.protocols.a2a.codec import Codec, encode, milliseconds
from broker.protocols.a2a.errors import A2AError, to_a2a
from broker.protocols.a2a.inbound import answer_of, context_of, conversation_of, question_for, request_of, said_of
from broker.protocols.a2a.model import DataPart, FilePart, Message, Send, TextPart
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v03_rest import V03Rest
from broker.protocols.a2a.v10 import STATES, V10
from broker.protocols.times import timestamp
from emitter import errors
from emitter.events import InputRequired
from emitter.wire.ids import EXECUTION_ID

HTML = base64.b64encode(b"<p>").decode()
NEW = {
    "message": {
        "messageId": "m",
        "role": "ROLE_USER",
        "contextId": "c",
        "taskId": "t",
        "parts": [
            {"text": "hi"},
            {"data": {"n": 1}},
            {"raw": HTML, "mediaType": "text/html", "filename": "a.html"},
            {"url": "https://e.com/a", "mediaType": "text/html"},
        ],
    },
    "configuration": {"returnImmediately": True, "historyLength": 2},
    "metadata": {"agent": "a"},
    "fieldOfTheNextVersion": {},
}
OLD = {
    "message": {
        "kind": "message",
        "messageId": "m",
        "role": "user",
        "contextId": "c",
        "taskId": "t",
        "parts": [
            {"kind": "text", "text": "hi"},
            {"kind": "data", "data": {"n": 1}},
            {"kind": "file", "file": {"bytes": HTML, "mimeType": "text/html", "name": "a.html"}},
            {"kind": "file", "file": {"uri": "https://e.com/a", "mimeType": "text/html"}},
        ],
    },
    "configuration": {"blocking": False, "historyLength": 2, "acceptedOutputModes": []},
    "metadata": {"agent": "a"},
}
OLD_REST = {
    "request": {
        "message_id": "m",
        "role": "ROLE_USER",
        "context_id": "c",
        "task_id": "t",
        "content": [
            {"text": "hi"},
            {"data": {"data": {"n": 1}}},
            {"file": {"file_with_bytes": HTML, "mime_type": "text/html", "name": "a.html"}},
            {"file": {"file_with_uri": "https://e.com/a", "mime_type": "text/html"}},
        ],
    },
    "configuration": {"history_length": 2},
    "metadata": {"agent": "a"},
}
EXPECTED = Send(
    message=Message(
        role="user",
        message_id="m",
        context_id="c",
        task_id="t",
        parts=(
            TextPart(text="hi"),
            DataPart(data={"n": 1}),
            FilePart(raw=HTML, media_type="text/html", filename="a.html"),
            FilePart(url="https://e.com/a", media_type="text/html"),
        ),
    ),
    blocking=False,
    history_length=2,
    metadata={"agent": "a"},
)


def said(*parts: Any, metadata: dict[str, Any] | None = None, **given: Any) -> Send:
    return Send(message=Message(role="user", message_id="m", parts=parts, **given), metadata=metadata or {})


def text(words: str) -> Message:
    return said(TextPart(text=words)).message


def refusal(call: Any, *arguments: Any) -> a2a_errors.Kind:
    with pytest.raises(A2AError) as refused:
        call(*arguments)
    return refused.value.kind


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "params"), [(V10(), NEW), (V03(), OLD), (V03Rest(), OLD_REST)])
def test_a_message(version: Codec, params: Any) -> None:
    """The same message comes in three shapes."""
    assert version.read_send(params) == EXPECTED


def test_camel_case_over_old_rest() -> None:
    """One SDK writes the old REST binding in camelCase."""
    message = {"messageId": "m", "role": "ROLE_USER", "content": [{"text": "hi"}]}
    sent = V03Rest().read_send({"request": message, "configuration": {"blocking": True}})
    assert (sent.message.message_id, sent.blocking) == ("m", True)


@pytest.mark.parametrize(
    ("version", "configuration", "blocks"),
    [
        (V10(), {}, True),
        (V10(), {"returnImmediately": True}, False),
        (V03(), {}, True),
        (V03(), {"blocking": True}, True),
        (V03(), {"blocking": False}, False),
        (V03Rest(), {}, False),  # its default is not sent
        (V03Rest(), {"blocking": True}, True),
    ],
)
def test_who_waits(version: Codec, configuration: dict[str, Any], blocks: bool) -> None:
    """Whether the answer is to wait for the task's end is said otherwise in each version."""
    params = {V10: NEW, V03: OLD, V03Rest: OLD_REST}[type(version)]  # type: ignore[index]
    assert version.read_send({**params, "configuration": configuration}).blocking is blocks


@pytest.mark.parametrize(
    ("version", "configuration"),
    [
        (V10(), {"taskPushNotificationConfig": {"url": "https://e.com"}}),
        (V03(), {"pushNotificationConfig": {"url": "https://e.com"}}),
        (V03Rest(), {"push_notification": {"url": "https://e.com"}}),
    ],
)
def test_who_wants_to_be_called(version: Codec, configuration: dict[str, Any]) -> None:
    """A wish for push notifications is seen in every version."""
    params = {V10: NEW, V03: OLD, V03Rest: OLD_REST}[type(version)]  # type: ignore[index]
    push = version.read_send({**params, "configuration": configuration}).push
    assert push is not None
    assert push.url == "https://e.com"


@pytest.mark.parametrize(
    "parts",
    [
        None,
        [],
        "text",
        [{}],
        [{"text": "a", "data": {}}],
        [{"text": 1}],
        [{"text": "x"}] * 65,
    ],
)
def test_bad_parts(parts: Any) -> None:
    """Parts are at least one and not too many, and each has one content of its kind."""
    message = {"messageId": "m", "role": "ROLE_USER", "parts": parts}
    assert refusal(V10().read_send, {"message": message}) is a2a_errors.INVALID_PARAMS


@pytest.mark.parametrize("part", [{}, {"kind": "text"}, {"kind": "data", "data": [1]}, {"kind": "odd"}, {"text": "x"}])
def test_bad_old_parts(part: Any) -> None:
    """Old parts have a kind, and what belongs to it."""
    message = {"messageId": "m", "role": "user", "parts": [part]}
    assert refusal(V03().read_send, {"message": message}) is a2a_errors.INVALID_PARAMS


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"message": {}},
        {"message": {**NEW["message"], "role": "ROLE_AGENT"}},  # type: ignore[dict-item]
        {"message": {**NEW["message"], "messageId": ""}},  # type: ignore[dict-item]
        {**NEW, "configuration": {"historyLength": -1}},
        {**NEW, "metadata": 1},
    ],
)
def test_bad_messages(params: Any) -> None:
    """What is no message of a user is refused."""
    assert refusal(V10().read_send, params) is a2a_errors.INVALID_PARAMS


@pytest.mark.parametrize("params", [{}, {"request": 1}, {"request": {}}, {"request": {"content": [1]}}, []])
def test_bad_old_rest(params: Any) -> None:
    """The old REST binding's bodies are checked as well."""
    assert refusal(V03Rest().read_send, params) is a2a_errors.INVALID_PARAMS


@pytest.mark.parametrize(
    "params",
    [
        {"pageSize": 0},
        {"pageSize": 101},
        {"status": "odd"},
        {"historyLength": -1},
        {"statusTimestampAfter": "yesterday"},
        {"contextId": 1},
    ],
)
def test_bad_lists(params: Any) -> None:
    """A list's filters are checked."""
    assert refusal(V10().read_list, params) is a2a_errors.INVALID_PARAMS


def test_what_protojson_allows() -> None:
    """Names as the proto has them, null for any member, whole numbers as text, enums by number: as in the usual form.
    What is the sender's own stays as it is, and null is a value where a value is wanted."""
    version = V10()
    about = {"extensions": None, "referenceTaskIds": None, "metadata": None}
    usual = {"messageId": "m", "role": "ROLE_USER", "contextId": "c", "parts": [{"text": "hi"}, {"data": None}]}
    odd = {
        "message_id": "m",
        "role": 1,
        "context_id": "c",
        "parts": [{"text": "hi", "media_type": None}, {"data": None}],
    }
    wanted = version.read_send(
        {"message": usual, "configuration": {"historyLength": 2}, "metadata": {"own_name": None}}
    )
    given = {"message": {**odd, **about}, "configuration": {"history_length": "2"}, "metadata": {"own_name": None}}
    assert version.read_send(given) == wanted
    assert version.read_send({"message": usual, "configuration": None}).history_length is None
    listed = version.read_list({"contextId": "c", "pageSize": 2, "status": "TASK_STATE_WORKING"})
    assert version.read_list({"context_id": "c", "page_size": "2", "status": 2, "pageToken": None}) == listed
    assert version.read_list({"pageSize": 2.0}).page_size == 2
    assert version.read_query({"id": "t", "history_length": 0}).history_length == 0
    for state, name in enumerate(STATES.values()):
        assert version.read_list({"status": state}) == version.read_list({"status": name})
    assert refusal(version.read_list, {"status": 9}) is a2a_errors.INVALID_PARAMS
    assert refusal(version.read_list, {"pageSize": "2 pages"}) is a2a_errors.INVALID_PARAMS


def test_lists_are_new() -> None:
    """Before 1.0 there is no list."""
    for version in (V03(), V03Rest()):
        assert refusal(version.read_list, {}) is a2a_errors.METHOD_NOT_FOUND


@pytest.mark.parametrize("ms", [0, 999, 1_763_682_345_007])
def test_times(ms: int) -> None:
    """Times are RFC 3339 with milliseconds, both ways."""
    assert milliseconds(timestamp(ms)) == ms
    assert len(timestamp(ms)) == len("2026-01-01T00:00:00.000Z")


# --- a new task ------------------------------------------------------------------------------------------------------


def test_what_a_message_starts() -> None:
    """Text is the task, data its parameters, a text file more text, and the file itself beside it; what is meant for us
    is not kept."""
    sent = said(
        TextPart(text="Write"),
        DataPart(data={"n": 1}),
        FilePart(raw=base64.b64encode("für dich".encode()).decode(), media_type="text/plain"),
        metadata={"agent": "writer", "cursor": "1-1", "trace": "x"},
        reference_task_ids=("t0",),
    )
    wanted = request_of(sent, "ctx_1", None, [])
    file = {"url": "data:text/plain;base64,ZsO8ciBkaWNo", "mediaType": "text/plain"}
    last = {"role": "user", "content": "Write\nfür dich", "attachments": [file]}
    assert (wanted.task, wanted.agent) == ("Write\nfür dich", "writer")
    assert wanted.params == {"messages": [last], "n": 1}
    assert wanted.conversation_id == "ctx_1"
    assert wanted.metadata == {"trace": "x", "a2a": {"messageId": "m", "referenceTaskIds": ["t0"]}}


def test_a_message_with_a_budget() -> None:
    """In the metadata of request or message, if it is an object of limits; else it is somebody else's and kept."""
    wanted = request_of(said(TextPart(text="x"), metadata={"budget": {"seconds": 60}}), "c", None, [])
    assert wanted.budget == BudgetRequest(seconds=60)
    assert wanted.metadata == {"a2a": {"messageId": "m"}}
    wanted = request_of(said(TextPart(text="x"), metadata={"budget": "low"}), "c", None, [])
    assert (wanted.budget, (wanted.metadata or {})["budget"]) == (None, "low")


def test_who_is_to_do_it() -> None:
    """The path names the agent, or the request, or the message; by its name or its skill's id."""
    message = {"skillId": "of-message"}
    assert request_of(said(TextPart(text="x"), metadata={"agent": "a"}), "c", "path", []).agent == "path"
    assert request_of(said(TextPart(text="x"), metadata={"skillId": "s"}), "c", None, []).agent == "s"
    in_message = Send(message=Message(role="user", message_id="m", parts=(TextPart(text="x"),), metadata=message))
    assert request_of(in_message, "c", None, []).agent == "of-message"
    assert request_of(said(TextPart(text="x")), "c", None, []).agent is None


def test_the_conversation_before() -> None:
    """A message in a known context brings what was said there, itself last."""
    wanted = request_of(said(TextPart(text="more")), "c", None, [Turn("user", "one"), Turn("assistant", "two")])
    assert (wanted.params or {})["messages"] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "more"},
    ]


def test_data_alone() -> None:
    """A message without text is its data."""
    assert json.loads(request_of(said(DataPart(data={"n": 1})), "c", None, []).task) == {"n": 1}


def test_contexts() -> None:
    """A context is the client's, whatever its name is, or a new one each time."""
    assert context_of(said(TextPart(text="x"), context_id="c-1").message) == "c-1"
    assert context_of(said(TextPart(text="x"), context_id="team/a b@x.y:1").message) == "team/a b@x.y:1"
    assert context_of(said(TextPart(text="x"), context_id="x" * 8192).message) == "x" * 8192
    assert context_of(text("x")) != context_of(text("x"))
    for wrong in ("", "x" * 8193):
        assert refusal(context_of, said(TextPart(text="x"), context_id=wrong).message) is a2a_errors.INVALID_PARAMS


def test_conversations_of_contexts() -> None:
    """A conversation has the context's id where that can be one, else a digest of it, beside which the id is kept."""
    plain = request_of(said(TextPart(text="x")), "c-1", None, [])
    assert (plain.conversation_id, plain.metadata) == ("c-1", {"a2a": {"messageId": "m"}})
    odd = request_of(said(TextPart(text="x")), "team/1", None, [])
    assert EXECUTION_ID.match(odd.conversation_id or "")
    assert odd.conversation_id == conversation_of("team/1") != conversation_of("team/2")
    assert odd.metadata == {"a2a": {"messageId": "m", "contextId": "team/1"}}


@pytest.mark.parametrize(
    "part",
    [
        FilePart(raw="?", media_type="text/plain"),
        FilePart(raw="/w==", media_type="text/plain"),
        DataPart(data=[1]),
    ],
)
def test_parts_that_no_agent_takes(part: Any) -> None:
    """Agents take text, objects and files: what is none of these is refused, never left out."""
    assert refusal(request_of, said(TextPart(text="x"), part), "c", None, []) is a2a_errors.INVALID_PARAMS


def test_a_message_of_nothing() -> None:
    """A message starts nothing that says nothing, or too much; data alone says something."""
    with pytest.raises(msgspec.ValidationError):
        request_of(said(TextPart(text="x" * 70_000)), "c", None, [])
    for nothing in (TextPart(text=""), DataPart(data={})):
        with pytest.raises(A2AError):
            request_of(said(nothing), "c", None, [])
    assert request_of(said(DataPart(data={"n": 1})), "c", None, []).task == '{"n":1}'


# --- an answer -------------------------------------------------------------------------------------------------------

APPROVAL = InputRequired(input_id="i", prompt="?", kind="approval")
CHOICE = InputRequired(input_id="i", prompt="?", kind="choice", options=["Red", "Dark red", "red", "Blue"])
WORDS = InputRequired(input_id="i", prompt="?", kind="text")
FORM = InputRequired(input_id="i", prompt="?", kind="form")


@pytest.mark.parametrize(
    ("question", "parts", "value"),
    [
        (APPROVAL, [TextPart(text="Yes!")], True),
        (APPROVAL, [TextPart(text=" ok ")], True),
        (APPROVAL, [TextPart(text="No.")], False),
        (APPROVAL, [DataPart(data=True)], True),
        (APPROVAL, [DataPart(data={"value": False})], False),
        (APPROVAL, [TextPart(text="no"), DataPart(data={"value": True, "inputId": "i"})], True),
        (CHOICE, [TextPart(text="blue")], "Blue"),
        (CHOICE, [TextPart(text="Red")], "Red"),
        (CHOICE, [TextPart(text="red")], "red"),
        (CHOICE, [DataPart(data={"value": "Blue"})], "Blue"),
        (WORDS, [TextPart(text=" as it is ")], " as it is "),
        (WORDS, [DataPart(data={"value": "x"})], "x"),
        (FORM, [DataPart(data={"a": 1})], {"a": 1}),
        (FORM, [DataPart(data={"value": {"a": 1}})], {"a": 1}),
        (FORM, [DataPart(data={"value": 1})], {"value": 1}),
        (FORM, [TextPart(text='{"a": 1}')], {"a": 1}),
    ],
)
def test_answers(question: InputRequired, parts: list[Any], value: Any) -> None:
    """What people write or programs send comes to the value that the question wants."""
    answer = answer_of(question, said(*parts).message)
    assert answer == value
    assert type(answer) is type(value)


@pytest.mark.parametrize(
    ("question", "part"),
    [
        (APPROVAL, TextPart(text="perhaps")),
        (APPROVAL, DataPart(data={"value": 1})),
        (CHOICE, TextPart(text="green")),
        (CHOICE, TextPart(text="RED")),
        (WORDS, DataPart(data={"a": 1})),
        (FORM, TextPart(text="no object")),
        (FORM, TextPart(text="[1]")),
    ],
)
def test_what_is_no_answer(question: InputRequired, part: Any) -> None:
    """What does not fit is refused with what would, and which question it is about."""
    with pytest.raises(A2AError) as refused:
        answer_of(question, said(part).message)
    assert refused.value.kind is a2a_errors.INVALID_PARAMS
    assert refused.value.data["inputId"] == "i"
    assert refused.value.data["kind"] == question.kind
    assert ("options" in refused.value.data) is (question.kind == "choice")


def test_which_question() -> None:
    """An answer is for the question that it names, or the oldest that is open."""
    both = [APPROVAL, InputRequired(input_id="j", prompt="?", kind="text")]
    assert question_for(both, said(TextPart(text="x"))).input_id == "i"
    assert question_for(both, said(TextPart(text="x"), metadata={"inputId": "j"})).input_id == "j"
    other = said(TextPart(text="x"), metadata={"inputId": "k"})
    assert refusal(question_for, both, other) is a2a_errors.INVALID_PARAMS
    assert question_for([], said(TextPart(text="x"))) is None


def test_a_message_to_the_agent_at_work() -> None:
    """Its text, its data and its files; an id that is none of ours becomes a digest, the same each time."""
    file = FilePart(url="https://files.example.com/a.pdf", media_type="application/pdf", filename="a.pdf")
    given = said(TextPart(text="look"), DataPart(data={"n": 1}), file, metadata={"mode": "interrupt"})
    one = said_of(given)
    attachment = {"url": "https://files.example.com/a.pdf", "mediaType": "application/pdf", "name": "a.pdf"}
    assert (one.text, one.data, one.mode) == ("look", {"n": 1, "attachments": [attachment]}, "interrupt")
    assert one.message_id == message_id_of(given.message.message_id)
    assert said_of(said(TextPart(text="look"), metadata={"mode": "fast"})).mode == "queue"
    assert message_id_of("a-uuid") == "a-uuid"
    assert message_id_of("ä b") == message_id_of("ä b") != message_id_of("ä c")
    with pytest.raises(msgspec.ValidationError):
        said_of(said(TextPart(text="")))


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.UnknownExecution("e"), a2a_errors.TASK_NOT_FOUND),
        (errors.ExecutionEnded("e", "failed"), a2a_errors.UNSUPPORTED),
        (errors.AlreadyAnswered("e", "{}"), a2a_errors.UNSUPPORTED),
        (errors.UnknownInput("e"), a2a_errors.INVALID_PARAMS),
        (errors.PayloadTooLarge(2, 1), a2a_errors.INVALID_PARAMS),
        (errors.InvalidEvent("x"), a2a_errors.INVALID_PARAMS),
        (Problem(422, "unknown-agent", "no such agent", known=["a"]), a2a_errors.INVALID_PARAMS),
        (Problem(409, "input-expired", "too late"), a2a_errors.UNSUPPORTED),
        (Problem(401, "unauthorized"), None),
        (Problem(429, "rate-limited"), None),
        (Problem(503, "unavailable"), None),
        (RuntimeError("ours"), None),
    ],
)
def test_what_errors_become(error: Exception, kind: a2a_errors.Kind | None) -> None:
    """What the protocol has a word for is said in it; the rest is the transport's."""
    known = to_a2a(error)
    assert (known and known.kind) is kind


def test_errors_with_any_bytes() -> None:
    """What a client sent is told back as far as any text can have it: headers may hold any bytes."""
    error = a2a_errors.A2AError(
        a2a_errors.INVALID_PARAMS, "it", cursor=b"\x84-\xc3\xa9".decode(errors="surrogateescape")
    )
    for body in (error.rpc(typed=True), error.rpc(typed=False), error.rest(), error.old_rest()):
        assert b'"cursor":"?-\\u00e9"' in encode(body)


def test_typed_errors() -> None:
    """Since 1.0 an error's data is a list of typed objects; before, what it was. Over REST it is a status."""
    error = A2AError(a2a_errors.TASK_NOT_FOUND, "gone", task="t")
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "TASK_NOT_FOUND",
        "domain": "a2a-protocol.org",
        "metadata": {"task": "t"},
    }
    assert error.rpc(typed=True) == {"code": -32001, "message": "Task not found: gone", "data": [info]}
    assert error.rpc(typed=False) == {"code": -32001, "message": "Task not found: gone", "data": {"task": "t"}}
    status = {"code": 404, "status": "NOT_FOUND", "message": "Task not found: gone", "details": [info]}
    assert error.rest() == {"error": status}
    assert (error.old_rest()["code"], error.old_rest()["type"]) == (-32001, "TaskNotFoundError")
    assert json.loads(encode(error.rest()))
