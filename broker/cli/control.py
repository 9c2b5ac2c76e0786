"""Executions by hand: `runcast ls`, `cancel`, `answer` and `message`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from broker.cli.client import EdgeClient
from broker.cli.lines import clean, seconds, short
from broker.cli.terminal import parse_answer
from emitter.events import InputRequired


async def listed(api: EdgeClient, *, state: str | None, limit: int) -> list[str]:
    """The newest executions, a line each: id, state, how long ago it began, agent, task."""
    found = await api.executions(state=state, limit=limit)
    now = time.time() * 1000
    return [_line(each, now) for each in found["executions"]]


def _line(execution: Mapping[str, Any], now: float) -> str:
    ago = seconds(max(0.0, now - execution.get("createdAt", now)) / 1000)
    about = (clean(execution.get("agent") or "-"), short(execution.get("task") or "", 80))
    return f"{execution['executionId']}  {execution['state']:<13}  {ago:>12}  {about[0]:<16}  {about[1]}".rstrip()


async def cancelled(api: EdgeClient, execution_id: str, reason: str | None) -> list[str]:
    """Cancel it; its state after that."""
    return [(await api.cancel(execution_id, reason))["state"]]


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
