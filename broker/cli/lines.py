"""Single events as lines for a terminal. Pure.

What an agent says is shown as text: it becomes `rich.text.Text`, never markup, and control characters are taken out, so
that no agent and no tool's result can move the cursor, set a title or hide what was printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from rich.text import Text

from emitter import events as ev
from emitter.events import Event

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P^_X][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]?")
# C0 and C1 but tab and line feed, line and paragraph separators, and what turns the direction of writing
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that only writes: no escape sequences, no control characters but tab and line feed."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def short(value: Any, limit: int = 60) -> str:
    """A value on one line of at most `limit` characters; an object as `name=value` pairs."""
    if isinstance(value, dict):
        text = " ".join(f"{name}={_atom(item)}" for name, item in value.items())
    else:
        text = _atom(value)
    text = " ".join(clean(text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _atom(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def seconds(value: float) -> str:
    """A duration a person reads: `0.34 s`, `12.3 s`, `3 min 05 s`."""
    if value >= 60:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest:02d} s"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def unknown(type_: str, data: Any) -> Text:
    """An event this version has no form for: a plug-in's, or a newer edge's."""
    return Text(f"  {clean(type_)} {short(data, 100)}", "dim")


def interrupted(what: str, how: str = "interrupted", *, indent: str = "") -> Text:
    """What had begun when its execution ended."""
    return Text.assemble((f"{indent}⊘ ", "yellow"), short(what, 100), (f"  {how}", "dim"))


def result_lines(result: Any) -> list[Text]:
    if isinstance(result, dict):
        return [Text(f"  {short(name, 30)}: {short(value, 200)}") for name, value in list(result.items())[:20]]
    if isinstance(result, str):
        return [Text(line) for line in clean(result).splitlines()]
    return [Text(f"  {short(result, 400)}")]


def _queued(event: ev.ExecutionQueued) -> list[Text]:
    return [Text.assemble(("◌ ", "dim"), (f"queued for {clean(event.agent)}: ", "dim"), short(event.task, 100))]


def _started(event: ev.ExecutionStarted) -> list[Text]:
    again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
    return [Text.assemble(("● ", "green"), f"started{again}: ", (short(event.task, 100), "bold"))]


def _planned(event: ev.PlanCreated) -> list[Text]:
    steps = " → ".join(short(phase.name, 40) for phase in event.plan.phases)
    return [Text.assemble(("plan ", "bold"), short(event.plan.goal, 120)), Text(f"     {steps}", "dim")]


def _thinking(event: ev.Thinking) -> list[Text]:
    if not event.visible:
        return []
    return [Text(f"  · {line}", "dim italic") for line in clean(event.thought).splitlines()]


def specialist_begun(event: ev.SpecialistActivated) -> list[Text]:
    return [Text.assemble(("◇ ", "magenta"), (short(event.specialist), "bold"), f" {short(event.task or '', 100)}")]


def doing(event: ev.Progress) -> str:
    return f"{short(event.specialist, 30)}: {short(event.current_action, 80)}"


def specialist_done(event: ev.SpecialistComplete) -> list[Text]:
    return [Text.assemble(("◆ ", "magenta"), (short(event.specialist), "bold"), f" {short(event.summary or '', 200)}")]


def _partial(event: ev.PartialResult) -> list[Text]:
    who = f"{short(event.specialist)}: " if event.specialist else ""
    return [Text.assemble(("  ◆ ", "blue"), who, short(event.result, 160))]


def _synthesis(event: ev.Synthesis) -> list[Text]:
    complete, all_ = len(event.specialists_complete), len(event.specialists_complete) + len(event.specialists_pending)
    count = f"{complete}/{all_} " if all_ else ""
    return [Text.assemble(("◈ ", "magenta"), (count, "bold"), short(event.message, 300))]


def _artifact(event: ev.Artifact) -> list[Text]:
    size = "" if event.text is None else f", {len(event.text):,} characters"
    name = short(event.name or event.artifact_id, 100)
    return [Text.assemble(("  ▤ ", "blue"), (name, "bold"), (f" ({short(event.media_type, 40)}{size})", "dim"))]


def child_started(event: ev.ChildStarted) -> list[Text]:
    named = f" {short(event.key, 40)}" if event.key else ""
    about = f"  {short(event.execution_id, 64)}{' (detached)' if event.detached else ''}"
    who = (short(event.agent, 40), "bold")
    return [Text.assemble(("↳ ", "cyan"), who, f"{named}: ", short(event.task, 100), (about, "dim"))]


def child_ended(event: ev.ChildEnded) -> list[Text]:
    mark, style = {"completed": ("✓", "green"), "failed": ("✗", "red"), "cancelled": ("■", "yellow")}[event.state]
    tokens = "" if event.usage is None else f"  {event.usage.total_tokens:,} tokens"
    said = short(event.summary or event.state, 160)
    return [
        Text.assemble(("↲ ", "cyan"), (f"{mark} ", style), (f"{short(event.execution_id, 64)} ", "dim"), said, tokens)
    ]


def _timeout(event: ev.Timeout) -> list[Text]:
    return [Text(f"! slow: {short(event.message, 200)} ({event.action})", "yellow")]


_SPENT = {"totalTokens": "tokens", "costUsd": "US dollars", "toolCalls": "tool calls", "seconds": "seconds"}


def _budget(event: ev.BudgetNotice) -> list[Text]:
    spent = f"{event.spent:,.10g} of {event.max:,.10g} {_SPENT[event.limit]} spent"
    return [Text(f"! budget: {spent} ({event.action})", "yellow")]


def _model_call(event: ev.ModelCall) -> list[Text]:
    tokens = f"{event.input_tokens:,} → {event.output_tokens:,} tokens, {seconds(event.duration)}"
    failed = f": {short(event.error, 200)}" if event.error else ""
    return [Text.assemble(("  ⋄ ", "dim"), (short(event.model, 60), "dim"), (f" {tokens}", "dim"), (failed, "red"))]


def _said(event: ev.UserMessage) -> list[Text]:
    sign = "‼ " if event.mode == "interrupt" else "» "
    said = clean(event.text).splitlines() if event.text else []
    lines = [Text(short(line, 500)) for line in said[:20]] or [Text(short(event.data, 200))]
    return [Text.assemble((sign, "bold green"), (f"{short(event.by, 40)}: ", "green"), lines[0]), *lines[1:]]


def _taken(event: ev.UserMessageTaken) -> list[Text]:
    count = len(event.message_ids)
    return [Text(f"  ✓ the agent has taken {'the message' if count == 1 else f'{count} messages'}", "dim")]


def _dropped(event: ev.UserMessageDropped) -> list[Text]:
    why = "withdrawn" if event.reason == "withdrawn" else "not taken before the end"
    return [Text(f"  ⊘ a message was {why}", "dim yellow")]


def _violation(event: ev.SandboxViolation) -> list[Text]:
    return [Text(f"! sandbox: {short(event.rule)}: {short(event.detail, 200)}", "bold red")]


LINES: dict[type[Event], Callable[[Any], list[Text]]] = {
    ev.ExecutionQueued: _queued,
    ev.ExecutionStarted: _started,
    ev.PlanCreated: _planned,
    ev.Thinking: _thinking,
    ev.PartialResult: _partial,
    ev.Synthesis: _synthesis,
    ev.Artifact: _artifact,
    ev.ModelCall: _model_call,
    ev.UserMessage: _said,
    ev.UserMessageTaken: _taken,
    ev.UserMessageDropped: _dropped,
    ev.Timeout: _timeout,
    ev.BudgetNotice: _budget,
    ev.SandboxViolation: _violation,
}
"""The events whose lines do not depend on earlier events."""
