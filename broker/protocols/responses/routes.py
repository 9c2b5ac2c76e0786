"""The endpoints below `/v1`: a response is an execution, or what an execution does after a question or a message.

Nothing that a client leaves is cancelled: a response that is not waited for goes on, `background` or not.
"""

from __future__ import annotations

import contextlib
import hashlib
import re

import msgspec
from aiohttp import web
from redis.asyncio import Redis

from broker.base.identity import Identity
from broker.base.problem import Problem
from broker.executions.conversations import Past
from broker.executions.spoken import spoken
from broker.executions.types import ExecutionSummary, InputRequest
from broker.http.gateway import MAX_BODY_BYTES, READS, Gateway, idempotency_key
from broker.protocols.live_agents import LiveAgents
from broker.protocols.question_ids import QuestionId
from broker.protocols.responses.held import Held
from broker.protocols.responses.ids import ResponseId
from broker.protocols.responses.reader import Reader, has_place
from broker.protocols.responses.renderer import Renderer
from broker.protocols.responses.requests import (
    Answer,
    CreateResponse,
    previous_not_found,
    request_of,
    said_of,
    turns,
)
from broker.protocols.responses.response import Json
from emitter.errors import AlreadyAnswered, ExecutionEnded, NotSteerable, UnknownExecution, UnknownInput
from emitter.events import TERMINAL_STATES, InputRequired, UserMessage
from emitter.wire.ids import new_execution_id

HOLD_SECONDS = 540.0
"""How long a POST without `stream` waits for the end, which is then answered with `in_progress`. OpenAI's clients wait
for 600 s."""
CANCEL_SECONDS = 10.0
"""How long a cancel waits for the agent to stop."""
MAX_ITEMS = 100
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


class ResponsesApi:
    """The handlers."""

    def __init__(self, gateway: Gateway, redis: Redis) -> None:
        self._gateway = gateway
        self._reader = Reader(gateway.commands)
        self._agents = LiveAgents(redis)

    def routes(self) -> list[web.RouteDef]:
        base = "/v1/responses"
        return [
            web.post(base, self.create),
            web.get(base + "/{id}", self.get, allow_head=False),
            web.delete(base + "/{id}", self.delete),
            web.post(base + "/{id}/cancel", self.cancel),
            web.get(base + "/{id}/input_items", self.input_items, allow_head=False),
            web.get("/v1/models", self.models, allow_head=False),
            web.get("/v1/models/{model:.+}", self.model, allow_head=False),
        ]

    # --- create ------------------------------------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Start an execution, answer one, or say something to one; and show what follows."""
        identity = await self._gateway.identify(request, "executions:write", "executions:read")
        asked = await self._gateway.read_json(request, CreateResponse, MAX_BODY_BYTES)
        if asked.background and not asked.stream:
            return await self._now(identity, await self._reach(request, identity, asked))
        # Room first: of an execution that was started and then not shown, the client would not know the id.
        async with self._gateway.slot(request, identity) as slot:
            about = await self._reader.about(identity.owner, await self._reach(request, identity, asked))
            rendering = Renderer(about) if asked.stream else Held(about, HOLD_SECONDS)
            return await self._gateway.show(request, identity, about.id.execution_id, rendering, slot=slot)

    async def _reach(self, request: web.Request, identity: Identity, asked: CreateResponse) -> ResponseId:
        """The response that is asked for."""
        previous = asked.previous
        if answers := asked.answers():
            if previous is not None and previous.execution_id != answers[0].id.execution_id:
                raise Problem(422, "invalid", "another response has asked this", path=answers[0].path)
            return await self._answer(request, identity, answers)
        summary = None
        if previous is not None:
            summary = await self._gateway.commands.listing.summary(identity.owner, previous.execution_id)
            if summary is None or not has_place(summary, previous):
                raise previous_not_found()
            if summary.state not in TERMINAL_STATES:
                if asked.model not in (None, summary.agent):
                    raise _in_progress("that response is in progress, and another agent's")
                with contextlib.suppress(ExecutionEnded):  # it was faster
                    return await self._say(request, identity, asked, previous)
        async with self._gateway.starting(identity):
            return await self._start(request, identity, asked, previous, summary)

    async def _start(
        self,
        request: web.Request,
        identity: Identity,
        asked: CreateResponse,
        previous: ResponseId | None,
        summary: ExecutionSummary | None,
    ) -> ResponseId:
        past, conversation_id = Past(), None
        if previous is not None and summary is not None:
            conversation_id = summary.conversation_id or previous.execution_id
            async with self._gateway.folding(identity):
                past = await self._reader.before(identity.owner, previous)
            asked = asked if asked.model else msgspec.structs.replace(asked, model=summary.agent)
        key = idempotency_key(request)
        wanted = request_of(
            asked,
            past.turns,
            execution_id=new_execution_id() if key is None else _derived(key),
            previous=previous,
            conversation_id=conversation_id,
            max_bytes=self._gateway.max_conversation_bytes,
            omitted=past.omitted,
        )
        answer, _ = await self._gateway.execute(request, identity, wanted, idempotency_key=key)
        return ResponseId(answer.execution_id)

    async def _answer(self, request: web.Request, identity: Identity, answers: list[Answer]) -> ResponseId:
        """Give the answers; one that others gave before stays as it is. What follows the newest of these questions is
        the response: a retry may have asked them again since."""
        execution_id = answers[0].id.execution_id
        open_ = await self._questions(identity, execution_id)
        for answer in answers:
            with contextlib.suppress(ExecutionEnded):
                await self._give(request, identity, answer, open_.get(answer.id.input_id))
        asked = {answer.id.input_id for answer in answers}
        found = await self._seq(identity, execution_id, InputRequired, input_id=asked)
        return ResponseId(execution_id, found or max(answer.id.seq for answer in answers))

    async def _questions(self, identity: Identity, execution_id: str) -> dict[str, InputRequired]:
        asked = await self._gateway.commands.questions(identity.owner, execution_id)
        return {question.input_id: question for question in asked}

    async def _give(
        self, request: web.Request, identity: Identity, answer: Answer, question: InputRequired | None
    ) -> None:
        """Give one, unless others did, or its time is over. Raises `ExecutionEnded`, and `Problem` 422."""
        value = answer.value
        if question is not None and isinstance(value, str):
            value = spoken(question, value)
        is_declined = answer.is_declined
        given = InputRequest(
            input_id=answer.id.input_id, value=msgspec.UNSET if is_declined else value, declined=is_declined
        )
        try:
            await self._gateway.answer(request, identity, answer.id.execution_id, given)
        except AlreadyAnswered:
            return
        except UnknownInput:
            raise Problem(422, "invalid", "no agent has asked under this id", path=answer.path) from None
        except Problem as problem:
            if problem.slug == "input-expired":
                return
            problem.extensions["path"] = answer.path
            raise

    async def _say(
        self, request: web.Request, identity: Identity, asked: CreateResponse, previous: ResponseId
    ) -> ResponseId:
        """To the agent at work: the answer to what it waits for, or a message, if it takes any. Raises
        `ExecutionEnded`, and `Problem` 400."""
        execution_id = previous.execution_id
        if open_ := await self._questions(identity, execution_id):
            question = next(iter(open_.values()))
            _, said = turns(asked, self._gateway.max_conversation_bytes)
            found = await self._seq(identity, execution_id, InputRequired, input_id={question.input_id})
            id_ = QuestionId(execution_id, found, question.input_id)
            await self._give(request, identity, Answer(id_, said.words("$.input"), "$.input"), question)
            return ResponseId(execution_id, found)
        key = idempotency_key(request)
        message_id = new_execution_id() if key is None else _derived(key)
        wanted = said_of(asked, message_id, max_bytes=self._gateway.max_conversation_bytes)
        try:
            sent = await self._gateway.send_message(request, identity, execution_id, wanted)
        except NotSteerable:
            raise _in_progress("that response is in progress, and its agent takes no messages") from None
        except UnknownExecution:
            raise previous_not_found() from None
        return ResponseId(
            execution_id, await self._seq(identity, execution_id, UserMessage, message_id={sent.message_id})
        )

    async def _seq(
        self, identity: Identity, execution_id: str, wanted: type[InputRequired | UserMessage], **fields: set[str]
    ) -> int:
        async with self._gateway.folding(identity):
            return await self._reader.seq_of(identity.owner, execution_id, wanted, **fields)

    # --- read --------------------------------------------------------------------------------------------------------

    async def get(self, request: web.Request) -> web.StreamResponse:
        """A response as it is, or its stream after a frame. Raises `Problem` 410 where the log has lost its head, and
        with it the meaning of the numbers of frames."""
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        id_ = _id(request)
        if _flag(request, "stream"):
            after = _starting_after(request)
            about = await self._reader.about(identity.owner, id_)
            if after >= 0 and not await self._gateway.commands.has_head(identity.owner, id_.execution_id):
                detail = "the oldest events are gone, and with them the numbers of this stream; get it without stream"
                raise Problem(410, "trimmed", detail, path="starting_after")
            return await self._gateway.show(request, identity, id_.execution_id, Renderer(about, starting_after=after))
        return await self._now(identity, id_)

    async def _now(self, identity: Identity, id_: ResponseId) -> web.Response:
        about = await self._reader.about(identity.owner, id_)
        async with self._gateway.folding(identity):
            return _body(await self._reader.response(identity.owner, about))

    async def input_items(self, request: web.Request) -> web.Response:
        identity = await self._gateway.identify(request, "executions:read", rate=READS)
        id_, limit, order = _id(request), request.query.get("limit", "20"), request.query.get("order", "desc")
        if not (_NUMBER.fullmatch(limit) and 1 <= int(limit) <= MAX_ITEMS):
            raise Problem(400, "invalid-parameter", f"limit is a whole number from 1 to {MAX_ITEMS}", path="limit")
        if order not in ("asc", "desc"):
            raise Problem(400, "invalid-parameter", "order is asc or desc", path="order")
        await self._reader.about(identity.owner, id_)
        async with self._gateway.folding(identity):
            items = await self._reader.input_items(identity.owner, id_)
        return _json(_page(items if order == "asc" else items[::-1], int(limit), request.query.get("after")))

    # --- end ---------------------------------------------------------------------------------------------------------

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Cancel its execution, and wait a little for the agent to stop. What is over stays as it is."""
        identity = await self._gateway.identify(request, "executions:write", "executions:read")
        about = await self._reader.about(identity.owner, _id(request))
        with contextlib.suppress(ExecutionEnded):
            await self._gateway.cancel(request, identity, about.id.execution_id, None)
        async with contextlib.AsyncExitStack() as stack:
            try:
                slot = await stack.enter_async_context(self._gateway.slot(request, identity))
            except Problem:  # no room to wait: the streams that take it may be what is cancelled
                return await self._now(identity, about.id)
            rendering = Held(about, CANCEL_SECONDS)
            return await self._gateway.show(request, identity, about.id.execution_id, rendering, slot=slot)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete its execution, which must have ended, and with it all responses on it."""
        identity = await self._gateway.identify(request, "executions:write")
        id_ = _id(request)
        await self._gateway.forget(request, identity, id_.execution_id)
        return _json({"id": str(id_), "object": "response", "deleted": True})

    # --- models ------------------------------------------------------------------------------------------------------

    async def models(self, request: web.Request) -> web.Response:
        await self._gateway.identify(request, "executions:read", rate=READS)
        return _json({"object": "list", "data": [_model(agent.name) for agent in await self._agents.get()]})

    async def model(self, request: web.Request) -> web.Response:
        await self._gateway.identify(request, "executions:read", rate=READS)
        name = request.match_info["model"]
        if name not in {agent.name for agent in await self._agents.get()}:
            raise Problem(404, "unknown-agent", f"there is no model {name[:80]!r}")
        return _json(_model(name))


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "runcast"}


def _id(request: web.Request) -> ResponseId:
    given = request.match_info["id"]
    if (id_ := ResponseId.parse(given)) is None:
        raise UnknownExecution(given[:64])
    return id_


def _in_progress(why: str) -> Problem:
    detail = f"{why}: wait for its end, or cancel it"
    return Problem(400, "response-in-progress", detail, path="$.previous_response_id")


def _derived(key: str) -> str:
    """The execution of an `Idempotency-Key`."""
    return "ex_" + hashlib.sha256(key.encode()).hexdigest()[:32]


def _flag(request: web.Request, name: str) -> bool:
    given = request.query.get(name, "false").lower()
    if given not in ("true", "false"):
        raise Problem(400, "invalid-parameter", f"{name} is true or false", path=name)
    return given == "true"


def _starting_after(request: web.Request) -> int:
    given = request.query.get("starting_after")
    if given is None:
        return -1
    if not _NUMBER.fullmatch(given):
        raise Problem(400, "invalid-parameter", "starting_after is the number of a frame", path="starting_after")
    return int(given)


def _page(items: list[Json], limit: int, after: str | None) -> Json:
    if after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise Problem(400, "invalid-parameter", "after is the id of one of the items", path="after")
        items = items[places[0] + 1 :]
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }


def _json(value: Json) -> web.Response:
    return _body(msgspec.json.encode(value))


def _body(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})
