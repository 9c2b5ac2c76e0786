"""What is read of responses: what they were asked, how they stand, and what came into them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from broker.executions.commands import Commands
from broker.executions.conversations import MAX_EXECUTIONS, Past, said_in
from broker.executions.decoding import decode_entry
from broker.executions.types import ExecutionSummary
from broker.protocols.question_ids import QuestionId
from broker.protocols.responses.frames import NONE
from broker.protocols.responses.ids import ResponseId, item_id
from broker.protocols.responses.renderer import Renderer
from broker.protocols.responses.response import ABOUT, About, Json
from emitter import events
from emitter.errors import InvalidEvent, UnknownExecution
from emitter.events import TERMINAL_STATES
from emitter.wire.ids import parse_event_id
from emitter.wire.keys import Owner

WHOLE_BYTES = 4 * 1024 * 1024
"""Of the output of a response that is asked for as it is now."""


class Reader:
    """Raises `UnknownExecution` for what is not there or another owner's, and redis errors. Reads of logs are for the
    caller to bound (`Gateway.folding`)."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def about(self, owner: Owner, id_: ResponseId) -> About:
        summary = await self.summary(owner, id_.execution_id)
        if not has_place(summary, id_):
            raise UnknownExecution(id_.execution_id)
        params = await self._commands.params(owner, id_.execution_id)
        ours = _ours(summary)
        previous, echo = ours.get("previous"), ours.get("echo")
        known_to_us = params if ABOUT in (summary.metadata or {}) else {}  # else they are parameters of the agent's own
        instructions, tools = known_to_us.get("instructions"), known_to_us.get("tools")
        known = {name: value for name, value in (summary.metadata or {}).items() if isinstance(value, str)}
        return About(
            id=id_,
            model=summary.agent or "",
            previous=previous if isinstance(previous, str) else None,
            instructions=instructions if isinstance(instructions, str) else None,
            tools=[tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else [],
            metadata=known,
            echo=echo if isinstance(echo, dict) else {},
        )

    async def summary(self, owner: Owner, execution_id: str) -> ExecutionSummary:
        summary = await self._commands.listing.summary(owner, execution_id)
        if summary is None:
            raise UnknownExecution(execution_id)
        return summary

    async def response(self, owner: Owner, about: About) -> bytes:
        """How it stands now, as JSON; of its output the newest `WHOLE_BYTES`."""
        renderer = Renderer(about, starting_after=NONE, room=WHOLE_BYTES)
        is_gone = True
        async for page in self._commands.pages(owner, about.id.execution_id):
            is_gone = is_gone and not page
            renderer.render(page)
            if renderer.is_over:
                break
        if is_gone and (end := await self._commands.terminal_event(owner, about.id.execution_id)) is not None:
            renderer.render([end])
        return renderer.response()

    # --- what came into it -------------------------------------------------------------------------------------------

    async def before(self, owner: Owner, previous: ResponseId) -> Past:
        """What was said in the chain of responses that ends with this one."""
        chain: list[ExecutionSummary] = []
        id_: ResponseId | None = previous
        while id_ is not None and len(chain) < MAX_EXECUTIONS:
            summary = await self._commands.listing.summary(owner, id_.execution_id)
            if summary is None:
                break  # it has expired
            chain.append(summary)
            before = _ours(summary).get("previous")
            id_ = ResponseId.parse(before) if isinstance(before, str) else None
        return await said_in(self._commands, owner, chain, 0 if id_ is None else 1)

    async def input_items(self, owner: Owner, id_: ResponseId) -> list[Json]:
        """Oldest first."""
        if id_.after:
            return await self._later_items(owner, id_)
        summary = await self.summary(owner, id_.execution_id)
        params = await self._commands.params(owner, id_.execution_id)
        messages = params.get("messages")
        said = [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []
        said = said or [{"role": "user", "content": summary.task or ""}]
        return [_message_item(item_id("in", id_.execution_id, place), each) for place, each in enumerate(said)]

    async def _later_items(self, owner: Owner, id_: ResponseId) -> list[Json]:
        """The answer to the question after which the response begins, or the message."""
        asked: events.InputRequired | None = None
        async for seq, event in self._events(owner, id_.execution_id):
            if isinstance(event, events.UserMessage) and seq == id_.after:
                return [_message_item(item_id("in", id_.execution_id, seq), {"role": "user", "content": event.text})]
            if isinstance(event, events.InputRequired) and seq == id_.after:
                asked = event
            if asked is not None and isinstance(event, events.InputReceived) and event.input_id == asked.input_id:
                return [_answer_item(id_, asked, event, seq)]
        return []

    async def seq_of(self, owner: Owner, execution_id: str, wanted: type[events.Event], **fields: set[str]) -> int:
        """The ordinal of the newest event of this type with one of these values; 0 if the log has none."""
        found = 0
        async for seq, event in self._events(owner, execution_id):
            if isinstance(event, wanted) and all(getattr(event, name) in values for name, values in fields.items()):
                found = seq
        return found

    async def _events(self, owner: Owner, execution_id: str) -> AsyncIterator[tuple[int, events.Event]]:
        async for page in self._commands.pages(owner, execution_id):
            for entry in page:
                if entry.type not in _ABOUT_INPUT:
                    continue
                try:
                    yield entry.seq, decode_entry(entry)[1]
                except InvalidEvent:
                    continue


def has_place(summary: ExecutionSummary, id_: ResponseId) -> bool:
    """Whether its execution has come to where this response begins, and anything follows."""
    last = 0 if summary.cursor is None else parse_event_id(summary.cursor).seq
    return not id_.after or id_.after < last + (summary.state not in TERMINAL_STATES)


_ABOUT_INPUT = frozenset(
    event.type.encode() for event in (events.InputRequired, events.InputReceived, events.UserMessage)
)


def _ours(summary: ExecutionSummary) -> Json:
    """What the execution's metadata has of the response that it is; nothing if it was started in another way."""
    about = (summary.metadata or {}).get(ABOUT)
    return about if isinstance(about, dict) else {}


def _message_item(id_: str, said: Json) -> Json:
    is_answer = said.get("role") == "assistant"
    parts: list[Json] = [{"type": "output_text" if is_answer else "input_text", "text": said.get("content") or ""}]
    if is_answer:
        parts[0] |= {"annotations": [], "logprobs": []}
    parts += [_file_part(attachment) for attachment in said.get("attachments") or []]
    role = "assistant" if is_answer else "user"
    return {"id": id_, "type": "message", "status": "completed", "role": role, "content": parts}


def _file_part(attachment: Json) -> Json:
    url, media_type = attachment.get("url"), str(attachment.get("mediaType"))
    if media_type.startswith("image/") and url:
        return {"type": "input_image", "image_url": url, "detail": "auto"}
    held = isinstance(url, str) and url.startswith("data:")
    return {"type": "input_file", "filename": attachment.get("name"), "file_data" if held else "file_url": url}


def _answer_item(id_: ResponseId, asked: events.InputRequired, answer: events.InputReceived, seq: int) -> Json:
    call = str(QuestionId(id_.execution_id, id_.after, asked.input_id))
    of = item_id("in", id_.execution_id, seq)
    if asked.kind == "approval":
        return {"id": of, "type": "mcp_approval_response", "approval_request_id": call, "approve": answer.value is True}
    value: Any = {"declined": True} if answer.declined else answer.value
    output = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return {"id": of, "type": "function_call_output", "call_id": call, "output": output, "status": "completed"}
