"""The page of an execution, from its start in the form to its end, with every fault in between."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect
from redis.asyncio import Redis

from emitter.budgets import Budget, BudgetState, Spent
from emitter.events import (
    BudgetNotice,
    ExecutionCancelled,
    ExecutionComplete,
    ExecutionQueued,
    ExecutionStarted,
    ExecutionSuperseded,
    InputRequired,
    MessageDelta,
    ModelCall,
    Phase,
    PhaseComplete,
    PhaseStart,
    Plan,
    PlanCreated,
    Progress,
    SandboxViolation,
    SpecialistActivated,
    Thinking,
    Timeout,
    ToolStart,
    UsageTotals,
)
from tests.edges import Author, call, eventually
from tests.web.browser import Complaints, WebStand, needs_chromium
from tests.web.console_page import ConsolePage, start

pytestmark = needs_chromium


async def test_the_whole_story_of_the_analyst(
    page: Page, stand: WebStand, user: str, complaints: Complaints, tmp_path: Path
) -> None:
    """Started by the form, followed phase by phase, asked, approved, and complete with its report."""
    (tmp_path / "a.py").write_text("def add(a, b):\n    return a + b  # TODO: check\n")
    console = await ConsolePage(page, stand, user).open()
    await console.list.get_by_role("link", name="New").click()
    await page.get_by_role("radio", name="analyst").check()
    await page.get_by_label("Task").fill(str(tmp_path))
    await page.get_by_label("Pace").fill("0")
    await page.get_by_role("button", name="Start").click()

    await expect(console.state).to_have_text("Needs an answer")
    await expect(console.title).to_have_text(str(tmp_path))
    await expect(console.entry(str(tmp_path))).to_contain_text("Needs an answer")
    steps = page.get_by_role("list", name="Plan").get_by_role("listitem")
    await expect(steps).to_contain_text(["Explore", "Structure", "Quality", "Tests", "Report"])
    await expect(page).to_have_title(re.compile(r"^\(1\)"))
    await expect(console.questions).to_contain_text("Write the report to")
    await expect(console.rows.get_by_role("heading", name=re.compile("a survey of its code"))).to_be_visible()
    await console.questions.get_by_role("button", name="Approve").click()

    await expect(console.state).to_have_text("Completed")
    await expect(console.questions).to_be_hidden()
    await expect(console.row("Approved by")).to_contain_text(user)
    await expect(console.row("write_file")).to_contain_text("bytes")
    await expect(console.row("Completed in")).to_contain_text("Summary")
    await expect(console.details.get_by_text("Tokens in")).to_be_visible()
    await expect(console.details.get_by_role("button", name="RUNCAST_REPORT.md")).to_be_visible()
    await expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    assert "a.py" in (tmp_path / "RUNCAST_REPORT.md").read_text()


async def test_a_tool_call_opens_to_its_parameters_and_result(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """Calls, errors, streamed Markdown and usage of one execution."""
    console = await ConsolePage(page, stand, user).watch(await start(stand, user, "teller"))
    add = console.row("add").get_by_role("button")
    await expect(console.row("divide")).to_contain_text("by zero")
    await add.click()
    await expect(add).to_have_attribute("aria-expanded", "true")
    await expect(console.row("add").locator(".call-detail")).to_contain_text(
        re.compile("Parameters.*Result.*Sum", re.DOTALL)
    )
    await expect(console.rows.locator("strong")).to_have_text("3")


async def test_specialists_stand_side_by_side(
    page: Page, stand: WebStand, user: str, complaints: Complaints, tmp_path: Path
) -> None:
    """Each has a card with its progress, findings and summary; one that fails says so; the question is a choice."""
    (tmp_path / "a.py").write_text("def add(a, b):\n    return a + b\n")
    execution_id = await start(stand, user, "panel", str(tmp_path), pace=0, patience=0, fail="docs")
    console = await ConsolePage(page, stand, user).watch(execution_id)
    members = console.rows.locator(".member")
    await expect(members).to_have_count(3)
    await expect(members.filter(has_text="docs")).to_contain_text("failed: it was told to fail")
    await expect(console.state).to_have_text("Completed")


async def test_nothing_goes_on_in_an_execution_that_is_over(
    page: Page, stand: WebStand, web_author: Author, complaints: Complaints
) -> None:
    """After a cancel, phases, specialists and calls that ran are shown as interrupted."""
    plan = Plan(goal="g", phases=[Phase(id=name, name=name) for name in ("first", "second", "third")])
    await web_author.begin()
    await web_author.write(
        PlanCreated(plan=plan),
        PhaseStart(phase_id="first", phase_name="first"),
        PhaseComplete(phase_id="first", phase_name="first", duration=1),
        PhaseStart(phase_id="second", phase_name="second"),
        ToolStart(call_id="c", tool_name="search", params={"for": "ever"}),
        SpecialistActivated(specialist="legal", task="Read the contract"),
        ExecutionCancelled(reason="enough", by=web_author.user),
    )
    console = await ConsolePage(page, stand, web_author.user).watch(web_author.execution_id)
    await expect(console.state).to_have_text("Cancelled")
    steps = page.get_by_role("list", name="Plan").get_by_role("listitem")
    await expect(steps).to_contain_text(["first1.0 s, complete", "second, interrupted", "third, pending"])
    await expect(console.rows.locator(".member.is-interrupted")).to_contain_text("interrupted")
    await expect(console.row("search")).to_contain_text("interrupted")


@pytest.mark.parametrize(
    ("kind", "options"), [("choice", ["staging", "production"]), ("choice", [f"option {n}" for n in range(9)])]
)
async def test_a_choice_is_answered_in_place(
    page: Page, stand: WebStand, user: str, complaints: Complaints, kind: str, options: list[str]
) -> None:
    """Few choices are buttons, many are a list."""
    execution_id = await start(stand, user, "asker", kind=kind, options=options, prompt="Where?")
    console = await ConsolePage(page, stand, user).watch(execution_id)
    if len(options) > 4:
        await console.questions.get_by_role("button", name="Send").click()
        await expect(console.questions.get_by_role("status")).to_have_text("Choose one.")
        await console.questions.get_by_role("radio", name=options[-1]).check()
        await console.questions.get_by_role("button", name="Send").click()
    else:
        await console.questions.get_by_role("button", name=options[-1]).click()
    await expect(console.row("answered")).to_contain_text(f"{user} answered: {options[-1]}")


async def test_a_text_is_answered_and_a_second_answer_is_told_who_was_first(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """A question that somebody else answered meanwhile closes by itself."""
    execution_id = await start(stand, user, "asker", kind="text", prompt="Which name?")
    console = await ConsolePage(page, stand, user).watch(execution_id)
    await expect(console.questions).to_contain_text("Which name?")
    await page.keyboard.press("a")
    await expect(console.questions.get_by_role("textbox")).to_be_focused()
    log = await call(stand.edges[0].port, "GET", f"/api/agent/executions/{execution_id}", stand.token(user))
    body = {"inputId": log.body["openInputs"][0]["inputId"], "value": "Runcast"}
    await call(stand.edges[1].port, "POST", f"/api/agent/executions/{execution_id}/input", stand.token(user), body)
    await expect(console.row("answered")).to_contain_text("Runcast")
    await expect(console.questions).to_be_hidden()


async def test_a_question_is_declined(page: Page, stand: WebStand, user: str, complaints: Complaints) -> None:
    """Who does not want to answer says so, of any question; the story shows who it was."""
    execution_id = await start(stand, user, "asker", kind="choice", options=["a", "b"], prompt="Where?")
    console = await ConsolePage(page, stand, user).watch(execution_id)
    await console.questions.get_by_role("button", name="Decline").click()
    await expect(console.row("Declined by")).to_contain_text(user)
    await expect(console.questions).to_be_hidden()


async def test_a_form_is_made_from_its_schema(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Types, limits, choices, nested objects; an error is shown at its field; empty fields are left out."""
    schema = {
        "type": "object",
        "required": ["email"],
        "properties": {
            "email": {"type": "string", "format": "email"},
            "copies": {"type": "integer", "minimum": 1, "maximum": 5},
            "channel": {"enum": ["mail", "post"]},
            "quiet": {"type": "boolean", "title": "No sound"},
            "days": {"type": "array", "items": {"enum": ["sat", "sun"]}},
            "to": {"type": "object", "properties": {"city": {"type": "string"}}},
            "extra": {"anyOf": [{"type": "object"}, {"type": "null"}]},
        },
    }
    await web_author.begin()
    await web_author.write(InputRequired(input_id="i1", prompt="Who is told?", kind="form", schema=schema))
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    form, status = console.questions, console.questions.get_by_role("status")
    await form.get_by_role("button", name="Send").click()
    await expect(status).to_have_text("Email is required.")
    await form.get_by_label("Email").fill("ada@example.com")
    await form.get_by_label("Copies").fill("9")
    await form.get_by_role("button", name="Send").click()
    await expect(form.get_by_label("Copies")).to_be_focused()
    await form.get_by_label("Copies").fill("2")
    await form.get_by_label("Channel").select_option("post")
    await form.get_by_label("No sound").check()
    await form.get_by_label("sun").check()
    await form.get_by_label("City").fill("Vienna")
    await form.get_by_role("button", name="Send").click()
    await expect(console.row("answered")).to_contain_text(user)
    received = (await web_author.log())[-1]
    assert '"value":{"email":"ada@example.com","copies":2,"channel":"post"' in received.data
    assert '"quiet":true,"days":["sun"],"to":{"city":"Vienna"}}' in received.data


async def test_cancelling_asks_first_and_shows_who_and_why(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """A call that ran is shown as interrupted afterwards."""
    execution_id = await start(stand, user, "sleeper", "Wait")
    console = await ConsolePage(page, stand, user).watch(execution_id)
    await expect(console.row("I wait")).to_be_visible()
    await page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog", name="Cancel this execution?")
    await dialog.get_by_label("Reason").fill("Not needed")
    await dialog.get_by_role("button", name="Cancel execution").click()
    await expect(console.row("Cancelled")).to_contain_text(re.compile(f"{user}.*Not needed", re.DOTALL))
    await expect(console.row("sleep").locator(".call")).to_have_class(re.compile("is-interrupted"))
    await expect(console.entry("Wait")).to_contain_text("Cancelled")


async def test_a_failure_shows_its_error_and_on_demand_its_stack(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """The stack trace is loaded on demand, as no event has it."""
    console = await ConsolePage(page, stand, user).watch(await start(stand, user, "failer", "Break <b>it</b>"))
    end = console.row("Failed")
    await expect(end).to_contain_text("Break <b>it</b>")
    await end.get_by_role("button", name="Show the stack trace").click()
    await expect(end).to_contain_text("Traceback")


async def test_a_superseded_attempt_is_void_but_can_be_seen(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Rows of a lost attempt are hidden; slow steps and sandbox violations are shown."""
    begin = await web_author.begin()
    await web_author.write(
        Thinking(thought="Before the loss"), ToolStart(call_id="c", tool_name="lost_call", params={})
    )
    await web_author.write(ExecutionSuperseded(from_seq=begin.seq, attempt=2))
    await web_author.write(
        ExecutionStarted(task="t", started_at=1, attempt=2),
        Timeout(message="The disk is slow", action="continuing"),
        SandboxViolation(rule="network", detail="10.0.0.1 refused"),
        ModelCall(call_id="c", model="large-1", input_tokens=12, output_tokens=3, duration=1.5),
        ExecutionComplete(result={"ok": True}, duration=1.0),
    )
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.row("Slow step: The disk is slow")).to_contain_text("goes on")
    await expect(console.row("Sandbox violation: network")).to_be_visible()
    await expect(console.row("Model call: large-1")).to_contain_text("12 tokens in, 3 out, 1.5 s")
    await expect(console.row("Before the loss")).to_have_count(0)
    await console.row("Attempt 1 was lost").get_by_role("button").click()
    await expect(console.row("Before the loss")).to_have_class(re.compile("is-void"))
    await expect(console.row("lost_call").locator(".call")).to_have_class(re.compile("is-interrupted"))


async def test_the_head_shows_what_is_spent(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Of each limit, with the limit; in another colour once 80 % of one is spent. The notice is a row."""
    limit, before = Budget(total_tokens=1000, cost_usd=0.5, tool_calls=5), Spent(total_tokens=100)
    await web_author.begin()
    await web_author.write(
        ExecutionStarted(task="t", started_at=1, attempt=2, budget=BudgetState(limit, before)),
        ToolStart(call_id="c", tool_name="t", params={}),
        UsageTotals(input_tokens=400, output_tokens=0, total_tokens=400, cost_usd=0.1),
    )
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    spent = page.locator(".execution-budget")
    await expect(spent).to_have_text("Tokens 500 / 1,000 · Cost $0.10 / $0.50 · Tool calls 1 / 5")
    await expect(spent).not_to_have_attribute("data-spent", "most")
    await web_author.write(
        UsageTotals(input_tokens=750, output_tokens=0, total_tokens=750, cost_usd=0.1),
        BudgetNotice(limit="totalTokens", spent=850, max=1000, action="continuing"),
    )
    await expect(spent).to_contain_text("Tokens 850 / 1,000")
    await expect(spent).to_have_attribute("data-spent", "most")
    await expect(console.row("Budget: Tokens: 850 of 1,000")).to_contain_text("goes on")


async def test_an_edge_that_is_killed_and_restarted_costs_nothing(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """The page says that it reconnects, and then shows every event of the log once, in order."""
    complaints.allow("Failed to load resource", "ERR_")
    await web_author.begin()
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await console.show_raw()
    for when in ("before", "meanwhile", "after"):
        for number in range(20):
            await web_author.think(f"{when} {number}")
        if when == "before":
            await expect(console.raw.get_by_text("before 19")).to_be_visible()
            stand.edges[0].kill()
            await expect(console.banner).to_contain_text("The connection was lost.")
        if when == "meanwhile":
            stand.edges[0].start().wait_ready()
    await web_author.end()
    await expect(console.state).to_have_text("Completed", timeout=40_000)
    await expect(console.banner).to_be_hidden()
    log = await web_author.log()
    await console.has_raw(range(1, len(log) + 1))
    await expect(console.details.locator(".rail-connection")).to_contain_text(log[-1].id)


async def test_without_a_network_it_says_so_and_then_goes_on(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Events of the time offline are shown when the network is back, each once; with and without sharing."""
    complaints.allow("Failed to load resource", "ERR_")
    await page.add_init_script("delete globalThis.SharedWorker")  # set_offline reaches no worker
    await web_author.begin()
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.row("Started")).to_be_visible()
    await page.context.set_offline(True)
    await expect(console.banner).to_contain_text("This device is offline.")
    await web_author.think("while away")
    await page.context.set_offline(False)
    await expect(console.row("while away")).to_have_count(1)
    await expect(console.banner).to_be_hidden()
    await console.show_raw()
    await console.has_raw([1, 2])


async def test_many_tabs_are_all_live_over_two_connections(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Four tabs, each with the list and an execution, although a browser opens at most six connections to an edge."""
    await web_author.begin()
    tabs = [page, *[await page.context.new_page() for _ in range(3)]]
    consoles = [await ConsolePage(tab, stand, user).watch(web_author.execution_id) for tab in tabs]
    await web_author.think("for all of them")
    for tab, console in zip(tabs, consoles, strict=True):
        await tab.bring_to_front()
        await expect(console.row("for all of them")).to_be_visible()
    await eventually("two connections", lambda: open_streams(stand) == 2)


def open_streams(stand: WebStand) -> float:
    return sum(edge.metric("runcast_connections") for edge in stand.edges)


async def test_pausing_holds_the_page_and_not_the_stream(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """New events are counted, and shown after the pause."""
    await web_author.begin()
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.row("Started")).to_be_visible()
    await page.get_by_role("button", name="Freeze view").click()
    await web_author.think("while paused")
    await expect(page.get_by_text("The view is frozen; the agent goes on. 1 new event since.")).to_be_visible()
    await expect(console.row("while paused")).to_have_count(0)
    await page.keyboard.press("p")
    await expect(console.row("while paused")).to_be_visible()


async def test_who_scrolls_up_is_left_there(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """New rows do not move the rows in view; a button shows their number and leads to them."""
    await web_author.begin()
    await web_author.say(80)
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.row("80 ")).to_be_in_viewport()
    await expect(console.rows.locator("> li")).to_have_count(81)  # some come with each frame, and it follows until then
    await page.get_by_role("region", name="Story").evaluate("node => node.scrollTop = 700")
    jump = page.locator(".jump:visible")
    await expect(jump).to_be_visible()
    top = "node => node.getBoundingClientRect().top"
    before = await console.row("30 ").evaluate(top)
    await web_author.say(5)
    await expect(jump).to_have_text("5 new rows below")
    assert await console.row("30 ").evaluate(top) == before
    await jump.click()
    await expect(console.row("85 ")).to_be_in_viewport()
    await expect(jump).to_have_count(0)


async def test_filters_show_only_what_is_asked_for(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """By words and by types of rows, in the story and in the raw events."""
    console = await ConsolePage(page, stand, user).watch(await start(stand, user, "teller"))
    await expect(console.rows.locator(".row-end")).to_be_visible()
    await page.get_by_role("searchbox", name="Filter by words").fill("BY ZERO")
    await expect(console.rows.get_by_role("listitem")).to_have_count(1)
    await expect(console.row("divide")).to_be_visible()
    await page.get_by_role("searchbox", name="Filter by words").fill("")
    await page.get_by_role("button", name="Types").click()
    await page.get_by_role("button", name="Tools", exact=True).click()
    await expect(console.rows.get_by_role("listitem")).to_have_count(2)
    await console.show_raw()
    types = await console.raw.locator(".raw-type").all_text_contents()
    assert {name.partition(":")[0] for name in types} == {"tool"}


async def test_the_log_is_exported_and_the_stream_is_a_command(
    page: Page, stand: WebStand, stand_redis: Redis, user: str, complaints: Complaints, tmp_path: Path
) -> None:
    """The file is the whole log; the command has no token in it."""
    execution_id = await start(stand, user, "teller")
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    console = await ConsolePage(page, stand, user).watch(execution_id)
    await expect(console.rows.locator(".row-end")).to_be_visible()
    await page.get_by_role("button", name="More").click()
    await page.get_by_role("button", name="Copy as curl").click()
    await expect(page.get_by_text("Command copied")).to_be_visible()
    command = await page.evaluate("navigator.clipboard.readText()")
    assert command == (
        f"curl -N -H \"Authorization: Bearer $RUNCAST_TOKEN\" '{stand.url}/api/agent/executions/{execution_id}/stream'"
    )
    async with page.expect_download() as download:
        await page.get_by_role("button", name="More").click()
        await page.get_by_role("button", name="Export as NDJSON").click()
    file = await download.value
    assert file.suggested_filename == f"{execution_id}.ndjson"
    await file.save_as(tmp_path / "log")
    log = await Author(stand_redis, user, execution_id).log()
    assert [json.loads(line)["id"] for line in (tmp_path / "log").read_text().splitlines()] == [each.id for each in log]


async def test_ten_executions_at_once_are_followed_in_the_list(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """Each with its own state, newest first, found by words and by state."""
    console = await ConsolePage(page, stand, user).open()
    for number in range(10):
        await start(stand, user, ("asker", "failer", "sayer")[number % 3], f"Task {number}")
    entries = console.list.get_by_role("listitem")
    await expect(entries).to_have_count(10)
    await expect(entries.filter(has_text="Needs an answer")).to_have_count(4)
    await expect(entries.filter(has_text="Failed")).to_have_count(3)
    await expect(entries.filter(has_text="Completed")).to_have_count(3)
    await expect(entries.first).to_contain_text("Task 9")
    await console.list.get_by_role("button", name="Needs you").click()
    await expect(entries).to_have_count(4)
    await console.list.get_by_role("searchbox").fill("task 9")
    await expect(entries).to_have_count(1)
    await expect(page).to_have_title(re.compile(r"^\(4\)"))


async def test_an_execution_that_is_not_there_is_said_to_be_not(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """A link to nothing, or to another's, ends in a sentence, and offers nothing to do to it."""
    complaints.allow("status of 404")
    console = await ConsolePage(page, stand, user).watch("ex_of_nobody")
    await expect(console.banner).to_have_text("There is no such execution, or it is not yours.")
    await expect(page.get_by_role("main").get_by_role("button").or_(console.rows).filter(visible=True)).to_have_count(0)
    await expect(page.get_by_role("main").get_by_text("Queued")).to_be_hidden()


async def test_what_was_under_way_before_is_listed_with_how_far_it_is(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Of an execution that says nothing any more, the list shows progress and doing as if it had heard them."""
    await web_author.write(
        ExecutionQueued(task="Long ago", agent="a"),
        ExecutionStarted(task="Long ago", started_at=1, attempt=1),
        Progress(progress=40, current_action="Counting"),
    )
    console = await ConsolePage(page, stand, user).open()
    entry = console.entry("Counting")
    await expect(entry.locator(".meter")).to_be_visible()
    assert await entry.locator(".meter").evaluate("meter => meter.style.getPropertyValue('--share')") == "40"
    await web_author.progress(60)
    await expect(entry.locator(".meter[style*=' 60']")).to_be_visible()


async def test_a_question_can_be_answered_on_a_low_screen(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """With a long prompt and large text, the answers and the header are in view."""
    await page.set_viewport_size({"width": 720, "height": 430})  # a laptop's window at 200 %
    await web_author.begin()
    await web_author.write(InputRequired(input_id="i", prompt="Why? " * 300, kind="approval"))
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    for name in ("Approve", "Decline"):
        await expect(console.questions.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)
    await expect(console.title).to_be_in_viewport(ratio=1)


async def test_a_story_is_printed_whole(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """On paper is what the page holds, not what a screen has room for, and nothing to press."""
    await web_author.begin()
    await web_author.say(120)
    await web_author.end()
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.row("Completed")).to_have_count(1)
    await expect(console.rows.locator("> li")).to_have_count(122)  # some come with each frame
    await page.emulate_media(media="print")
    assert await page.evaluate("document.documentElement.scrollHeight") > 120 * 20
    await expect(page.get_by_role("button").or_(console.list).filter(visible=True)).to_have_count(0)


async def test_a_long_log_opens_in_short(page: Page, stand: WebStand, user: str, web_author: Author) -> None:
    """The text that was streamed before the page opened came as one event; what follows is added to it."""
    await web_author.write(ExecutionStarted(task="Tell", started_at=1, attempt=1))
    await web_author.write(*(MessageDelta(message_id="m", delta=f"{number} ") for number in range(500)))
    console = await ConsolePage(page, stand, user).watch("ex_1")
    await expect(console.row("0 1 2 3")).to_contain_text("498 499")
    await web_author.write(*(MessageDelta(message_id="m", delta=f"more{number} ") for number in range(3)))
    await expect(console.row("0 1 2 3")).to_contain_text("499 more0 more1 more2")
    await console.show_raw()
    await console.has_raw([1, 501, 502, 503, 504])


async def test_children_are_in_their_parents_story(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """Each with its state as it changes, its result, and a link to its own page."""
    console = await ConsolePage(page, stand, user).watch(await start(stand, user, "delegator"))
    asked, sleeper = console.row("May I?"), console.row("sleeper")
    await expect(asked).to_contain_text("Needs an answer")
    await expect(sleeper).to_contain_text("Running")
    parent = page.url
    await asked.get_by_role("link", name="asker · asked").click()
    await expect(console.title).to_have_text("May I?")
    await console.questions.get_by_role("button", name="Approve").click()
    await expect(console.state).to_have_text("Completed")
    await page.goto(parent)
    await expect(console.state).to_have_text("Completed")
    await expect(asked).to_contain_text("Completed")
    await expect(asked).to_contain_text('{"answer":true}')
    await expect(sleeper).to_contain_text("Cancelled")
