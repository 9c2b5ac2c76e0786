"""Files that come with a message: by every protocol they reach the agent in one shape, or are refused with words."""

from __future__ import annotations

import base64
import random
from typing import Any

import msgspec
import pytest

from broker.base.problem import Problem
from broker.executions.attachments import Attachment
from broker.executions.conversations import Turn, given
from broker.executions.types import ExecuteRequest
from broker.protocols.a2a.errors import A2AError
from broker.protocols.a2a.inbound import answer_of
from broker.protocols.a2a.inbound import request_of as a2a_request
from broker.protocols.a2a.model import DataPart, FilePart, Message, Send, Status, Task, TextPart
from broker.protocols.a2a.v03 import V03
from broker.protocols.a2a.v03_rest import V03Rest
from broker.protocols.a2a.v10 import V10
from broker.protocols.ag_ui.requests import RunAgentInput
from broker.protocols.ag_ui.requests import request_of as ag_ui_request
from broker.protocols.ai_sdk.chat import ChatRequest, Part, question, turns_before
from broker.protocols.ai_sdk.chat import request_of as ai_sdk_request
from emitter.events import InputRequired
from emitter.store.append import LogLimits
from emitter.store.lifecycle import Start, check_size
from emitter.wire.redact import Redactor

PNG = base64.b64encode(b"\x89PNG\xff\xfe").decode()
HELD = f"data:image/png;base64,{PNG}"
LINK = "https://files.example.com/a.pdf"


def chat(*messages: dict[str, Any], **fields: Any) -> ExecuteRequest:
    """What `useChat` asks for with these messages."""
    body = {"id": "c", "messages": list(messages), **fields}
    asked = msgspec.json.decode(msgspec.json.encode(body), type=ChatRequest)
    return ai_sdk_request(asked, "a", turns_before(asked, question(asked)) or [])


def user(*parts: Any, id_: str = "u9") -> dict[str, Any]:
    return {"id": id_, "role": "user", "parts": list(parts)}


def run(*contents: Any, **fields: Any) -> ExecuteRequest:
    """What an AG-UI client asks for with messages of these contents."""
    messages = [{"id": f"u{number}", "role": "user", "content": content} for number, content in enumerate(contents)]
    body = {"threadId": "t", "runId": "r", "messages": messages, **fields}
    return ag_ui_request(msgspec.json.decode(msgspec.json.encode(body), type=RunAgentInput), "a")


def sent(send: Send, before: tuple[Turn, ...] = ()) -> ExecuteRequest:
    return a2a_request(send, "ctx", "a", before)


def told(request: ExecuteRequest) -> list[dict[str, Any]]:
    """The conversation that the agent has."""
    return list((request.params or {})["messages"])


def refused(call: Any, *arguments: Any) -> tuple[int, str]:
    with pytest.raises(Problem) as problem:
        call(*arguments)
    return problem.value.status, problem.value.extensions["path"]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


# --- the same by every protocol --------------------------------------------------------------------------------------

LINKED = {"url": LINK, "mediaType": "application/pdf", "name": "a.pdf"}
BY_VALUE = {"url": HELD, "mediaType": "image/png", "name": "a.png"}


def by_ai_sdk() -> ExecuteRequest:
    link = {"type": "file", "url": LINK, "mediaType": "application/pdf", "filename": "a.pdf"}
    value = {"type": "file", "url": HELD, "mediaType": "image/png", "filename": "a.png"}
    return chat(user(text("look"), link, value))


def by_ag_ui() -> ExecuteRequest:
    link = {"type": "url", "value": LINK, "mimeType": "application/pdf"}
    value = {"type": "data", "value": PNG, "mimeType": "image/png"}
    parts = [
        {"type": "document", "source": link, "metadata": {"filename": "a.pdf"}},
        {"type": "image", "source": value, "metadata": {"filename": "a.png"}},
    ]
    return run([text("look"), *parts])


def by_old_ag_ui() -> ExecuteRequest:
    link = {"type": "binary", "mimeType": "application/pdf", "url": LINK, "filename": "a.pdf"}
    value = {"type": "binary", "mimeType": "image/png", "data": PNG, "filename": "a.png"}
    return run([text("look"), link, value])


def by_a2a() -> ExecuteRequest:
    parts = [
        {"text": "look"},
        {"url": LINK, "mediaType": "application/pdf", "filename": "a.pdf"},
        {"raw": PNG, "mediaType": "image/png", "filename": "a.png"},
    ]
    return sent(V10().read_send({"message": {"messageId": "m", "role": "ROLE_USER", "parts": parts}}))


def by_old_a2a() -> ExecuteRequest:
    parts = [
        {"kind": "text", "text": "look"},
        {"kind": "file", "file": {"uri": LINK, "mimeType": "application/pdf", "name": "a.pdf"}},
        {"kind": "file", "file": {"bytes": PNG, "mimeType": "image/png", "name": "a.png"}},
    ]
    return sent(V03().read_send({"message": {"messageId": "m", "role": "user", "parts": parts}}))


def by_old_a2a_rest() -> ExecuteRequest:
    parts = [
        {"text": "look"},
        {"file": {"file_with_uri": LINK, "mime_type": "application/pdf", "name": "a.pdf"}},
        {"file": {"file_with_bytes": PNG, "mime_type": "image/png", "name": "a.png"}},
    ]
    return sent(V03Rest().read_send({"request": {"messageId": "m", "role": "ROLE_USER", "content": parts}}))


@pytest.mark.parametrize("by", [by_ai_sdk, by_ag_ui, by_old_ag_ui, by_a2a, by_old_a2a, by_old_a2a_rest])
def test_one_shape(by: Any) -> None:
    """Whatever protocol a message comes by, its agent has the same: the words, and beside them each file."""
    request = by()
    assert request.task == "look"
    assert told(request) == [{"role": "user", "content": "look", "attachments": [LINKED, BY_VALUE]}]


# --- AI SDK: every type of part --------------------------------------------------------------------------------------

REFERENCE = {"type": "file", "mediaType": "image/png", "url": "", "providerReference": {"openai": "file-1"}}
NOTE = {"type": "data-note", "id": "n1", "data": {"n": 1}}


@pytest.mark.parametrize(
    ("part", "turn"),
    [
        (text("more"), {"content": "look\nmore"}),
        ({"type": "file", "url": LINK, "mediaType": "image"}, {"attachments": [{"url": LINK, "mediaType": "image"}]}),
        ({"type": "file", "url": HELD}, {"attachments": [{"url": HELD, "mediaType": "image/png"}]}),
        (REFERENCE, {"attachments": [{"references": {"openai": "file-1"}, "mediaType": "image/png"}]}),
        (NOTE, {"data": [NOTE]}),
        ({"type": "data-odd", "text": "no data"}, {"data": [{"type": "data-odd"}]}),
        ({"type": "step-start"}, {}),
    ],
)
def test_parts_of_a_users_message(part: Any, turn: dict[str, Any]) -> None:
    """Text, files and the app's own data reach the agent."""
    assert told(chat(user(text("look"), part))) == [{"role": "user", "content": "look", **turn}]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"type": "file", "mediaType": "image/png"}, ".url"),
        ({"type": "file", "url": 1}, ".url"),
        ({"type": "file", "url": "blob:http://h/1"}, ".url"),
        ({"type": "file", "url": "file:///etc/passwd"}, ".url"),
        ({"type": "file", "url": "gs://bucket/a"}, ".url"),
        ({"type": "file", "url": "https://"}, ".url"),
        ({"type": "file", "url": "https://h/a b"}, ".url"),
        ({"type": "file", "url": "https://h/a\n"}, ".url"),
        ({"type": "file", "url": "data:image/png;base64"}, ".url"),
        ({"type": "file", "url": "data:image/png;base64,A"}, ".url"),
        ({"type": "file", "url": LINK, "providerReference": []}, ".providerReference"),
        ({"type": "file", "url": LINK, "providerReference": {"openai": 1}}, ".providerReference"),
        ({"type": "reasoning", "text": "hm"}, ".type"),
        ({"type": "reasoning-file", "url": HELD, "mediaType": "image/png"}, ".type"),
        ({"type": "source-url", "sourceId": "s", "url": LINK}, ".type"),
        ({"type": "source-document", "sourceId": "s", "mediaType": "a/b", "title": "t"}, ".type"),
        ({"type": "tool-search", "toolCallId": "c", "state": "input-available", "input": {}}, ".type"),
        ({"type": "dynamic-tool", "toolName": "x", "toolCallId": "c", "state": "input-available"}, ".type"),
        ({"type": "custom", "kind": "openai.x"}, ".type"),
        ({"type": "steering-message", "id": "s", "parts": []}, ".type"),
        ({"type": "of-a-later-version"}, ".type"),
    ],
)
def test_parts_that_no_agent_is_given(part: Any, field: str) -> None:
    """What of a user's message cannot reach the agent is refused, and the refusal names where it stands."""
    assert refused(chat, user(text("before"), id_="u0"), user(text("look"), part)) == (
        422,
        "$.messages[1].parts[1]" + field,
    )
    body = {"id": "c", "message": user(text("look"), part)}
    alone = msgspec.json.decode(msgspec.json.encode(body), type=ChatRequest)
    assert refused(ai_sdk_request, alone, "a", []) == (422, "$.message.parts[1]" + field)


def test_what_an_agent_said_before() -> None:
    """Of an earlier answer the agent has the text and the files; of how it came about nothing, as it is in its log."""
    steps = [
        {"type": "reasoning", "text": "hm"},
        {"type": "source-url", "sourceId": "s", "url": LINK},
        {"type": "dynamic-tool", "toolName": "x", "toolCallId": "c", "state": "output-available", "output": 1},
        {"type": "data-plan", "data": {}},
        {"type": "file", "url": "https://h/void", "mediaType": "image/png"},
        {"type": "data-superseded", "data": {}},
        {"type": "reasoning-file", "url": HELD, "mediaType": "image/png"},
        {"type": "file", "url": LINK, "mediaType": "application/pdf", "filename": "a.pdf"},
        text("Here."),
    ]
    request = chat(user(text("one"), id_="u1"), {"id": "a1", "role": "assistant", "parts": steps}, user(text("two")))
    assert told(request)[1] == {"role": "assistant", "content": "Here.", "attachments": [LINKED]}


def test_a_message_sent_into_an_answer() -> None:
    """What a user sent into a running answer stands where it was said, with its files."""
    file = {"type": "file", "url": HELD, "mediaType": "image/png", "filename": "a.png"}
    steering = {"type": "steering-message", "id": "s", "parts": [text("rather this"), file]}
    odd = {"type": "steering-message", "id": "s", "parts": 1}
    answer = {"id": "a1", "role": "assistant", "parts": [text("So"), steering, odd, text("it is.")]}
    assert told(chat(user(text("one"), id_="u1"), answer, user(text("two"))))[1:-1] == [
        {"role": "assistant", "content": "So"},
        {"role": "user", "content": "rather this", "attachments": [BY_VALUE]},
        {"role": "assistant", "content": "it is."},
    ]


def test_what_was_said_before_with_files() -> None:
    """Files of earlier messages come with those; one that cannot be given is marked, and refuses nothing."""
    file = {"type": "file", "url": HELD, "mediaType": "image/png", "filename": "a.png"}
    odd = {"type": "file", "url": "blob:x"}
    one, two, _ = told(chat(user(file, NOTE, id_="u1"), user(text("see"), odd, id_="u2"), user(text("now"))))
    assert one == {"role": "user", "content": "", "attachments": [BY_VALUE], "data": [NOTE]}
    assert two["attachments"] == [{"omitted": "a file's URL is of http, https or data"}]


def test_a_file_without_words() -> None:
    """A message of files alone is a task that has their names, or what they are."""
    named = {"type": "file", "url": HELD, "mediaType": "image/png", "filename": "a.png"}
    request = chat(user(named, {"type": "file", "url": LINK, "mediaType": "application/pdf"}))
    assert (request.task, told(request)[0]["content"]) == ("a.png, application/pdf", "")
    assert run([{"type": "image", "source": {"type": "url", "value": LINK}}]).task == "attachment"
    assert sent(Send(message=Message(role="user", message_id="m", parts=(FilePart(raw=PNG),)))).task == (
        "application/octet-stream"
    )


def test_other_files_are_another_question() -> None:
    """A message with the same words and other files is another execution; the same files are the same."""
    file = {"type": "file", "url": HELD, "mediaType": "image/png"}
    ids = [chat(user(text("t"), *more)).execution_id for more in ([], [file], [{**file, "url": LINK}], [NOTE])]
    assert len(set(ids)) == 4
    assert chat(user(text("t"), file)).execution_id == ids[1]


# --- AG-UI -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["image", "audio", "video", "document"])
@pytest.mark.parametrize(
    ("source", "file"),
    [
        ({"type": "url", "value": LINK, "mimeType": "a/b"}, {"url": LINK, "mediaType": "a/b"}),
        ({"type": "url", "value": LINK}, {"url": LINK}),
        ({"type": "data", "value": PNG, "mimeType": "a/b"}, {"url": f"data:a/b;base64,{PNG}", "mediaType": "a/b"}),
        ({"type": "data", "value": PNG, "mimeType": ",x"}, {"url": f"data:application/octet-stream;base64,{PNG}",
                                                            "mediaType": ",x"}),
        ({"type": "file", "value": "file-1", "provider": "openai"}, {"references": {"openai": "file-1"}}),
        ({"type": "file", "value": "file-1"}, {"references": {"": "file-1"}}),
    ],
)  # fmt: skip
def test_parts_of_an_ag_ui_message(type_: str, source: Any, file: Any) -> None:
    """Media parts of every type and source reach the agent."""
    assert told(run([text("look"), {"type": type_, "source": source}]))[0]["attachments"] == [file]


def test_a_handle_of_an_old_part() -> None:
    """An old part's id is a handle of nobody knows whom."""
    part = {"type": "binary", "mimeType": "a/b", "id": "f1", "filename": "f"}
    assert told(run([part]))[0]["attachments"] == [{"mediaType": "a/b", "name": "f", "references": {"": "f1"}}]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"type": "image"}, ".source"),
        ({"type": "image", "source": {}}, ".source.type"),
        ({"type": "image", "source": {"type": "url", "value": "ftp://h/a"}}, ".source.value"),
        ({"type": "image", "source": {"type": "url"}}, ".source.value"),
        ({"type": "image", "source": {"type": "data", "value": "?", "mimeType": "a/b"}}, ".source.value"),
        ({"type": "image", "source": {"type": "data", "value": 1, "mimeType": "a/b"}}, ".source.value"),
        ({"type": "image", "source": {"type": "file", "value": ""}}, ".source.value"),
        ({"type": "image", "source": {"type": "file", "value": "f", "provider": [1]}}, ".source.provider"),
        ({"type": "binary", "mimeType": "a/b"}, ".id"),
        ({"type": "binary", "url": "blob:x"}, ".url"),
        ({"type": "binary", "data": "?"}, ".data"),
        ({"type": "text"}, ".type"),
        ({"type": "hologram"}, ".type"),
        ("words", ".type"),
        (None, ".type"),
    ],
)
def test_ag_ui_parts_that_no_agent_is_given(part: Any, field: str) -> None:
    """What of a user's message cannot reach the agent is refused; in an earlier message it is marked, but for bytes:
    those were looked at when they were asked."""
    assert refused(run, "before", [text("look"), part]) == (422, "$.messages[1].content[1]" + field)
    if "?" in str(part):
        return
    assert [*told(run([text("look"), part], "now"))[0]["attachments"][0]] == ["omitted"]


def test_what_was_said_after_the_question() -> None:
    """What follows the user's message stays behind it, with the files of both."""
    image = {"type": "image", "source": {"type": "url", "value": LINK}}
    messages = [
        {"id": "u", "role": "user", "content": [text("look"), image]},
        {"id": "a", "role": "assistant", "content": "one moment"},
    ]
    assert told(run(messages=messages)) == [
        {"role": "user", "content": "look", "attachments": [{"url": LINK}]},
        {"role": "assistant", "content": "one moment"},
    ]


# --- A2A -------------------------------------------------------------------------------------------------------------


def parts(*given: Any) -> Send:
    return Send(message=Message(role="user", message_id="m", parts=given))


def test_files_beside_data() -> None:
    """Data stays parameters; files come with the conversation, which data cannot hide."""
    request = sent(parts(DataPart(data={"n": 1}), FilePart(url=LINK)))
    assert request.params == {"n": 1, "messages": [{"role": "user", "content": "", "attachments": [{"url": LINK}]}]}
    with pytest.raises(A2AError, match="messages"):
        sent(parts(DataPart(data={"messages": []}), FilePart(url=LINK)))


def test_bytes_in_other_alphabets() -> None:
    """Bytes may come in base 64 for URLs, and without padding; the agent has them in the common form."""
    (message,) = told(sent(parts(TextPart(text="x"), FilePart(raw="_-8", media_type="image/png"))))
    assert message["attachments"][0]["url"] == "data:image/png;base64,/+8="


@pytest.mark.parametrize(
    ("content", "media_type"),
    [(b"\x89PNG\xff\xfe", "image/png"), (b"for you", "text/plain"), (b"", "a/b"), (b"abc", "")],
)
@pytest.mark.parametrize("is_twice", [False, True])
def test_bytes_that_an_sdk_codes_twice(content: bytes, media_type: str, is_twice: bool) -> None:
    """Over the old REST binding bytes come coded once or twice, as the SDKs have it; the agent has them once."""
    once = base64.b64encode(content)
    coded = base64.b64encode(once) if is_twice else once
    file = {"file": {"fileWithBytes": coded.decode(), "mimeType": media_type, "name": "a"}}
    message = {"messageId": "m", "role": "ROLE_USER", "content": [{"text": "x"}, file]}
    if not content:
        with pytest.raises(A2AError):
            V03Rest().read_send({"request": message})
        return
    part = V03Rest().read_send({"request": message}).message.parts[1]
    assert isinstance(part, FilePart)
    assert part.raw == once.decode()


def test_bytes_over_old_rest() -> None:
    """The old REST binding shows a file's bytes as a data: URL, which its SDKs read alike."""
    said_ = Message(role="user", message_id="m", parts=(FilePart(raw=PNG, media_type="image/png", filename="a.png"),))
    task = Task(task_id="t", context_id="c", status=Status(state="working", at=1), history=(said_,))
    (part,) = V03Rest().task(task)["history"][0]["content"]
    assert part == {"file": {"fileWithUri": HELD, "mimeType": "image/png", "name": "a.png"}}


def test_a_text_with_a_files_name() -> None:
    """A text that has a file's name is a file too."""
    (message,) = told(sent(parts(TextPart(text="# Hi", filename="a.md", media_type="text/markdown"))))
    url = "data:text/markdown;base64," + base64.b64encode(b"# Hi").decode()
    assert (message["content"], message["attachments"]) == (
        "# Hi",
        [{"url": url, "mediaType": "text/markdown", "name": "a.md"}],
    )


@pytest.mark.parametrize("part", [FilePart(), FilePart(url="s3://b/a"), FilePart(raw="?", media_type="image/png")])
def test_a2a_files_that_no_agent_is_given(part: Any) -> None:
    """A file that cannot be given is refused, and the refusal names the part."""
    assert refused(sent, parts(TextPart(text="x"), part)) == (422, "message.parts[1]")


@pytest.mark.parametrize("beside", [TextPart(text="yes"), DataPart(data=True)])
def test_an_answer_takes_no_files(beside: Any) -> None:
    """A file with an answer is refused, whatever the answer is given as."""
    asked = InputRequired(input_id="i", prompt="?", kind="approval")
    for file in (FilePart(url=LINK), FilePart(raw=PNG, media_type="image/png")):
        with pytest.raises(A2AError, match="files are not taken"):
            answer_of(asked, parts(beside, file).message)


# --- how much --------------------------------------------------------------------------------------------------------


def large(bytes_: int, name: str = "big.png") -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(bytes(bytes_)).decode()
    return {"type": "file", "url": url, "mediaType": "image/png", "filename": name}


def test_files_that_are_too_large() -> None:
    """The file with which a message holds more than a conversation may is named, with both numbers."""
    small = {"type": "file", "url": HELD, "mediaType": "image/png"}
    with pytest.raises(Problem) as problem:
        chat(user(text("look"), small, large(250_000)))
    about = problem.value.extensions
    assert (problem.value.status, about["path"]) == (413, "$.messages[0].parts[2].url")
    assert about["size"] > 250_000 * 4 / 3 > 256 * 1024 > about["limit"] > 250 * 1024
    assert str(about["size"]) in problem.value.detail
    assert str(about["limit"]) in problem.value.detail
    data = base64.b64encode(bytes(250_000)).decode()
    source = {"type": "data", "value": data, "mimeType": "a/b"}
    assert refused(run, [text("x"), {"type": "image", "source": source}]) == (
        413,
        "$.messages[0].content[1].source.value",
    )
    assert refused(sent, parts(TextPart(text="x"), FilePart(raw=data))) == (413, "message.parts[1]")


def test_what_is_asked_now_has_room_first() -> None:
    """A file that fits is given, and what was said before gives way: its files first, marked, the newest last."""
    before = [user(text("one"), large(70_000, "1.png"), id_="u1"), user(text("two"), large(70_000, "2.png"), id_="u2")]
    one, two, three = told(chat(*before, user(text("three"), large(70_000, "3.png"))))
    assert one == {
        "role": "user",
        "content": "one",
        "attachments": [{"mediaType": "image/png", "name": "1.png", "omitted": "there is no room for it"}],
    }
    assert [len(turn["attachments"][0]["url"]) for turn in (two, three)] == [93_358, 93_358]


def test_words_give_way_too() -> None:
    """A file that takes nearly all there is leaves out the oldest words, and says how many turns."""
    before = [user(text(str(number) * 9_000), id_=f"u{number}") for number in range(3)]
    request = chat(*before, user(text("now"), large(185_000)))
    assert [turn["content"][:3] for turn in told(request)] == ["222", "now"]
    assert (request.params or {})["messagesOmitted"] == 2


@pytest.mark.parametrize("seed", range(40))
def test_what_is_given_is_always_taken(seed: int) -> None:
    """Whatever a conversation has, what is made of it is within the limit, and says of each file that it is there or
    not."""
    some = random.Random(seed)

    def files() -> list[Attachment]:
        sizes = [some.choice((10, 100, 5_000, 40_000)) for _ in range(some.choice((0, 0, 1, 3, 400)))]
        return [Attachment(url="data:," + "é" * size, name="n" * some.randint(1, 40)) for size in sizes]

    def data() -> list[dict[str, Any]]:
        return [{"type": "data-x", "data": "x" * some.choice((1, 9_000))} for _ in range(some.choice((0, 2, 90)))]

    before = [Turn("user", "é" * some.randint(0, 3_000), files(), data()) for _ in range(some.randint(0, 60))]
    most = some.choice((4_096, 65_536, 262_144))
    params = given(before, Turn("user", "asked"), most)
    check_size(Start(task="t", agent="a", params=params), LogLimits(max_conversation_bytes=most))
    kept = before[len(before) + 1 - len(params["messages"]) :]
    for turn, was in zip(params["messages"], kept, strict=False):
        assert turn["content"] == was.content
        for name, all_ in (("attachments", was.attachments), ("data", was.data)):
            there = turn.get(name, [])
            unnamed = sum(int(each["omitted"].split()[0]) for each in there if each.keys() == {"omitted"})
            assert sum(each.keys() != {"omitted"} for each in there) + unnamed == len(all_)


def test_no_limit() -> None:
    """Where conversations have no limit, files have none."""
    before = [Turn("user", "a", [Attachment(url="data:," + "x" * 900_000)])]
    assert [len(each.get("attachments", [])) for each in given(before, Turn("user", "b"), 0)["messages"]] == [1, 0]


# --- credentials -----------------------------------------------------------------------------------------------------


def test_what_people_are_shown_of_files() -> None:
    """Credentials in a link are taken out of what is shown; a file's own bytes stay as they are."""
    coded = base64.b64encode(random.Random(1).randbytes(100_000)).decode()
    held = f"data:image/png;base64,{coded}"
    params = {"messages": [{"attachments": [{"url": "https://ann:hunter22@h.example/a"}, {"url": held}]}]}
    first, second = Redactor().values(params)["messages"][0]["attachments"]
    assert first == {"url": "https://[redacted]@h.example/a"}
    assert second == {"url": held}
    hidden = {"url": "data:text/plain,password=hunter22secret"}
    assert "hunter22" not in Redactor().values(hidden)["url"]


# --- how many, and what that costs -----------------------------------------------------------------------------------

MANY = 10_000


def test_too_many_parts() -> None:
    """A message has so many files, and so many data parts; one more is refused, and before that marked."""
    link = {"type": "file", "url": LINK}
    assert refused(chat, user(text("x"), *[link] * 65)) == (422, "$.messages[0].parts[65]")
    assert refused(chat, user(text("x"), *[NOTE] * 65)) == (422, "$.messages[0].parts[65]")
    assert refused(run, [text("x"), *[{"type": "binary", "url": LINK}] * 65]) == (422, "$.messages[0].content[65]")
    before, _ = told(chat(user(*[link] * 66, *[NOTE] * 67, id_="u1"), user(text("now"))))
    assert [len(before[name]) for name in ("attachments", "data")] == [65, 65]
    assert before["attachments"][-1] == {"omitted": "2 files: a message has at most 64"}
    assert before["data"][-1] == {"omitted": "3 parts: a message has at most 64"}


def test_long_links() -> None:
    """A link has a bounded length."""
    assert refused(chat, user({"type": "file", "url": "https://h/" + "a" * 8_192})) == (
        422,
        "$.messages[0].parts[0].url",
    )


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_what_many_parts_cost(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a conversation with any number of files only those of the newest turns are looked at."""
    looked = 0

    def counting(part: Part) -> Any:
        nonlocal looked
        looked += 1
        return file(part)

    file = Part.file
    monkeypatch.setattr(Part, "file", counting)
    messages = [{"id": f"{n}", "role": role, "parts": [{"type": "file", "url": "x"}] * 100} for n in range(MANY // 100)]
    steering = {"type": "steering-message", "id": "s", "parts": [{"type": "file", "url": "x"}]}
    messages.insert(0, {"id": "s", "role": "assistant", "parts": [steering] * MANY})
    chat(*messages, user(text("now")))
    assert looked == 50 * 64
