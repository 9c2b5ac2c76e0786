"""What a person sees in a terminal, and what they are asked."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import termios
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any

import pytest
from rich.console import Console

from broker.cli.client import ApiError, Conflict, Connected, ConnectionLost, EdgeClient, EdgeUnreachable, Link
from broker.cli.eventsource import ClientEvent
from broker.cli.lines import LINES, clean, seconds, short
from broker.cli.terminal import Feed, parse_answer, prompt_for, read_line, watch
from broker.cli.transcript import _HANDLERS, MAX_SPECIALISTS, Transcript
from broker.cli.writer import Draft, Writer
from emitter import events as ev
from emitter.events import InputRequired, MessageMode
from emitter.wire.ids import EventId


def event(type_: str, ts: int = 0, *, execution: str = "ex_1", speaker: str | None = None, **data: Any) -> ClientEvent:
    return ClientEvent(type=type_, data=data, execution_id=execution, ts=ts, agent=speaker)


def render(*events: ClientEvent, transcript: Transcript | None = None) -> str:
    transcript = transcript or Transcript()
    return "\n".join(line.plain for item in events for line in transcript.apply(item))


def live(transcript: Transcript, now_ms: int) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(transcript.live(now_ms, 80))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x1b[2Jb\x1b[1;1Hc", "abc"),
        ("over\rwritten\x08\x00", "overwritten"),
        ("\x9b31mc1", "31mc1"),
        ("\u202ereversed\u2066", "reversed"),
        ("line\u2028separator", "lineseparator"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("Grüße 🎉", "Grüße 🎉"),
    ],
)
def test_agents_cannot_steer_the_terminal(raw: str, shown: str) -> None:
    """Escape sequences, control and direction characters are taken out; letters of all languages stay."""
    assert clean(raw) == shown


def test_markup_is_shown_and_not_obeyed() -> None:
    """What looks like console markup comes out as it was written, in every place an agent can put it."""
    evil = "[bold red]x[/] [link=http://e]y[/link] :smile:"
    console = Console(file=io.StringIO(), width=300)
    transcript = Transcript()
    for item in (
        event("message:delta", messageId="m", delta=evil + "\n"),
        event("thinking", thought=evil),
        event("tool:complete", callId="c", toolName=evil, result=evil, duration=1),
        event("status", status="s", message=evil),
        event("input:required", inputId="i", prompt=evil, kind="text"),
        event("execution:error", error=evil),
        event("custom:x", text=evil),
    ):
        for line in transcript.apply(item):
            console.print(line, highlight=False)
    assert console.file.getvalue().count("[bold red]x[/]") == 9  # type: ignore[attr-defined]


def test_values_are_short_and_on_one_line() -> None:
    """An object becomes pairs, anything becomes one line, and the limit is kept."""
    assert short({"path": "a b", "n": 3, "deep": {"x": [1]}}) == 'path=a b n=3 deep={"x":[1]}'
    assert short("a\nb\x1b[2J\tc") == "a b c"
    assert short("x" * 100, 10) == "x" * 9 + "…"
    assert (short(None), short(True), short([])) == ("", "true", "[]")


def test_durations_are_readable() -> None:
    """Seconds get fewer digits as they grow, and become minutes."""
    assert [seconds(value) for value in (0.004, 3.21, 12.34, 185)] == ["0.00 s", "3.21 s", "12.3 s", "3 min 05 s"]


# --- the transcript --------------------------------------------------------------------------------------------------


def test_every_event_of_the_catalogue_has_a_form() -> None:
    """No type of the catalogue falls through to the form for unknown events, and none has two."""
    assert set(LINES) | set(_HANDLERS) == set(ev.CATALOGUE)
    assert not set(LINES) & set(_HANDLERS)


def test_a_budget_is_one_line() -> None:
    """With what is spent, and what happens."""
    assert render(event("budget", limit="totalTokens", spent=85_000, max=100_000, action="continuing")) == (
        "! budget: 85,000 of 100,000 tokens spent (continuing)"
    )
    assert render(event("budget", limit="costUsd", spent=0.52, max=0.5, action="stopping")) == (
        "! budget: 0.52 of 0.5 US dollars spent (stopping)"
    )


def test_a_run_reads_as_a_story() -> None:
    """Phases have marks and durations, tools their parameters, results and times, text flows in lines."""
    story = render(
        event("execution:queued", task="survey x", agent="analyst"),
        event("execution:started", task="survey x", startedAt=1, attempt=1),
        event("plan:created", plan={"goal": "Survey x", "phases": [{"id": "a", "name": "Explore"}]}),
        event("phase:start", 1000, phaseId="a", phaseName="Explore"),
        event("tool:start", callId="c1", toolName="grep", params={"pattern": "TODO"}),
        event("tool:progress", callId="c1", progress=50),
        event("tool:complete", callId="c1", toolName="grep", result={"matches": 3}, duration=0.25),
        event("tool:error", callId="c2", toolName="read", error="no such file", duration=0.1),
        event("thinking", thought="Hm.\nWell."),
        event("thinking", thought="hidden", visible=False),
        event("phase:complete", 3500, phaseId="a", phaseName="Explore"),
        event("message:delta", messageId="m", delta="# Rep"),
        event("message:delta", messageId="m", delta="ort\nfirst li"),
        event("message:delta", messageId="m", delta="ne"),
        event("message:complete", messageId="m"),
        event("artifact", artifactId="r", name="r.md", mediaType="text/markdown", text="abc"),
        event("usage", inputTokens=1000, outputTokens=200, totalTokens=1200),
        event("execution:complete", result={"summary": "fine"}, duration=12.34),
    )
    assert story.split("\n") == [
        "◌ queued for analyst: survey x",
        "● started: survey x",
        "plan Survey x",
        "     Explore",
        "▸ Explore",
        "  ✓ grep pattern=TODO → matches=3  0.25 s",
        "  ✗ read no such file  0.10 s",
        "  · Hm.",
        "  · Well.",
        "✓ Explore  2.50 s",
        "# Report",
        "first line",
        "  ▤ r.md (text/markdown, 3 characters)",
        "  summary: fine",
        "✓ completed in 12.3 s · 1,200 tokens",
    ]


def test_half_a_line_is_live_until_it_is_whole() -> None:
    """Text without its line end is shown under the lines, and printed before what its speaker does next."""
    transcript = Transcript()
    assert render(event("message:delta", messageId="m", delta="half"), transcript=transcript) == ""
    assert "half" in live(transcript, 0)
    assert render(event("progress", progress=5), transcript=transcript) == ""
    assert render(event("status", status="s", message="m", speaker="other"), transcript=transcript) == "  s: m"
    assert render(event("status", status="s", message="m"), transcript=transcript) == "half\n  s: m"
    assert "half" not in live(transcript, 0)


def test_the_bar_and_running_tools_are_live() -> None:
    """Progress, the current action and the time a tool has been running are shown for as long as they hold."""
    transcript = Transcript()
    render(
        event("tool:start", 1000, callId="c", toolName="fetch", params={"u": "x"}),
        event("tool:progress", callId="c", progress=40, message="page 2"),
        event("progress", progress=62, currentAction="Reading"),
        transcript=transcript,
    )
    shown = live(transcript, 3500)
    assert "fetch u=x 40 % page 2 2.50 s" in shown
    assert "62 % Reading" in shown
    render(event("tool:complete", callId="c", toolName="fetch", result=1, duration=3), transcript=transcript)
    assert "fetch" not in live(transcript, 3500)


def test_without_a_terminal_progress_is_lines() -> None:
    """One line for each tenth, and no line for smaller steps."""
    steps = [event("progress", progress=value, currentAction=f"at {value}") for value in (1, 9, 10, 15, 19, 32, 100)]
    shown = render(*steps, transcript=Transcript(plain=True))
    assert shown.split("\n") == ["  [ 10 %] at 10", "  [ 32 %] at 32", "  [100 %] at 100"]


def test_progress_does_not_cut_a_line_of_text_in_two() -> None:
    """Without a terminal, the line on progress waits until no line of text is half written."""
    transcript = Transcript(plain=True)
    half = [event("message:delta", messageId="m", delta="half "), event("progress", progress=50)]
    assert render(*half, transcript=transcript) == ""
    rest = [event("message:delta", messageId="m", delta="whole\n"), event("progress", progress=51, currentAction="a")]
    assert render(*rest, transcript=transcript) == "half whole\n  [ 51 %] a"


def specialist(name: str, progress: float, action: str | None = None) -> ClientEvent:
    return event("progress", progress=progress, currentAction=action, specialist=name)


def test_each_specialist_has_a_bar_of_its_own() -> None:
    """Their progress leaves the execution's alone, is shown by name, and is gone when they or their attempt end."""
    transcript = Transcript()
    steps = [event("progress", progress=62, currentAction="Waiting"), specialist("b", 20, "Testing")]
    assert render(*steps, specialist("a", 40, "Reading"), transcript=transcript) == ""
    shown = [line.strip("━╸╺ ") for line in live(transcript, 0).splitlines()]
    assert shown == ["40 % a: Reading", "20 % b: Testing", "62 % Waiting"]
    done = event("specialist:complete", specialist="a", summary="All is well")
    assert render(done, transcript=transcript) == "◆ a All is well"
    assert "a:" not in live(transcript, 0)
    render(event("execution:superseded", fromSeq=1, attempt=2), transcript=transcript)
    assert "b:" not in live(transcript, 0)


def test_many_specialists_leave_room_for_the_rest() -> None:
    """Only those that moved last have a bar."""
    transcript = Transcript()
    render(*(specialist(f"s{number:02}", 10) for number in range(30)), transcript=transcript)
    shown = live(transcript, 0)
    assert [f"s{number:02}" in shown for number in range(30)] == [False] * (30 - MAX_SPECIALISTS) + [
        True
    ] * MAX_SPECIALISTS


def test_without_a_terminal_specialists_progress_is_lines_by_name() -> None:
    """The first step of each and one line for each tenth, whatever the others do meanwhile."""
    steps = [specialist("a", 1, "x"), specialist("b", 50, "y"), specialist("a", 9, "z"), specialist("a", 12, "w")]
    shown = render(*steps, event("progress", progress=20, currentAction="all"), transcript=Transcript(plain=True))
    assert shown.split("\n") == ["  [  1 %] a: x", "  [ 50 %] b: y", "  [ 12 %] a: w", "  [ 20 %] all"]


def test_a_synthesis_says_how_many_are_in() -> None:
    """Complete and all, where there are any to count."""
    some = event("synthesis", message="So far.", specialistsComplete=["a"], specialistsPending=["b", "c"])
    none = event("synthesis", message="So far.", specialistsComplete=[], specialistsPending=[])
    assert render(some, none) == "◈ 1/3 So far.\n◈ So far."


def test_a_feed_names_the_execution() -> None:
    """Lines of a feed say whose they are; executions do not mix up each other's calls."""
    transcript = Transcript(many=True)
    shown = render(
        event("tool:start", execution="ex_aaaaaaaa1", callId="c", toolName="t", params={"of": "a"}),
        event("tool:start", execution="ex_bbbbbbbb2", callId="c", toolName="t", params={"of": "b"}),
        event("tool:complete", execution="ex_aaaaaaaa1", callId="c", toolName="t", result=1, duration=1),
        transcript=transcript,
    )
    assert shown == "aaaaaaa1   ✓ t of=a → 1  1.00 s"


def test_what_is_not_understood_is_shown_as_it_is() -> None:
    """Plug-ins' events, types of a newer edge and events of another shape are a dim line and no failure."""
    assert render(event("custom:weather", sky="blue")) == "  custom:weather sky=blue"
    assert render(event("future:thing", a=1)) == "  future:thing a=1"
    assert render(event("tool:start", unexpected=True)) == "  tool:start unexpected=true"


def test_a_lost_history_is_said() -> None:
    """A trimming says which events are gone; another history says that it starts over, and old state is dropped."""
    transcript = Transcript()
    render(event("message:delta", messageId="m", delta="old"), transcript=transcript)
    trimmed = ClientEvent(type="stream:reset", data={"reason": "trimmed", "lostFrom": 2, "lostTo": 9})
    assert "events 2 to 9" in render(trimmed, transcript=transcript)
    assert "starts over" in render(ClientEvent(type="stream:reset", data={"reason": "diverged"}), transcript=transcript)
    assert "old" not in live(transcript, 0)


def test_a_new_attempt_drops_what_was_under_way() -> None:
    """After `execution:superseded` no tool, half line or question of the old attempt is left."""
    transcript = Transcript()
    shown = render(
        event("tool:start", callId="c", toolName="slow", params={}),
        event("input:required", inputId="i", prompt="Sure?", kind="approval"),
        event("execution:superseded", fromSeq=3, attempt=2),
        transcript=transcript,
    )
    assert "attempt 2 takes over: what came after event 3 does not count" in shown
    assert "slow" not in live(transcript, 0)
    assert transcript.open_inputs("ex_1") == {}


# --- answers ---------------------------------------------------------------------------------------------------------


def question(kind: Any, options: list[str] | None = None) -> InputRequired:
    return InputRequired(input_id="i", prompt="?", kind=kind, options=options)


@pytest.mark.parametrize(
    ("asked", "typed", "value"),
    [
        (question("approval"), "Y\n", True),
        (question("approval"), "no\n", False),
        (question("choice", ["red", "blue"]), "2\n", "blue"),
        (question("choice", ["red", "blue"]), " red \n", "red"),
        (question("text"), "  as typed \n", "  as typed "),
        (question("form"), '{"a": 1}\n', {"a": 1}),
    ],
)
def test_a_typed_line_becomes_the_value(asked: InputRequired, typed: str, value: object) -> None:
    """Each kind of question has its own form of answer."""
    assert parse_answer(asked, typed) == value
    assert prompt_for(asked).endswith("> ")


@pytest.mark.parametrize(
    ("asked", "typed"),
    [
        (question("approval"), "\n"),
        (question("approval"), "yep\n"),
        (question("choice", ["red"]), "0\n"),
        (question("choice", ["red"]), "²\n"),
        (question("choice"), "1\n"),
        (question("form"), "[1]\n"),
    ],
)
def test_what_is_no_answer_is_asked_again(asked: InputRequired, typed: str) -> None:
    """An unclear line is never taken for consent."""
    with pytest.raises(ValueError, match="please"):
        parse_answer(asked, typed)


# --- watching --------------------------------------------------------------------------------------------------------


class FakeApi(EdgeClient):
    """An edge played by a list: events, links, and points (`asyncio.Event`) to wait for."""

    def __init__(self, *script: ClientEvent | Link | asyncio.Event) -> None:
        super().__init__("http://edge")
        self.script = script
        self.answers: list[tuple[str, str, Any]] = []
        self.refusals: list[Exception] = []
        self.answered = asyncio.Event()
        self.paths: list[tuple[str, dict[str, str]]] = []
        self.accepts = False
        self.said: list[tuple[str, str]] = []
        self.message_ids: set[str | None] = set()
        self.heard = asyncio.Event()

    async def follow(
        self,
        path: str,
        cursor: EventId | None = None,
        *,
        params: Mapping[str, str] | None = None,
        on_link: Callable[[Link], None] = lambda _: None,
    ) -> AsyncGenerator[ClientEvent, None]:
        self.paths.append((path, dict(params or {})))
        for item in self.script:
            if isinstance(item, asyncio.Event):
                async with asyncio.timeout(5):
                    await item.wait()
            elif isinstance(item, ClientEvent):
                yield item
            else:
                on_link(item)
            await asyncio.sleep(0)

    async def answer(self, execution_id: str, input_id: str, value: Any) -> dict[str, Any]:
        self.answers.append((execution_id, input_id, value))
        self.answered.set()
        if self.refusals:
            raise self.refusals.pop(0)
        return {}

    async def messages(self, execution_id: str) -> dict[str, Any]:
        return {"messages": [], "acceptsMessages": self.accepts}

    async def send_message(
        self, execution_id: str, text: str, *, mode: MessageMode = "queue", message_id: str | None = None
    ) -> dict[str, Any]:
        self.said.append((mode, text))
        self.message_ids.add(message_id)
        if self.refusals:
            raise self.refusals.pop(0)
        self.heard.set()
        return {}

    async def get(self, execution_id: str) -> dict[str, Any]:
        return {"status": "cancelled"}


def console(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=120, force_terminal=terminal, color_system=None)


def output(of: Console) -> str:
    return of.file.getvalue()  # type: ignore[attr-defined,no-any-return]


LIVE = ClientEvent(type="stream:live", data={"replayed": 0})
ASKED = event("input:required", inputId="in_1", prompt="Write it?", kind="approval")
DONE = event("execution:complete", result=None, duration=1)


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (DONE, 0),
        (event("execution:error", error="no", code="x"), 1),
        (event("execution:cancelled", by="bob"), 130),
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
async def test_the_exit_status_tells_how_it_ended(last: ClientEvent, status: int, terminal: bool) -> None:
    """0 completed, 1 failed, 130 cancelled, on a terminal and without."""
    assert await watch(FakeApi(last), "ex_1", console(terminal=terminal)) == status


async def test_an_end_that_was_missed_is_looked_up() -> None:
    """When the stream says no more than that it is over, the execution's state tells how."""
    assert await watch(FakeApi(), "ex_1", console()) == 130


async def test_breaks_are_one_line_and_resuming_another() -> None:
    """A lost connection is said once, however many tries it takes; planned ends are not worth a line."""
    at = EventId(7, 3)
    shown = console()
    await watch(
        FakeApi(
            Connected(None),
            ConnectionLost("reset", at, 1),
            ConnectionLost("refused", at, 2),
            Connected(at),
            ClientEvent(type="stream:end", data={"reason": "aged"}),
            ConnectionLost("the edge ended the stream", at, 1),
            Connected(at),
            DONE,
        ),
        "ex_1",
        shown,
    )
    lines = output(shown).splitlines()
    assert lines == ["~ connection lost (reset), resuming after 7-3…", "~ resumed", "✓ completed in 1.00 s"]


async def test_an_edge_that_is_not_there_yet_is_said() -> None:
    """Waiting for an edge to start is no lost connection."""
    shown = console()
    await watch(FakeApi(ConnectionLost("refused", None, 1), Connected(None), DONE), "ex_1", shown)
    assert output(shown).splitlines()[:2] == ["~ no stream yet (refused); trying until there is one", "~ connected"]


async def test_an_execution_is_replayed_in_short() -> None:
    """What was streamed chunk by chunk before somebody looked is asked for in whole."""
    api = FakeApi(DONE)
    await watch(api, "ex_1", console())
    assert api.paths == [("/api/agent/executions/ex_1/stream", {"compact": "true"})]


async def test_a_feed_is_followed_for_the_user_named() -> None:
    """A feed asks for its own path and names the user only if one is named."""
    api = FakeApi()
    assert await watch(api, Feed(user="alice"), console()) == 0
    assert await watch(api, Feed(), console()) == 0
    assert api.paths == [("/api/agent/stream", {"user": "alice"}), ("/api/agent/stream", {})]


async def test_without_a_terminal_it_says_how_to_answer() -> None:
    """The command that answers is printed whole, in one line, and nobody is asked."""
    shown = console()
    await watch(FakeApi(LIVE, ASKED, DONE), "ex_1", shown)
    command = 'curl -X POST http://edge/api/agent/executions/ex_1/input -H "Authorization: Bearer $RUNCAST_TOKEN"'
    assert f'  answer with: {command} -d \'{{"inputId":"in_1","value":true}}\'\n' in output(shown)
    assert "y/n" not in output(shown)


class Keyboard:
    """A terminal of its own, at which the test types."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self.stdin = os.fdopen(slave, "r")
        self._mode = termios.tcgetattr(self.stdin.fileno())

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def is_as_before(self) -> bool:
        """Whether the terminal edits lines and echoes, as it did at first."""
        return termios.tcgetattr(self.stdin.fileno()) == self._mode

    def close(self) -> None:
        self.stdin.close()
        os.close(self._master)


@pytest.fixture
def keyboard() -> Iterator[Keyboard]:
    keyboard = Keyboard()
    yield keyboard
    keyboard.close()


async def shows(of: Console, text: str, times: int = 1) -> None:
    async with asyncio.timeout(5):
        while output(of).count(text) < times:
            await asyncio.sleep(0.005)


async def test_an_approval_is_asked_and_sent(keyboard: Keyboard) -> None:
    """At a terminal the question is put once, asked again until it is clear, and answered through the API."""
    api = FakeApi(LIVE, ASKED)
    answered = event("input:received", inputId="in_1", by="me", value=True)
    api.script = (LIVE, ASKED, api.answered, answered, DONE)
    shown = console(terminal=True)
    watching = asyncio.create_task(watch(api, "ex_1", shown, stdin=keyboard.stdin))
    await shows(shown, "y/n > ")
    keyboard.type("maybe\n")
    await shows(shown, "y/n > ", times=2)
    keyboard.type("y\n")
    assert await watching == 0
    assert api.answers == [("ex_1", "in_1", True)]


async def test_a_prompt_stays_below_what_comes_meanwhile(keyboard: Keyboard) -> None:
    """An agent that asks may go on with something else: its lines take the prompt's place, and it is shown again."""
    meanwhile = [event("thinking", thought="Meanwhile"), event("progress", progress=10)]
    go = asyncio.Event()
    api = FakeApi()
    api.script = (LIVE, ASKED, go, *meanwhile, api.answered, DONE)
    shown = console(terminal=True)
    watching = asyncio.create_task(watch(api, "ex_1", shown, stdin=keyboard.stdin))
    await shows(shown, "y/n > ")
    go.set()
    await shows(shown, "y/n > ", times=2)
    assert "  y/n > \r\x1b[2K  · Meanwhile\n  y/n > " in output(shown)
    keyboard.type("y\n")
    assert await watching == 0
    assert api.answers == [("ex_1", "in_1", True)]
    assert output(shown).count("y/n > ") == 2


async def test_two_questions_are_asked_one_after_the_other(keyboard: Keyboard) -> None:
    """A second question waits for the first one's answer, and a refused answer is asked for again."""
    second = event("input:required", inputId="in_2", prompt="Name?", kind="text")
    api = FakeApi()
    both = asyncio.Event()
    api.script = (LIVE, ASKED, second, both, DONE)
    api.refusals = [Conflict(409, {}), ApiError(422, {"detail": "too short"})]
    shown = console(terminal=True)
    watching = asyncio.create_task(watch(api, "ex_1", shown, stdin=keyboard.stdin))
    await shows(shown, "y/n > ")
    keyboard.type("n\n")
    await shows(shown, "somebody was faster")
    await shows(shown, "  > ")
    keyboard.type("x\n")
    await shows(shown, "422: too short")
    keyboard.type("xyz\n")
    while len(api.answers) < 3:
        await asyncio.sleep(0.005)
    both.set()
    assert await watching == 0
    assert api.answers == [("ex_1", "in_1", False), ("ex_1", "in_2", "x"), ("ex_1", "in_2", "xyz")]


def test_a_declined_input_is_shown() -> None:
    """With who declined."""
    declined = event("input:received", inputId="in_1", by="bob", declined=True)
    assert [str(line) for line in Transcript().apply(declined)] == ["  declined by bob"]


async def test_what_others_answered_is_not_asked(keyboard: Keyboard) -> None:
    """A question of the replayed past is not asked; one that somebody else answers meanwhile is withdrawn."""
    old = event("input:required", inputId="in_0", prompt="Old?", kind="approval")
    answered = [event("input:received", inputId=name, by="bob", value=True) for name in ("in_0", "in_1")]
    withdraw = asyncio.Event()
    api = FakeApi(old, answered[0], LIVE, ASKED, withdraw, answered[1], DONE)
    shown = console(terminal=True)
    watching = asyncio.create_task(watch(api, "ex_1", shown, stdin=keyboard.stdin))
    await shows(shown, "y/n > ")
    withdraw.set()
    assert await watching == 0
    assert output(shown).count("y/n > ") == 1
    assert api.answers == []


async def test_what_was_typed_before_the_question_is_no_answer(keyboard: Keyboard) -> None:
    """Type-ahead does not approve anything."""
    keyboard.type("y\n")
    go = asyncio.Event()
    api = FakeApi(LIVE, ASKED, go, DONE)
    shown = console(terminal=True)
    watching = asyncio.create_task(watch(api, "ex_1", shown, stdin=keyboard.stdin))
    await shows(shown, "y/n > ")
    await asyncio.sleep(0.05)
    go.set()
    await watching
    assert api.answers == []


async def test_being_cancelled_leaves_the_terminal_in_order(keyboard: Keyboard) -> None:
    """Ctrl-C while a question is open ends the watch, and the cursor is shown again."""
    api = FakeApi(LIVE, event("progress", progress=10), ASKED, asyncio.Event())
    shown = console(terminal=True)
    watching = asyncio.create_task(watch(api, "ex_1", shown, stdin=keyboard.stdin))
    await shows(shown, "y/n > ")
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert output(shown).count("\x1b[?25l") == output(shown).count("\x1b[?25h")


# --- messages to the agent -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "lines", "left"),
    [
        ("shorter\n", ["shorter"], ""),
        ("a\rb\nc", ["a", "b"], "c"),
        ("wrong\x7f\x7fte\n", ["wrote"], ""),
        ("one two three\x17\x17four", [], "one four"),
        ("all of it\x15none", [], "none"),
        ("le\x1b[Dft\x1bOP\x1b[3~!\x04\x01", [], "left!"),
        ("Grüße 🎉\n", ["Grüße 🎉"], ""),
        ("\x7f\x17\x15\n", [""], ""),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_a_line_is_edited(typed: str, lines: list[str], left: str, size: int) -> None:
    """However the bytes come: keys that delete do so, other keys and halves of characters leave nothing behind."""
    draft, given = Draft(), typed.encode()
    whole = [line for at in range(0, len(given), size) for line in draft.feed(given[at : at + size])]
    assert (whole, draft.text) == (lines, left)


async def test_what_is_typed_becomes_a_message(keyboard: Keyboard) -> None:
    """If the agent takes messages: shown while it is typed, sent at Enter; `!` interrupts, and empty lines are none."""
    api = FakeApi()
    api.accepts = True
    interrupted = asyncio.Event()
    api.script = (LIVE, interrupted, DONE)
    shown = console(terminal=True)
    watching = asyncio.create_task(watch(api, "ex_1", shown, stdin=keyboard.stdin))
    await shows(shown, "a message to the agent")
    keyboard.type("\nshorter")
    await shows(shown, "» shorter")
    assert api.said == []
    keyboard.type(", please\n! stop now \n!\n")
    async with asyncio.timeout(5):
        while len(api.said) < 2:
            await asyncio.sleep(0.005)
    interrupted.set()
    assert await watching == 0
    assert api.said == [("queue", "shorter, please"), ("interrupt", "stop now")]
    assert keyboard.is_as_before()


async def test_a_message_that_cannot_be_sent_is_shown(keyboard: Keyboard) -> None:
    """After an answer that was lost it is repeated under its id; a refusal is said, with the text."""
    api = FakeApi()
    api.accepts = True
    api.refusals = [EdgeUnreachable("http://edge", "gone"), ApiError(429, {"detail": "50 messages wait"})]
    api.script = (LIVE, api.heard, DONE)
    shown = console(terminal=True)
    watching = asyncio.create_task(watch(api, "ex_1", shown, stdin=keyboard.stdin))
    await shows(shown, "a message to the agent")
    keyboard.type("one\n")
    await shows(shown, "not sent (429: 50 messages wait): one")
    keyboard.type("two\n")
    assert await watching == 0
    assert api.said == [("queue", "one"), ("queue", "one"), ("queue", "two")]
    assert len(api.message_ids) == 2


async def test_a_question_comes_before_a_message(keyboard: Keyboard) -> None:
    """While one is open the line belongs to it; half a message that was typed before it is there again afterwards."""
    api, go = FakeApi(), asyncio.Event()
    api.accepts = True
    answered = event("input:received", inputId="in_1", by="me", value=True)
    api.script = (LIVE, go, ASKED, api.answered, answered, api.heard, DONE)
    shown = console(terminal=True)
    watching = asyncio.create_task(watch(api, "ex_1", shown, stdin=keyboard.stdin))
    await shows(shown, "a message to the agent")
    keyboard.type("half a ")
    await shows(shown, "» half a")
    go.set()
    await shows(shown, "y/n > ")
    assert keyboard.is_as_before()
    keyboard.type("y\n")
    await api.answered.wait()
    before = output(shown).count("» half a")
    await shows(shown, "» half a", before + 1)
    keyboard.type("message\n")
    assert await watching == 0
    assert api.answers == [("ex_1", "in_1", True)]
    assert api.said == [("queue", "half a message")]


async def test_an_agent_that_takes_no_messages_leaves_the_keyboard_alone(keyboard: Keyboard) -> None:
    """Nothing is read, and nothing sent."""
    api, go = FakeApi(), asyncio.Event()
    api.script = (LIVE, event("progress", progress=42), go, DONE)
    shown = console(terminal=True)
    watching = asyncio.create_task(watch(api, "ex_1", shown, stdin=keyboard.stdin))
    await shows(shown, "42 %", times=2)
    keyboard.type("hello\n")
    assert keyboard.is_as_before()
    go.set()
    assert await watching == 0
    assert api.said == []
    assert await read_line(keyboard.stdin) == "hello\n"


async def test_the_bar_is_drawn_and_taken_away() -> None:
    """On a terminal the live part appears while events come, and is gone at the end."""
    go = asyncio.Event()
    api = FakeApi(LIVE, event("progress", progress=42, currentAction="Reading"), go, DONE)
    shown = console(terminal=True)
    watching = asyncio.create_task(watch(api, "ex_1", shown))
    await shows(shown, "42 %")
    go.set()
    assert await watching == 0
    assert output(shown).count("\x1b[?25l") == output(shown).count("\x1b[?25h") >= 1


async def test_a_line_is_read_without_a_thread(keyboard: Keyboard) -> None:
    """A line is what was typed up to Enter, the end of input is nothing, and a cancelled read takes nothing away."""
    reading = asyncio.create_task(read_line(keyboard.stdin))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    keyboard.type("hello\n")
    async with asyncio.timeout(5):
        assert await read_line(keyboard.stdin) == "hello\n"
        keyboard.type("\x04")
        assert await read_line(keyboard.stdin) is None


class OneAfterTheOther:
    """An edge that is asked whether an agent takes messages: at first it does not, as nobody runs it yet."""

    def __init__(self) -> None:
        self.asked: list[bool] = []
        self.may_answer = asyncio.Event()

    async def messages(self, _: str) -> dict[str, Any]:
        accepts = bool(self.asked)
        self.asked.append(accepts)
        await self.may_answer.wait()
        return {"acceptsMessages": accepts}


async def test_an_attempt_that_begins_while_the_edge_is_asked_is_asked_about() -> None:
    """The answer on its way may be from before it began."""
    master, slave = pty.openpty()
    edge: Any = OneAfterTheOther()
    with os.fdopen(slave) as stdin:
        writer = Writer(edge, "ex_1", stdin, lambda _: None)
        writer.look()
        await asyncio.sleep(0)
        writer.look()
        edge.may_answer.set()
        async with asyncio.timeout(5):
            while edge.asked != [False, True]:
                await asyncio.sleep(0)
        await writer.stop()
    os.close(master)
