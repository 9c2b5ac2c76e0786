"""An execution's events, in order, as the lines a terminal shows. Pure: time comes from the events or the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from broker.cli.eventsource import ClientEvent
from broker.cli.lines import (
    LINES,
    child_ended,
    child_started,
    clean,
    doing,
    interrupted,
    result_lines,
    seconds,
    short,
    specialist_begun,
    specialist_done,
    unknown,
)
from emitter import events as ev

MAX_RUNS = 200
MAX_SHOWN = 4
MAX_SPECIALISTS = 8
MAX_CHILDREN = 200
"""That have a bar of their own at the same time."""
PLAIN_STEP = 10
MAX_LINE = 8192


class _Partial:
    """A streamed message whose last line is not complete yet."""

    def __init__(self, speaker: str | None, style: str) -> None:
        self.speaker = speaker
        self.style = style
        self.text = ""
        self.any = False

    def add(self, delta: str) -> list[Text]:
        """The lines this delta completes."""
        self.any = True
        *lines, self.text = (self.text + delta).split("\n")
        if len(self.text) > MAX_LINE:
            lines.append(self.text)
            self.text = ""
        return [Text(clean(line), self.style) for line in lines]

    def rest(self) -> list[Text]:
        text, self.text = self.text, ""
        return [Text(clean(text), self.style)] if text else []


class _Call:
    def __init__(self, name: str, params: Any, started_ms: int) -> None:
        self.name = name
        self.params = params
        self.started_ms = started_ms
        self.note = ""


class _Phase:
    def __init__(self, name: str, started_ms: int) -> None:
        self.name = name
        self.started_ms = started_ms


class _Run:
    """What is under way in one execution."""

    def __init__(self) -> None:
        self.calls: dict[str, _Call] = {}
        self.phases: dict[str, _Phase] = {}
        self.active: dict[str, None] = {}
        self.children: dict[str, ev.ChildStarted] = {}
        self.partials: dict[str, _Partial] = {}
        self.progress: float | None = None
        self.action = ""
        self.plain_step = 0
        self.specialists: dict[str, ev.Progress] = {}
        self.usage: ev.UsageTotals | None = None
        self.inputs: dict[str, ev.InputRequired] = {}
        self.said_text = False

    def forget(self) -> None:
        self.calls.clear()
        self.phases.clear()
        self.active.clear()
        self.partials.clear()
        self.specialists.clear()
        self.inputs.clear()


class Transcript:
    """Folds events into lines to print once (`apply`) and what to show under them for now (`live`).

    `many` puts the execution's id before each line (a feed). `plain` prints progress as lines, for want of a bar.
    """

    def __init__(self, *, many: bool = False, plain: bool = False, answer_hint: str | None = None) -> None:
        self.outcome: str | None = None
        """`completed`, `failed` or `cancelled` once that is known, of the execution that ended last."""
        self._many = many
        self._plain = plain
        self._hint = answer_hint
        self._runs: dict[str, _Run] = {}
        self._event = ClientEvent(type="", data={})

    def apply(self, event: ClientEvent) -> list[Text]:
        """The lines that this event adds."""
        if event.type.startswith("stream:"):
            return self._stream(event)
        run = self._run(event.execution_id or "")
        self._event = event
        lines = self._dispatch(run, event)
        return [self._prefixed(line, event) for line in lines]

    def open_inputs(self, execution_id: str) -> dict[str, ev.InputRequired]:
        """What a person has still to answer."""
        run = self._runs.get(execution_id)
        return run.inputs if run else {}

    def _run(self, execution_id: str) -> _Run:
        run = self._runs.get(execution_id)
        if run is None:
            while len(self._runs) >= MAX_RUNS:
                del self._runs[next(iter(self._runs))]
            run = self._runs[execution_id] = _Run()
        return run

    def _prefixed(self, line: Text, event: ClientEvent) -> Text:
        if not self._many:
            return line
        return Text.assemble((f"{clean(event.execution_id or '')[-8:]} ", "cyan"), line)

    def _dispatch(self, run: _Run, event: ClientEvent) -> list[Text]:
        known = ev.BY_TYPE.get(event.type)
        if known is None:
            return [*self._flush(run, event.agent), unknown(event.type, event.data)]
        try:
            data = msgspec.convert(event.data, known)
        except msgspec.ValidationError:  # an edge of another version: show what there is
            return [unknown(event.type, event.data)]
        lines = self._lines(run, known, event.data, data)
        if not lines or event.type in ev.DELTAS:
            return lines
        return [*self._flush(run, event.agent), *lines]

    def _lines(self, run: _Run, known: type[ev.Event], raw: Any, data: Any) -> list[Text]:
        if known in LINES:
            return LINES[known](data)
        handler = _HANDLERS.get(known)
        return [unknown(known.type, raw)] if handler is None else handler(self, run, data)

    def _flush(self, run: _Run, speaker: str | None) -> list[Text]:
        """Half a line of the same speaker, before something else of theirs is printed."""
        return [line for part in run.partials.values() if part.speaker == speaker for line in part.rest()]

    # --- the stream itself ---

    def _stream(self, event: ClientEvent) -> list[Text]:
        if event.type == "stream:reset":
            return self._reset(event.data)
        if event.type == "stream:token_expiring":
            return [Text("! the token expires soon; the stream will end then", "yellow")]
        return []

    def _reset(self, data: dict[str, Any]) -> list[Text]:
        reason = clean(str(data.get("reason", "unknown")))
        if reason == "trimmed":
            lost = f"events {data.get('lostFrom', '?')} to {data.get('lostTo', '?')}"
            return [Text(f"! {lost} are no longer kept; going on after them", "yellow")]
        self._runs.clear()
        return [Text(f"! the history known so far does not hold any more ({reason}); it starts over", "yellow")]

    # --- the handlers, by event ---

    def _phase_start(self, run: _Run, event: ev.PhaseStart) -> list[Text]:
        run.phases[event.phase_id] = _Phase(event.phase_name, self._event.ts or 0)
        return [Text.assemble(("▸ ", "cyan"), (short(event.phase_name, 80), "bold cyan"))]

    def _phase_complete(self, run: _Run, event: ev.PhaseComplete) -> list[Text]:
        started = run.phases.pop(event.phase_id, None)
        took = event.duration
        if took is None and started is not None:
            took = max(0, (self._event.ts or started.started_ms) - started.started_ms) / 1000
        tail = "" if took is None else f"  {seconds(took)}"
        return [Text.assemble(("✓ ", "green"), (short(event.phase_name, 80), "bold"), (tail, "dim"))]

    def _thinking_delta(self, run: _Run, event: ev.ThinkingDelta) -> list[Text]:
        return self._delta(run, "t:" + event.message_id, event.delta, "dim italic")

    def _message_delta(self, run: _Run, event: ev.MessageDelta) -> list[Text]:
        run.said_text = True
        return self._delta(run, "m:" + event.message_id, event.delta, "")

    def _delta(self, run: _Run, key: str, delta: str, style: str) -> list[Text]:
        partial = run.partials.get(key)
        if partial is None:
            partial = run.partials[key] = _Partial(self._event.agent, style)
        return partial.add(delta)

    def _message_complete(self, run: _Run, event: ev.MessageComplete) -> list[Text]:
        thought = run.partials.pop("t:" + event.message_id, None)
        partial = run.partials.pop("m:" + event.message_id, None)
        lines = [line for part in (thought, partial) if part is not None for line in part.rest()]
        if partial is None and event.text and not (thought is not None and thought.any):
            run.said_text = True
            lines += [Text(line) for line in clean(event.text).splitlines()]
        return lines

    def _tool_start(self, run: _Run, event: ev.ToolStart) -> list[Text]:
        run.calls[event.call_id] = _Call(event.tool_name, event.params, self._event.ts or 0)
        return []

    def _tool_progress(self, run: _Run, event: ev.ToolProgress) -> list[Text]:
        if call := run.calls.get(event.call_id):
            done = "" if event.progress is None else f"{event.progress:.0f} % "
            call.note = done + short(event.message or "", 50)
        return []

    def _tool_complete(self, run: _Run, event: ev.ToolComplete) -> list[Text]:
        line = self._tool_line(run, event.call_id, "✓", "green", event.tool_name)
        return [line.append(f" → {short(event.result)}").append(f"  {seconds(event.duration)}", "dim")]

    def _tool_error(self, run: _Run, event: ev.ToolError) -> list[Text]:
        line = self._tool_line(run, event.call_id, "✗", "red", event.tool_name)
        return [line.append(f" {short(event.error, 100)}", "red").append(f"  {seconds(event.duration)}", "dim")]

    def _tool_line(self, run: _Run, call_id: str, mark: str, style: str, name: str) -> Text:
        call = run.calls.pop(call_id, None)
        params = "" if call is None else short(call.params)
        return Text.assemble(
            "  ", (mark, style), " ", (short(name, 40), "bold"), (f" {params}" if params else "", "dim")
        )

    def _status(self, run: _Run, event: ev.Status) -> list[Text]:
        run.action = short(event.message, 80)
        return [Text(f"  {short(event.status, 30)}: {short(event.message, 120)}", "dim")]

    def _progress(self, run: _Run, event: ev.Progress) -> list[Text]:
        if event.specialist is not None:
            return self._specialist_progress(run, event.specialist, event)
        run.progress = event.progress
        if event.current_action is not None:
            run.action = short(event.current_action, 80)
        step = int(event.progress // PLAIN_STEP)
        if not (self._plain or self._many) or step <= run.plain_step:
            return []
        if any(part.text for part in run.partials.values()):
            return []  # not in the middle of a line of text; the next progress says it
        run.plain_step = step
        return [Text(f"  [{event.progress:3.0f} %] {run.action}", "dim")]

    def _specialist_progress(self, run: _Run, name: str, event: ev.Progress) -> list[Text]:
        before = run.specialists.pop(name, None)
        while len(run.specialists) >= MAX_SPECIALISTS:
            del run.specialists[next(iter(run.specialists))]
        run.specialists[name] = event
        same = before is not None and event.progress // PLAIN_STEP <= before.progress // PLAIN_STEP
        if not (self._plain or self._many) or same:
            return []
        return [Text(f"  [{event.progress:3.0f} %] {doing(event)}", "dim")]

    def _specialist_begun(self, run: _Run, event: ev.SpecialistActivated) -> list[Text]:
        run.active[event.specialist] = None
        return specialist_begun(event)

    def _specialist_done(self, run: _Run, event: ev.SpecialistComplete) -> list[Text]:
        run.specialists.pop(event.specialist, None)
        run.active.pop(event.specialist, None)
        return specialist_done(event)

    def _child_started(self, run: _Run, event: ev.ChildStarted) -> list[Text]:
        while len(run.children) >= MAX_CHILDREN:
            del run.children[next(iter(run.children))]
        run.children[event.execution_id] = event
        return child_started(event)

    def _child_ended(self, run: _Run, event: ev.ChildEnded) -> list[Text]:
        run.children.pop(event.execution_id, None)
        return child_ended(event)

    def _usage(self, run: _Run, event: ev.UsageTotals) -> list[Text]:
        run.usage = event
        return []

    def _asked(self, run: _Run, event: ev.InputRequired) -> list[Text]:
        run.inputs[event.input_id] = event
        lines = [Text.assemble(("? ", "bold yellow"), (short(event.prompt, 400), "bold"), (f"  [{event.kind}]", "dim"))]
        for number, option in enumerate(event.options or [], 1):
            lines.append(Text(f"    {number}. {short(option, 100)}"))
        if self._hint is not None:
            values = {"approval": "true", "choice": '"…"', "text": '"…"', "form": "{…}"}
            execution = clean(self._event.execution_id or "")
            body = f'{{"inputId":"{short(event.input_id)}","value":{values[event.kind]}}}'
            lines.append(Text("  " + self._hint.replace("{id}", execution).replace("{body}", body), "dim"))
        return lines

    def _answered(self, run: _Run, event: ev.InputReceived) -> list[Text]:
        run.inputs.pop(event.input_id, None)
        if event.by == ev.EXPIRED:
            return [Text("  nobody answered in time", "yellow")]
        if event.declined:
            return [Text.assemble(("  declined", "yellow"), (f" by {short(event.by)}", "dim"))]
        return [Text.assemble(("  answered ", "yellow"), short(event.value), (f"  by {short(event.by)}", "dim"))]

    def _superseded(self, run: _Run, event: ev.ExecutionSuperseded) -> list[Text]:
        run.forget()
        return [
            Text(
                f"! attempt {event.attempt} takes over: what came after event {event.from_seq} does not count", "yellow"
            )
        ]

    def _complete(self, run: _Run, event: ev.ExecutionComplete) -> list[Text]:
        lines = self._end(run, "completed")
        if event.result not in (None, "", {}) and not (run.said_text and isinstance(event.result, str)):
            lines += result_lines(event.result)
        counted = run.usage.total_tokens if event.tokens_used is None and run.usage else event.tokens_used
        tokens = "" if counted is None else f" · {counted:,} tokens"
        return [*lines, Text.assemble(("✓ completed", "bold green"), (f" in {seconds(event.duration)}{tokens}", "dim"))]

    def _error(self, run: _Run, event: ev.ExecutionError) -> list[Text]:
        code = f" [{short(event.code)}]" if event.code else ""
        return [
            *self._end(run, "failed"),
            Text.assemble(("✗ failed", "bold red"), f"{code}: {short(event.error, 1000)}"),
        ]

    def _cancelled(self, run: _Run, event: ev.ExecutionCancelled) -> list[Text]:
        by = f" by {short(event.by)}" if event.by else ""
        reason = f": {short(event.reason, 400)}" if event.reason else ""
        return [*self._end(run, "cancelled"), Text.assemble(("■ cancelled", "bold yellow"), f"{by}{reason}")]

    def _end(self, run: _Run, outcome: str) -> list[Text]:
        lines = [line for part in run.partials.values() for line in part.rest()]
        lines += _left_open(run)
        run.forget()
        self._runs.pop(self._event.execution_id or "", None)
        self.outcome = outcome
        return lines

    # --- what is shown for now ---

    def live(self, now_ms: int, width: int) -> RenderableType:
        """What is under way: half lines of text, running tools, the bar."""
        run = next(reversed(self._runs.values()), None) if self._runs else None
        if run is None:
            return Group()
        half_lines = [part for part in run.partials.values() if part.text][-MAX_SHOWN:]
        parts: list[RenderableType] = [Text(clean(part.text)[-3 * width :], part.style) for part in half_lines]
        for call in list(run.calls.values())[-MAX_SHOWN:]:
            elapsed = max(0, now_ms - call.started_ms) / 1000
            parts.append(
                Text(
                    f"  … {short(call.name, 40)} {short(call.params)} {call.note} {seconds(elapsed)}",
                    "dim",
                    no_wrap=True,
                )
            )
        parts += [_bar(event.progress, doing(event)) for _, event in sorted(run.specialists.items())]
        if run.progress is not None:
            parts.append(_bar(run.progress, run.action))
        return Group(*parts)


def _left_open(run: _Run) -> list[Text]:
    """What was under way when the execution ended."""
    lines = [interrupted(f"{call.name} {short(call.params)}", indent="  ") for call in run.calls.values()]
    lines += [interrupted(name) for name in run.active]
    lines += [
        interrupted(f"{child.agent} {child.execution_id}", "goes on" if child.detached else "ends with its parent")
        for child in run.children.values()
    ]
    lines += [interrupted(phase.name) for phase in run.phases.values()]
    lines += [interrupted(question.prompt, "not answered") for question in run.inputs.values()]
    return lines


def _bar(progress: float, action: str) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(100, progress, width=30), Text(f"{progress:3.0f} %"), Text(action, "dim", no_wrap=True))
    return grid


# A type that is neither here nor in `LINES` has the line of unknown events.
_HANDLERS: dict[type[ev.Event], Callable[[Transcript, _Run, Any], list[Text]]] = {
    ev.PhaseStart: Transcript._phase_start,
    ev.PhaseComplete: Transcript._phase_complete,
    ev.ThinkingDelta: Transcript._thinking_delta,
    ev.MessageDelta: Transcript._message_delta,
    ev.MessageComplete: Transcript._message_complete,
    ev.ToolStart: Transcript._tool_start,
    ev.ToolProgress: Transcript._tool_progress,
    ev.ToolComplete: Transcript._tool_complete,
    ev.ToolError: Transcript._tool_error,
    ev.Status: Transcript._status,
    ev.Progress: Transcript._progress,
    ev.SpecialistActivated: Transcript._specialist_begun,
    ev.SpecialistComplete: Transcript._specialist_done,
    ev.ChildStarted: Transcript._child_started,
    ev.ChildEnded: Transcript._child_ended,
    ev.UsageTotals: Transcript._usage,
    ev.InputRequired: Transcript._asked,
    ev.InputReceived: Transcript._answered,
    ev.ExecutionSuperseded: Transcript._superseded,
    ev.ExecutionComplete: Transcript._complete,
    ev.ExecutionError: Transcript._error,
    ev.ExecutionCancelled: Transcript._cancelled,
}
