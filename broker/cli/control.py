"""Executions by hand: `runcast ls`, `share`, `cancel`, `retry`, `answer` and `message`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from broker.cli.client import EdgeClient
from broker.cli.lines import clean, seconds, short
from broker.cli.terminal import parse_answer
from emitter.events import InputRequired
from emitter.wire.redact.texts import REDACTED


async def listed(api: EdgeClient, *, limit: int, **sought: str | None) -> list[str]:
    """The newest executions, a line each: id, state, how long ago it began, agent, task. `sought`: q, agent, state."""
    found: list[Mapping[str, Any]] = []
    cursor = None
    while len(found) < limit:  # a page may be empty and still continue
        page = await api.executions(limit=min(200, limit - len(found)), cursor=cursor, **sought)
        found += page["executions"]
        if (cursor := page.get("nextCursor")) is None:
            break
    now = time.time() * 1000
    return [_line(each, now) for each in found]


async def shared(api: EdgeClient, execution_id: str, lifetime: float | None) -> list[str]:
    """A link that shows the execution to whoever has it, for `lifetime` seconds."""
    return [(await api.share(execution_id, lifetime))["url"]]


def _line(execution: Mapping[str, Any], now: float) -> str:
    ago = seconds(max(0.0, now - execution.get("createdAt", now)) / 1000)
    about = (clean(execution.get("agent") or "-"), short(execution.get("task") or "", 80))
    return f"{execution['executionId']}  {execution['state']:<13}  {ago:>12}  {about[0]:<16}  {about[1]}".rstrip()


async def cancelled(api: EdgeClient, execution_id: str, reason: str | None) -> list[str]:
    """Cancel it; its state after that."""
    return [(await api.cancel(execution_id, reason))["state"]]


async def retried(
    api: EdgeClient, execution_id: str, *, task: str | None, params: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Start it again as a new execution, outside of its conversation; `task` replaces its own, members of `params`
    those of the same name. What `execute` returns. Raises `ValueError` if what it was started with is not known, or had
    credentials."""
    given = await api.request_of(execution_id)
    if given.get("agent") is None:
        raise ValueError(f"{execution_id} was not started by a request, so it cannot be started again")
    merged = {**(given.get("params") or {}), **(params or {})}
    task = given.get("task") or "" if task is None else task
    if REDACTED in msgspec.json.encode([task, merged]).decode():
        raise ValueError("its credentials are not kept: give them again, with --params or --task")
    more = {name: given[name] for name in ("budget", "onDisconnect") if given.get(name)}
    return await api.execute(task, agent=given["agent"], params=merged or None, **more)


async def answered(
    api: EdgeClient, execution_id: str, input_id: str | None, text: str | None, *, declined: bool = False
) -> list[str]:
    """Answer its question, or decline to; without `text`, the open questions. A choice may be given by its number, an
    approval as y or n, a form as a JSON object. Raises `ValueError`."""
    state = await api.get(execution_id)
    questions = [msgspec.convert(each, InputRequired) for each in state.get("openInputs", [])]
    if declined:
        question = _chosen(questions, input_id)
        await api.decline(execution_id, question.input_id)
        return [question.input_id]
    if text is None:
        return [line for question in questions for line in _shown(question)] or ["no open questions"]
    question = _chosen(questions, input_id)
    await api.answer(execution_id, question.input_id, parse_answer(question, text))
    return [question.input_id]


async def sent(api: EdgeClient, execution_id: str, text: str, *, interrupts: bool) -> list[str]:
    """Say something to the running agent; the id of the message."""
    answer = await api.send_message(execution_id, text, mode="interrupt" if interrupts else "queue")
    return [answer["messageId"]]


def _shown(question: InputRequired) -> Iterator[str]:
    yield f"{question.input_id}  [{question.kind}]  {short(question.prompt, 200)}"
    for number, option in enumerate(question.options or [], 1):
        yield f"  {number}  {short(option, 200)}"


def _chosen(questions: list[InputRequired], input_id: str | None) -> InputRequired:
    if input_id is not None:
        questions = [each for each in questions if each.input_id == input_id]
    if len(questions) == 1:
        return questions[0]
    if not questions:
        raise ValueError("it has no open question" + (f" {input_id!r}" if input_id else ""))
    raise ValueError(
        "it has several open questions; name one with --input: " + ", ".join(q.input_id for q in questions)
    )
