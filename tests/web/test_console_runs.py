"""A run in the console: what it was given and what came out, running it again, comparing two, and its timeline."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from playwright.async_api import Browser, BrowserContext, Locator, Page, expect
from redis.asyncio import Redis

from emitter.events import (
    ChildStarted,
    ExecutionComplete,
    ExecutionStarted,
    ExecutionSuperseded,
    InputReceived,
    InputRequired,
    MessageComplete,
    MessageDelta,
    ModelCall,
    PhaseComplete,
    PhaseStart,
    SpecialistActivated,
    SpecialistComplete,
    Status,
    Thinking,
    ToolComplete,
    ToolError,
    ToolStart,
)
from emitter.wire.keys import Owner
from tests.edges import Author
from tests.web.browser import Complaints, WebStand, needs_chromium, needs_windowed
from tests.web.console_page import A_FRAME, ConsolePage, start

pytestmark = needs_chromium

RECORD_NOTIFICATIONS = """
window.told = [];
window.Notification = class extends window.Notification {
  constructor(title, options) { super(title, options); told.push({title, ...options, note: this}); }
};
"""
FILL = """
async ([schema, values]) => {
  const { objectFields } = await import("/console/schema-form.js");
  const fields = objectFields(schema);
  return [fields.fill(values), fields.read()];
}
"""


def fact(console: ConsolePage, name: str) -> Any:
    """A value in the details."""
    term = console.page.get_by_text(name, exact=True)
    return console.details.locator(".pairs > div").filter(has=term).locator("dd").first


async def test_a_run_shows_what_it_was_given_and_what_came_out(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """Input and result stand above the story, without credentials; at the side are user, attempt and queue time."""
    execution_id = await start(stand, user, "teller", "Add", pause=0, apiKey="hunter2")
    console = await ConsolePage(page, stand, user).watch(execution_id)
    summary = page.get_by_role("region", name="Input and result")
    await expect(summary.get_by_role("group", name="Input")).to_contain_text(re.compile("Pause.*0.*Api key", re.DOTALL))
    await expect(summary).to_contain_text("[redacted]")
    await expect(summary).to_contain_text("Credentials are not kept.")
    await expect(summary.get_by_role("group", name="Result")).to_contain_text(re.compile("Sum.*3", re.DOTALL))
    await expect(fact(console, "User")).to_have_text(user)
    await expect(fact(console, "Attempt")).to_have_text("1")
    await expect(fact(console, "Queued for")).to_have_text(re.compile(r"\d+ (ms|s)"))
    await expect(fact(console, "Pause")).to_have_text("0")
    await expect(console.details.get_by_text("Replayed")).to_be_hidden()
    await console.details.get_by_text("Connection").click()
    await expect(console.details.get_by_text("Replayed")).to_be_visible()
    await page.set_viewport_size({"width": 1280, "height": 800})  # room for the story, but not for both
    await asyncio.sleep(1.1)  # what ended within the last second is news
    await page.reload()  # over when it is opened: the result is at the top, and not repeated at the end
    await expect(summary.get_by_role("group", name="Result")).to_be_in_viewport()
    await expect(console.row("Completed in").get_by_role("button", name="Show the result")).to_have_count(1)
    await expect(summary.get_by_role("group", name="Input")).to_be_visible()
    assert await page.get_by_role("region", name="Story").evaluate("node => node.scrollTop") == 0


async def test_a_failed_run_is_run_again_with_another_input(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """The form has what it was started with; the new run says of which it is another."""
    first = await start(stand, user, "failer", "Break it", why="a test")
    console = await ConsolePage(page, stand, user).watch(first)
    summary = page.get_by_role("region", name="Input and result")
    await expect(summary.get_by_role("group", name="Result")).to_contain_text("Break it")
    await page.get_by_role("link", name="Run again").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Run again")
    await expect(page.get_by_text(f"Filled in from {first}.")).to_be_visible()
    await expect(page.get_by_role("radio", name="failer")).to_be_checked()
    await expect(page.get_by_label("Task")).to_have_value("Break it")
    params = page.get_by_label("JSON object")
    await expect(params).to_have_value('{\n  "why": "a test"\n}')
    await params.fill("[1]")
    await page.get_by_role("button", name="Start").click()
    await expect(page.get_by_role("alert")).to_have_text("The parameters are a JSON object.")
    await params.fill('{"why": "another"}')
    await page.get_by_text("Options").click()
    await page.get_by_label("Tool calls").fill("5")
    await page.get_by_role("button", name="Start").click()
    await expect(summary.get_by_role("group", name="Input")).to_contain_text("another")
    await expect(fact(console, "Run again of")).to_have_text(first)
    await expect(page.locator(".execution-budget")).to_have_text("Tool calls 0 / 5")
    await page.get_by_role("link", name="Run again").click()
    await expect(page.get_by_label("Tool calls")).to_have_value("5")


async def test_fields_are_filled_and_what_has_none_is_left(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """A value that its field would not give back goes to the rest, whole."""
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "size": {"type": "integer", "maximum": 5},
            "big": {"type": "integer", "maximum": 5},
            "kind": {"enum": ["a", "b"]},
            "days": {"type": "array", "items": {"enum": ["sat", "sun"]}},
            "lines": {"type": "array", "items": {"type": "string"}},
            "at": {"type": "string", "format": "date-time"},
            "loud": {"type": "boolean"},
            "to": {"type": "object", "properties": {"city": {"type": "string"}}},
            "any": {},
        },
    }
    values = {
        "name": "x", "size": 3, "big": 9, "kind": "b", "days": ["sun"], "lines": ["a", "b"], "loud": True,
        "at": "2026-03-01T12:00:00.000Z", "to": {"city": "Wien"}, "any": {"deep": [1]}, "more": 1,
    }  # fmt: skip
    await ConsolePage(page, stand, user).open()
    left, read = await page.evaluate(FILL, [schema, values])
    assert left == {"big": 9, "more": 1}
    assert read == {name: value for name, value in values.items() if name not in left}


async def test_what_is_said_between_calls_stands_there(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """One message in pieces: each below the call before it, never within a block of code."""
    call = (
        ToolStart(call_id="c", tool_name="look", params={}),
        ToolComplete(call_id="c", tool_name="look", result=1, duration=0.0004),
    )
    await web_author.begin()
    await web_author.write(
        MessageDelta(message_id="m", delta="Before. "), *call, MessageDelta(message_id="m", delta="After.\n```\none\n"),
        *call, MessageDelta(message_id="m", delta="two\n```\n"),
        MessageComplete(message_id="m", text="Before. After.\n```\none\ntwo\n```\n"),
        MessageDelta(message_id="n", delta="Draft "), *call, MessageDelta(message_id="n", delta="of it"),
        MessageComplete(message_id="n", text="Final."),
        ExecutionComplete(result="**done**", duration=1),
    )  # fmt: skip
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.row("Completed")).to_have_count(1)
    texts = [text.split() for text in await console.rows.locator(".row-text .prose, .call-name").all_inner_texts()]
    assert texts == [["Before."], ["look"], ["After.", "one", "two"], ["look"], ["look"], ["Final."]]
    result = page.get_by_role("region", name="Input and result").get_by_role("group", name="Result")
    await expect(result.locator("strong")).to_have_text("done")
    times = await console.rows.locator(".row-time").all_inner_texts()
    assert all(re.fullmatch(r"\d+\.\d s", text) for text in times), times


async def test_failed_runs_are_found_beyond_those_in_the_list(
    page: Page, stand: WebStand, user: str, stand_redis: Redis, complaints: Complaints
) -> None:
    """The chip reads those that failed from the edge, however many others are newer."""
    record = {"state": "completed", "ms": 1, "seq": 1, "task": "fine", "agent": "a", "metadata": "{}"}
    owner = Owner(user)
    pipe = stand_redis.pipeline(transaction=False)
    for number in range(120):
        changes = {} if number else {"state": "failed", "task": "the old one"}
        pipe.hset(owner.execution(f"ex_{number}").record, mapping=record | changes)
        pipe.zadd(owner.index, {f"ex_{number}": 1000 + number})
    await pipe.execute()
    console = await ConsolePage(page, stand, user).open()
    await expect(console.list.get_by_role("listitem")).to_have_count(100)
    await console.list.get_by_role("button", name="Failed").click()
    await expect(console.list.get_by_role("listitem")).to_have_count(1)
    await expect(console.entry("the old one")).to_contain_text("Failed")


@needs_windowed
async def test_a_run_that_waits_is_told_to_whom_wants_it(
    windowed: Browser, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """Off until it is asked for; then a notification that leads to the run. What waits in view is not told."""
    context = await windowed.new_context()
    complaints.hear(context)
    page = await context.new_page()
    await context.grant_permissions(["notifications"], origin=stand.url)
    await context.add_init_script(RECORD_NOTIFICATIONS)
    console = await ConsolePage(page, stand, user).open()
    first = await start(stand, user, "asker", "The first", prompt="Now?")
    await expect(console.entry("The first")).to_contain_text("Needs an answer")
    bell = page.get_by_role("button", name="Notify me when a run needs me")
    await expect(bell).to_have_attribute("aria-pressed", "false")
    await bell.click()
    await expect(bell).to_have_attribute("aria-pressed", "true")
    second = await start(stand, user, "asker", "The second", prompt="And **now**?")
    await page.wait_for_function("() => told.length === 1")
    assert await page.evaluate("[told[0].title, told[0].body, told[0].tag]") == [
        "asker needs an answer", "And **now**?\nThe second", second,
    ]  # fmt: skip
    await page.evaluate("told[0].note.onclick()")
    await expect(console.title).to_have_text("The second")
    await expect(console.questions.locator("strong")).to_have_text("now")
    assert first != second
    await page.reload()
    await expect(bell).to_have_attribute("aria-pressed", "true")


async def test_two_runs_side_by_side(page: Page, stand: WebStand, user: str, complaints: Complaints) -> None:
    """Chosen from a list; what differs is marked; both timelines have one scale and zoom together."""
    complaints.allow("Failed to load resource")  # the run that does not exist
    one = await start(stand, user, "teller", "Add", pause=0.02, note="first")
    other = await start(stand, user, "failer", "Add", pause=0, note="second")
    console = await ConsolePage(page, stand, user).watch(one)
    await expect(console.state).to_have_text("Completed")
    await page.get_by_role("button", name="More").click()
    await page.get_by_role("button", name="Compare with…").click()
    await page.get_by_role("button", name=re.compile("Add")).click()
    await expect(page).to_have_url(re.compile(f"/compare/{one}/{other}$"))
    rows = page.get_by_role("row")
    await expect(rows.filter(has_text="State")).to_contain_text(re.compile("differs.*Completed.*Failed", re.DOTALL))
    await expect(rows.filter(has_text="Note")).to_have_text(re.compile("Note, differsfirstsecond"))
    await expect(rows.filter(has_text="Task")).not_to_have_class("differs")
    await expect(rows.filter(has_text="Tool calls")).to_contain_text("2, 1 failed")
    for letter in "AB":
        await expect(page.get_by_role("grid", name=f"Timeline of {letter}")).to_contain_text("Queued")
    zoom = page.get_by_role("button", name="Zoom in (+)")
    await zoom.first.click()
    for whole in await page.get_by_role("button", name="Whole run").all():
        await expect(whole).to_be_enabled()
    await page.get_by_role("link", name="Swap").click()
    await expect(rows.filter(has_text="State")).to_contain_text(re.compile("Failed.*Completed", re.DOTALL))
    await console.go(f"/compare/{one}/ex_none")
    await expect(page.get_by_text("There is no such execution, or it is not yours.")).to_be_visible()


# --- the timeline ----------------------------------------------------------------------------------------------------


def grid(page: Page) -> Locator:
    return page.get_by_role("grid", name="Timeline")


def row(page: Page, name: str) -> Locator:
    """The row with this name."""
    named = page.locator(".timeline-name").filter(has_text=re.compile(f"^{re.escape(name)}$"))
    return grid(page).get_by_role("row").filter(has=named)


async def shares(page: Page, *names: str) -> list[tuple[float, float]]:
    """Where the bars of these rows begin and end, in percent of the axis at one time: it grows with its run."""
    found: list[list[float]] = await grid(page).evaluate(
        """(grid, names) => names.map((name) => {
            const named = [...grid.querySelectorAll(".timeline-name")].find((node) => node.textContent === name);
            const { style } = named.closest("[role=row]");
            return ["--from", "--to"].map((each) => Number(style.getPropertyValue(each)));
        })""",
        list(names),
    )
    return [(begin, end) for begin, end in found]


async def test_who_did_what_when(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Attempts, phases, calls, specialists, children, model calls and waits for people, with their states and times."""
    begin = await web_author.begin()
    await web_author.write(ToolStart(call_id="c", tool_name="lost", params={}))
    await web_author.write(ExecutionSuperseded(from_seq=begin.seq, attempt=2))
    await web_author.write(
        ExecutionStarted(task="t", started_at=1, attempt=2),
        PhaseStart(phase_id="p", phase_name="Research"),
        ToolStart(call_id="a", tool_name="search", params={"q": "runcast"}),
    )
    await web_author.write(
        ToolComplete(call_id="a", tool_name="search", result=1, duration=0.5),
        ToolStart(call_id="b", tool_name="fetch", params={}),
        ToolError(call_id="b", tool_name="fetch", error="no", duration=0.1),
        ModelCall(call_id="m", model="large-1", input_tokens=1, output_tokens=1, duration=0.01),
        SpecialistActivated(specialist="legal", task="Read"),
        SpecialistComplete(specialist="legal", summary="read"),
        PhaseComplete(phase_id="p", phase_name="Research", duration=1),
        ChildStarted(execution_id="ex_child", agent="helper", task="help", key="k"),
        InputRequired(input_id="i", prompt="Go **on**?", kind="approval"),
        InputReceived(input_id="i", by="ada", value=True),
        InputRequired(input_id="j", prompt="Still?", kind="approval"),
    )
    complaints.allow("Failed to load resource")  # the child does not exist
    await ConsolePage(page, stand, user).open(f"/x/{web_author.execution_id}?view=timeline")
    said = {
        "Attempt 1": "Attempt, interrupted",
        "lost": "Tool, interrupted, void",
        "Queued": "Queue",
        "Attempt 2": "Attempt, running",
        "Research": "Phase",
        "search": "q runcast",
        "fetch": "Tool, failed",
        "Model call: large-1": "Model call",
        "legal": "Specialist",
        "helper · k": "Child, running",
        "Go **on**?": "ada",
        "Still?": "Person, waiting",
    }
    for name, what in said.items():
        await expect(row(page, name)).to_contain_text(what)
    order = await grid(page).locator(".timeline-name").all_inner_texts()
    assert [name for name in order if name in said] == [name for name in said if name in order]
    outer, inner = await shares(page, "Research", "search")
    assert outer[0] <= inner[0] <= inner[1] <= outer[1]
    before = await row(page, "Still?").locator(".timeline-time").inner_text()
    await expect(row(page, "Still?").locator(".timeline-time")).not_to_have_text(before)  # it grows
    await page.get_by_label("Filter by words").fill("fetch")
    await expect(row(page, "search")).to_have_count(0)
    await expect(row(page, "fetch")).to_have_count(1)


async def test_a_row_leads_to_the_story_by_mouse_and_by_keyboard(
    page: Page, context: BrowserContext, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Also to one of a lost attempt, which is opened. Keys move, zoom and pan; a link keeps the view."""
    begin = await web_author.begin()
    await web_author.say(4)
    await web_author.write(
        Thinking(thought="of the first attempt"), ToolStart(call_id="c", tool_name="hang", params={})
    )
    await web_author.write(ExecutionSuperseded(from_seq=begin.seq, attempt=2))
    await web_author.say(200)
    await web_author.end()
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await page.keyboard.press("v")
    await expect(grid(page)).to_have_attribute("aria-rowcount", "210")
    await expect(console.row("of the first attempt")).to_have_count(0)
    await grid(page).focus()
    for key in ("End", "ArrowUp", "ArrowUp"):
        await page.keyboard.press(key)
    await expect(row(page, "203")).to_have_attribute("aria-selected", "true")
    await page.keyboard.press("Enter")
    await expect(console.row("203 ")).to_be_focused()
    await expect(console.row("203 ")).to_be_in_viewport()
    await grid(page).focus()
    await page.keyboard.press("Home")
    await row(page, "of the first attempt").click()
    await expect(console.row("of the first attempt")).to_be_in_viewport()
    whole = page.get_by_role("button", name="Whole run")
    await expect(whole).to_be_disabled()
    await page.keyboard.press("+")
    await expect(whole).to_be_enabled()
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("0")
    await expect(whole).to_be_disabled()
    await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=stand.url)
    await page.get_by_role("button", name="More").click()
    await page.get_by_role("button", name="Copy link").click()
    await expect(page.get_by_text("Link copied")).to_be_visible()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{stand.url}/#/x/{web_author.execution_id}?view=timeline"
    await page.reload()
    await expect(grid(page)).to_be_visible()
    await page.keyboard.press("v")
    await expect(grid(page)).to_be_hidden()
    await expect(page).not_to_have_url(re.compile("view"))


async def test_thousands_of_events_are_a_few_rows_of_the_page(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """The page holds the rows in view only, whatever their number; all are reached, also while more come; on paper are
    more of them."""
    await web_author.begin()
    for batch in range(6):
        calls: list[Any] = []
        for number in range(batch * 250, batch * 250 + 250):
            calls.append(ToolStart(call_id=f"c{number}", tool_name=f"tool{number}", params={"n": number}))
            calls.append(ToolComplete(call_id=f"c{number}", tool_name=f"tool{number}", result=number, duration=0.001))
        await web_author.write(*calls)
    await ConsolePage(page, stand, user).open(f"/x/{web_author.execution_id}?view=timeline")
    await expect(grid(page)).to_have_attribute("aria-rowcount", "1501")
    await expect(row(page, "tool1499")).to_be_visible()  # it follows
    held = grid(page).locator(".timeline-row")
    assert await held.count() < 60
    await web_author.write(Status(status="s", message="one more"))
    await expect(row(page, "one more")).to_be_visible()
    await grid(page).focus()
    await page.keyboard.press("Home")
    await expect(row(page, "tool0")).to_be_visible()
    await web_author.write(ToolStart(call_id="x", tool_name="at-the-end", params={}))
    await expect(grid(page)).to_have_attribute("aria-rowcount", "1503")
    await expect(row(page, "tool0")).to_be_visible()
    await expect(row(page, "at-the-end")).to_have_count(0)
    assert await held.count() < 60
    await page.evaluate("dispatchEvent(new Event('beforeprint'))")
    await expect(held).to_have_count(1000)
    await page.evaluate("dispatchEvent(new Event('afterprint'))")
    await page.wait_for_function("() => document.querySelectorAll('.timeline-row').length < 60")


async def test_a_drag_over_the_whole_run_zooms(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """The strip above shows the window; a double click shows one row's time."""
    await web_author.begin()
    for number in range(3):
        await web_author.write(ToolStart(call_id=f"c{number}", tool_name=f"tool{number}", params={}))
        await page.wait_for_timeout(60)  # the logs' clock goes on
        await web_author.write(ToolComplete(call_id=f"c{number}", tool_name=f"tool{number}", result=1, duration=0.05))
    await web_author.end()
    await ConsolePage(page, stand, user).open(f"/x/{web_author.execution_id}?view=timeline")
    await expect(row(page, "Completed")).to_be_visible()  # from then on the axis stays as it is
    strip = await page.locator(".overview").bounding_box()
    assert strip is not None
    middle = strip["y"] + strip["height"] / 2
    (_, first_ends), (last_begins, _) = await shares(page, "tool0", "tool2")  # however long the calls took
    await page.mouse.move(strip["x"] + strip["width"] * (first_ends + last_begins) / 200, middle)
    await page.mouse.down()
    await page.mouse.move(strip["x"] + strip["width"], middle, steps=3)
    await page.mouse.up()
    await expect(row(page, "tool0").locator(".bar-of")).to_be_hidden()
    await expect(page.get_by_role("button", name="Whole run")).to_be_enabled()
    (before,) = await shares(page, "tool2")
    await row(page, "tool2").dblclick()
    async with asyncio.timeout(15):
        while (shown := (await shares(page, "tool2"))[0]) == before:
            await page.evaluate(A_FRAME)
    begin, end = shown
    assert 0 < begin < 30
    assert 70 < end <= 100
    assert re.match(r"\d+ ms|\d+(\.\d+)? s", await page.locator(".tick").first.inner_text())
