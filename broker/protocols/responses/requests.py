"""What `POST /v1/responses` is given: the execution that it starts, or the answers that it brings. Pure.

Members that are not known are ignored, as OpenAI's own service does with what a model cannot use. `params` and `budget`
are those of an execute request (`extra_body` in the clients).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from broker.base.problem import Problem
from broker.executions.attachments import Found, Taken, Unfit, collect, held, label_of, linked, referred, size
from broker.executions.conversations import MAX_TURNS, Turn, given, room_for_files
from broker.executions.message_types import MessageRequest, message_of
from broker.executions.types import BudgetRequest, ExecuteRequest, Name
from broker.protocols.question_ids import QuestionId
from broker.protocols.responses.ids import ResponseId
from broker.protocols.responses.response import ABOUT, ECHOED, Json
from emitter.wire.limits import MAX_CONVERSATION_BYTES

MAX_TOOLS = 128
MAX_ABOUT_BYTES = 128 * 1024
"""Of tools and instructions together, which many frames repeat."""
MAX_METADATA = 48
ANSWERS = ("function_call_output", "mcp_approval_response")
TEXTS = ("input_text", "output_text", "text", "refusal")
DECLINED = {"declined": True}
Key = Annotated[str, Meta(max_length=64)]
Value = Annotated[str, Meta(max_length=512)]


class Part(msgspec.Struct, frozen=True):
    """A part of a message's content."""

    type: str = ""
    text: Any = None
    refusal: Any = None
    image_url: Any = None
    file_url: Any = None
    file_data: Any = None
    file_id: Any = None
    filename: Any = None

    def file(self) -> Taken:
        """Raises `Unfit`."""
        if self.type not in ("input_image", "input_file"):
            raise Unfit(f"an agent is not given parts of type {self.type[:64]!r}", ".type")
        if self.file_id is not None:
            return referred({"": self.file_id}, None, self.filename, field=".file_id")
        if self.type == "input_image":
            url = self.image_url.get("url") if isinstance(self.image_url, dict) else self.image_url
            return linked(url, None if str(url)[:5] == "data:" else "image/*", self.filename, field=".image_url")
        if self.file_url is not None:
            return linked(self.file_url, None, self.filename, field=".file_url")
        if isinstance(self.file_data, str) and self.file_data[:5] == "data:":
            return linked(self.file_data, None, self.filename, field=".file_data")
        return held(self.file_data, None, self.filename, field=".file_data")


class Item(msgspec.Struct, frozen=True):
    """An input item of any type, with the members that matter here. Clients send back what they were given."""

    type: str = "message"
    role: str = "user"
    content: Any = ""
    call_id: Any = None
    output: Any = None
    approval_request_id: Any = None
    approve: Any = None

    @property
    def is_ours(self) -> bool:
        """Whether it came from an agent, and is sent back."""
        return self.role == "assistant" if self.type == "message" else self.type not in ANSWERS

    @property
    def is_instruction(self) -> bool:
        return self.type == "message" and self.role in ("system", "developer")

    def parts(self, path: str) -> list[Part]:
        """Raises `Problem` 422."""
        if isinstance(self.content, str):
            return [Part("input_text", self.content)]
        try:
            return msgspec.convert(self.content or [], list[Part])
        except msgspec.ValidationError as error:
            raise Problem(422, "invalid", f"{path.rpartition('.')[2]}: {error}", path=path) from error

    def said(self, path: str, most: int | None) -> Said:
        """Its words and files; of what is asked now the files hold `most` bytes. `path` is that of its content. Raises
        `Problem` as `collect`."""
        parts = self.parts(path)
        words = [part.text if part.type != "refusal" else part.refusal for part in parts if part.type in TEXTS]
        more = [(place, part) for place, part in enumerate(parts) if part.type not in TEXTS]
        text = "\n".join(word for word in words if isinstance(word, str))
        room = None if most is None else room_for_files(text, [], most)
        return Said(text, collect(more, Part.file, path, room))


class Said(NamedTuple):
    text: str
    files: list[Found]

    def turn(self, role: Any) -> Turn:
        return Turn(role, self.text, [found.attachment for found in self.files])

    @property
    def is_empty(self) -> bool:
        return not self.text.strip() and not self.files

    def words(self, path: str) -> str:
        """As an answer. Raises `Problem` 422."""
        if self.files:
            raise Problem(422, "invalid", "an answer is text, without files", path=path)
        return self.text


class Answer(NamedTuple):
    """`value` of a call's output is text. `path`: where it stands."""

    id: QuestionId
    value: Any
    path: str

    @property
    def is_declined(self) -> bool:
        try:
            return isinstance(self.value, str) and msgspec.json.decode(self.value) == DECLINED
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return False


class CreateResponse(msgspec.Struct, frozen=True, kw_only=True):
    """`model` is the agent's name. Sampling parameters are for the agent to heed."""

    model: Name | None = None
    input: str | list[Item] = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: dict[Key, Value] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Any = None
    truncation: Any = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    temperature: float | None = None
    reasoning: dict[str, Any] | None = None
    user: Value | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    service_tier: Value | None = None
    safety_identifier: Value | None = None
    prompt_cache_key: Value | None = None
    conversation: Any = None
    params: dict[str, Any] | None = None
    budget: BudgetRequest | None = None

    def __post_init__(self) -> None:
        if self.conversation is not None:
            raise ValueError("conversations are named by previous_response_id - at `$.conversation`")
        if len(self.metadata or {}) > MAX_METADATA or ABOUT in (self.metadata or {}):
            raise ValueError(f"at most {MAX_METADATA} members, and none named {ABOUT!r} - at `$.metadata`")
        if size(self.tools) + size(self.instructions) > MAX_ABOUT_BYTES:
            raise ValueError(f"tools and instructions have at most {MAX_ABOUT_BYTES} bytes - at `$.tools`")

    @property
    def items(self) -> list[Item]:
        return [Item(content=self.input)] if isinstance(self.input, str) else self.input

    @property
    def new(self) -> list[tuple[str, Item]]:
        """The items after the last one that an agent made, each with its path."""
        items = self.items
        first = next((index + 1 for index in reversed(range(len(items))) if items[index].is_ours), 0)
        places = [(self.path(index), items[index]) for index in range(first, len(items))]
        return [(path, item) for path, item in places if not item.is_instruction]

    def path(self, index: int) -> str:
        return "$.input" if isinstance(self.input, str) else f"$.input[{index}]"

    @property
    def echo(self) -> Json:
        return {name: value for name in ECHOED if (value := getattr(self, name)) is not None}

    @property
    def previous(self) -> ResponseId | None:
        """Raises `Problem` 400."""
        if self.previous_response_id is None:
            return None
        if (found := ResponseId.parse(self.previous_response_id)) is None:
            raise previous_not_found()
        return found

    def answers(self) -> list[Answer]:
        """To what an agent has asked; none where a message begins something new. Raises `Problem` 422."""
        new = self.new
        answers = [_answer(path, item) for path, item in new if item.type in ANSWERS]
        if answers and len(answers) < len(new):
            path = next(path for path, item in new if item.type not in ANSWERS)
            raise Problem(422, "invalid", "answers come without messages: send those after them", path=path)
        if any(answer.id.execution_id != answers[0].id.execution_id for answer in answers):
            raise Problem(422, "invalid", "the answers are to several agents at work", path=answers[-1].path)
        return answers

    def all_instructions(self) -> str | None:
        """Those of the request, and what its input has of the system or developer."""
        told = [(self.path(index) + ".content", item) for index, item in enumerate(self.items) if item.is_instruction]
        said = [item.said(path, None).text for path, item in told]
        return "\n\n".join(filter(None, [self.instructions, *said])) or None


def previous_not_found() -> Problem:
    return Problem(400, "previous-response-not-found", "there is no such response", path="$.previous_response_id")


def _answer(path: str, item: Item) -> Answer:
    """Raises `Problem` 422."""
    if item.type == "mcp_approval_response":
        id_, field, value = item.approval_request_id, "approval_request_id", item.approve
        if not isinstance(value, bool):
            raise Problem(422, "invalid", "approve is true or false", path=path + ".approve")
    else:
        id_, field = item.call_id, "call_id"
        value = _output(item, path + ".output")
    if (found := QuestionId.parse(id_)) is None:
        raise Problem(422, "invalid", "no agent has asked under this id", path=f"{path}.{field}")
    return Answer(found, value, path)


def _output(item: Item, path: str) -> str:
    """Raises `Problem` 422."""
    if not isinstance(item.output, str | list):
        raise Problem(422, "invalid", "output is text, or parts of text", path=path)
    return Item(content=item.output).said(path, None).words(path)


def turns(asked: CreateResponse, max_bytes: int) -> tuple[list[Turn], Said]:
    """What the input has before the user's last message, and that. Raises `Problem` 413, 422."""
    messages = [
        (asked.path(index), item)
        for index, item in enumerate(asked.items)
        if item.type == "message" and item.role in ("user", "assistant")
    ]
    if not messages or messages[-1][1].role != "user":
        raise Problem(422, "invalid", "the input ends with what the user says", path="$.input")
    before: list[Turn] = []
    for path, item in messages[:-1][-MAX_TURNS:]:
        said = item.said(path + ".content", None)
        before += [] if said.is_empty else [said.turn(item.role)]
    path, item = messages[-1]
    said = item.said(path + ".content", max_bytes)
    if said.is_empty:
        raise Problem(422, "invalid", "the user's last message says nothing", path=path)
    return before, said


def request_of(
    asked: CreateResponse,
    before: Sequence[Turn],
    *,
    execution_id: str,
    previous: ResponseId | None = None,
    conversation_id: str | None = None,
    max_bytes: int = MAX_CONVERSATION_BYTES,
    omitted: int = 0,
) -> ExecuteRequest:
    """The execution that answers; `before` is what was said in earlier responses. The agent has `params.messages` (the
    conversation), `instructions` and `tools` where there are any, and `responses` (what `ECHOED` has of the request).
    Raises `msgspec.ValidationError`, `Problem` 413, 422."""
    sent, said = turns(asked, max_bytes)
    own = {"instructions": asked.all_instructions(), "tools": asked.tools, "responses": asked.echo or None}
    about = {"previous": None if previous is None else str(previous), "echo": asked.echo or None}
    wanted = {
        "task": said.text if said.text.strip() else label_of(said.files),
        "agent": asked.model,
        "params": {
            **(asked.params or {}),
            **{name: value for name, value in own.items() if value is not None},
            **given([*before, *sent], said.turn("user"), max_bytes, omitted),
        },
        "metadata": {**(asked.metadata or {}), ABOUT: {name: value for name, value in about.items() if value}},
        "executionId": execution_id,
        "conversationId": conversation_id or execution_id,
    }
    return msgspec.structs.replace(msgspec.convert(wanted, ExecuteRequest), budget=asked.budget)


def said_of(asked: CreateResponse, id_: str, *, max_bytes: int = MAX_CONVERSATION_BYTES) -> MessageRequest:
    """The new message as one to the agent at work. Raises `msgspec.ValidationError`, `Problem` 413, 422."""
    _, said = turns(asked, max_bytes)
    return message_of(id_, said.text, {}, [found.attachment for found in said.files])
