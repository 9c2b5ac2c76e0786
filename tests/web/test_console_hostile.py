"""Text of agents stays text: no script of it runs, nothing reads as something else, and no amount blocks the page."""

from __future__ import annotations

from typing import Any

from playwright.async_api import BrowserContext, Page, expect

from emitter.events import (
    Artifact,
    Custom,
    ExecutionQueued,
    ExecutionStarted,
    InputRequired,
    MessageDelta,
    PartialResult,
    PhaseStart,
    Plan,
    PlanCreated,
    Progress,
    SpecialistActivated,
    Status,
    Thinking,
    ToolComplete,
    ToolStart,
    UsageTotals,
)
from tests.edges import Author
from tests.web.browser import Complaints, WebStand, needs_chromium
from tests.web.console_page import A_FRAME, ConsolePage

pytestmark = needs_chromium

MARKUP = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'><a href='javascript:window.hacked=1'>"
MARKDOWN = "[go](javascript:window.hacked=1) ![i](data:image/png,x) [ok](https://example.com) <b>bold</b> " + MARKUP
RIGHT_TO_LEFT = "report\u202egnp.exe \u2066isolated \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627"
NASTY = MARKUP + RIGHT_TO_LEFT + "\x00\x1b[31m"
NASTY_SCHEMA = {"properties": {NASTY: {"title": NASTY, "enum": [NASTY]}}}
LONG = "long " * 12_000
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
UNBROKEN = "x" * 60_000
OPEN_ALL = "document.querySelectorAll('.rows [aria-expanded=false]').forEach(button => button.click())"
TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("*")]
    .filter(node => node.getBoundingClientRect().right > innerWidth + 1)
    .map(node => `${node.tagName}.${node.className}`)"""


async def test_no_agent_can_put_markup_into_the_page(
    page: Page, context: BrowserContext, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """In every field of the story, the details, the list and the raw events."""
    dialogs: list[Any] = []
    requests: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog))
    page.on("request", lambda request: requests.append(request.url))
    await web_author.write(
        ExecutionQueued(task=NASTY, agent=NASTY),
        ExecutionStarted(task=NASTY, started_at=1, attempt=1),
        PlanCreated(plan=Plan(NASTY, [])),
        PhaseStart(phase_id="p", phase_name=NASTY),
        Status(status=NASTY, message=NASTY),
        Thinking(thought=NASTY),
        MessageDelta(message_id="m", delta=MARKDOWN),
        ToolStart(call_id="c", tool_name=NASTY, params={NASTY: NASTY}),
        ToolComplete(call_id="c", tool_name=NASTY, result=[{NASTY: NASTY}, {NASTY: NASTY}], duration=1),
        PartialResult(result={NASTY: [NASTY, {NASTY: NASTY}]}),
        Artifact(artifact_id="a", media_type=NASTY, name=NASTY, text=NASTY, last=True),
        Artifact(artifact_id="u", media_type="text/html", url="javascript:window.hacked=1", last=True),
        Custom(name="nasty", data={NASTY: NASTY}),
        UsageTotals(input_tokens=1, output_tokens=1, total_tokens=2, model=NASTY),
        InputRequired(input_id="i", prompt=NASTY, kind="choice", options=[NASTY, MARKUP]),
        InputRequired(input_id="f", prompt=NASTY, kind="form", schema=NASTY_SCHEMA),
        SpecialistActivated(specialist=NASTY, task=NASTY, icon=NASTY),
        Progress(progress=50, current_action=NASTY),
    )  # fmt: skip
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.rows.locator(".member")).to_have_count(1)
    await expect(console.rows.locator("> li").first).to_contain_text("Queued")  # the last rows may come first
    await page.evaluate(OPEN_ALL)
    await expect(console.title).to_contain_text("<script>")
    await expect(console.questions.get_by_role("radio", name="<script>").first).to_be_visible()
    links = await console.rows.get_by_role("link").evaluate_all("links => links.map(link => link.href)")
    assert links == ["https://example.com/"]
    assert await page.evaluate("document.querySelectorAll('.stage :is(script, img, b, iframe)').length") == 0
    await console.show_raw()
    await expect(console.raw.get_by_role("listitem")).to_have_count(18)
    await console.raw.get_by_role("button").nth(4).click()
    await console.is_alive()
    assert await page.evaluate("window.hacked") is None
    assert dialogs == []
    assert [url for url in requests if not url.startswith(stand.url)] == []


async def test_a_picture_is_shown_and_nothing_else_that_comes_by_value(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Of a data URL the page shows a raster image; a document, or what only says that it is one, stays text."""
    await web_author.begin()
    urls = [
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:text/html;base64,PGI+",
        f'data:image/png;base64,{PIXEL}"onerror="window.hacked=1',
        f"data:image/png;base64,{PIXEL}",
    ]
    for number, url in enumerate(urls):
        await web_author.write(
            Artifact(artifact_id=str(number), media_type="image/png", name="dot", url=url, last=True)
        )
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    picture = console.rows.get_by_role("img", name="dot")
    await expect(picture).to_have_attribute("src", urls[-1])
    assert await picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1
    assert await console.rows.locator("img").count() == 1
    assert await page.evaluate("window.hacked") is None


async def test_characters_that_reorder_others_are_written_out(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """`report\\u202egnp.exe` cannot pass for `reportexe.png` where a person has to approve; Hebrew stays Hebrew."""
    await web_author.begin()
    prompt = f"Run {RIGHT_TO_LEFT}?"
    await web_author.write(InputRequired(input_id="i", prompt=prompt, kind="approval"))
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.questions).to_contain_text("Run report\u2039U+202E\u203agnp.exe")
    await expect(console.questions).to_contain_text("\u05e9\u05dc\u05d5\u05dd")


async def test_long_texts_are_clamped_and_none_widens_the_page(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """60 KiB in a thought, a message, a parameter, a key, a prompt: shown in part, and whole when asked for."""
    await web_author.begin()
    await web_author.write(
        Thinking(thought=LONG),
        MessageDelta(message_id="m", delta=UNBROKEN),
        MessageDelta(message_id="n", delta="*_`[" * 15_000),
        ToolStart(call_id="c", tool_name=UNBROKEN, params={}),
        ToolStart(call_id="e", tool_name="e", params={"text": LONG}),
        ToolStart(call_id="d", tool_name="d", params={UNBROKEN: 1}),
        InputRequired(input_id="i", prompt=UNBROKEN, kind="approval"),
    )
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.questions.get_by_role("button", name="Approve")).to_be_in_viewport()
    thought = console.rows.locator(".row-thought")
    assert len(await thought.inner_text()) < 2_000
    await thought.get_by_role("button", name="Show all").click()
    assert len(await thought.inner_text()) > 59_000
    await page.evaluate(OPEN_ALL)
    assert await page.evaluate(TOO_WIDE) == []
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await page.evaluate(TOO_WIDE) == []
    await console.is_alive()


async def test_ten_thousand_events_leave_the_page_quick_and_small(
    page: Page, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """All at once, while it is watched: frames are drawn between them, and the page holds a part of the rows."""
    await web_author.begin()
    console = await ConsolePage(page, stand, user).watch(web_author.execution_id)
    await expect(console.row("Started")).to_be_visible()
    frames = 0
    for _ in range(10):
        await web_author.say(999)
        await page.evaluate(A_FRAME)
        frames += 1
    await expect(page.get_by_role("button", name="Raw events")).to_contain_text("9,991")
    assert frames == 10
    await expect(console.row("9990 ")).to_be_in_viewport()
    assert await console.rows.locator("li").count() <= 500
    await page.get_by_role("searchbox", name="Filter by words").fill("4321 ")
    await expect(console.rows.get_by_role("listitem")).to_have_count(1)
    await page.get_by_role("searchbox", name="Filter by words").fill("")
    await page.get_by_role("region", name="Story").evaluate("node => node.scrollTop = 0")
    await expect(console.row("9900 ")).to_have_count(1)
    await console.show_raw()
    assert await console.raw.locator("li").count() <= 500
    await console.is_alive()
