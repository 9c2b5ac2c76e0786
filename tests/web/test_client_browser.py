"""The client in Chromium, over real edges: connections that tabs share, `EventSource`, networks that go and come back,
tokens that expire. Each viewer must have every event of the log exactly once and in order."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from emitter.events import MessageDelta
from tests.edges import ROOT, Author, eventually, under_load
from tests.web.browser import Complaints, Stands, WebStand, needs_chromium

pytestmark = needs_chromium

FOLLOW = """async ({token, ttl, options, module, base, cookie}) => {
    const { RuncastClient } = await import(module ?? "/client/index.js");
    const seen = window.seen = {ids: [], text: "", phases: [], controls: [], refreshed: 0, status: null};
    let newest = token;
    const given = async ({refresh}) => {
        if (refresh) [seen.refreshed, newest] = [seen.refreshed + 1, await window.fresh()];
        return newest;
    };
    const baseUrl = base ?? (module ? new URL(module).origin : "");
    const client = new RuncastClient({baseUrl, token: cookie ? undefined : window.fresh ? given : token});
    window.stream = client.stream({
        ...options,
        onEvent: event => {
            seen.ids.push(event.id);
            seen.text += event.data.delta ?? "";
        },
        onControl: control => seen.controls.push(control.type),
        onStatus: status => {
            seen.status = {...status, error: status.error && String(status.error.message)};
            if (seen.phases.at(-1) !== status.phase) seen.phases.push(status.phase);
        },
    }).start();
}"""
CLIENT = ROOT / "broker" / "web" / "client"
WAIT_SECONDS = 30.0
MODES = ("fetch", "eventsource", "shared")


@pytest.fixture(scope="module")
def module_stand(stands: Stands) -> WebStand:
    return stands.get(max_connections_per_user=0)


class Tab:
    """A page that follows a stream with the client."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def follow(self, token: str | None, **options: Any) -> Tab:
        module = options.pop("module", None)
        base = options.pop("base", None)
        given = {"token": token, "options": options, "module": module, "base": base, "cookie": token is None}
        await self.page.evaluate(FOLLOW, given)
        return self

    async def until_live(self) -> None:
        await self.until_phase("live")

    async def until_phase(self, phase: str) -> None:
        await self.until(f"seen.status.phase === {phase!r}")

    async def until_received(self, count: int) -> None:
        await self.until(f"seen.ids.length >= {count}")

    async def until(self, condition: str) -> None:
        """Wait until a condition on what the tab has seen holds."""
        try:
            # By a timer: a tab in the background gets no animation frames.
            await self.page.wait_for_function(f"() => {condition}", polling=50, timeout=1000 * under_load(WAIT_SECONDS))
        except PlaywrightTimeoutError:
            seen = await self.seen()
            raise AssertionError(f"not in time: {condition}; {len(seen.pop('ids'))} ids, {seen}") from None

    async def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.page.evaluate("window.seen")
        return found

    async def ids(self) -> list[str]:
        found: list[str] = await self.page.evaluate("window.seen.ids")
        return found


async def new_tab(context: BrowserContext, stand: WebStand, edge: int = 0) -> Tab:
    """A tab of the edge's own origin, with nothing on it."""
    page = await context.new_page()
    await page.goto(stand.urls[edge] + "/openapi.json")
    return Tab(page)


async def log_ids(author: Author) -> list[str]:
    return [event.id for event in await author.log()]


def connections(stand: WebStand) -> float:
    return sum(edge.metric("runcast_connections") for edge in stand.edges)


async def nobody_connected(stand: WebStand) -> None:
    """What the tests before left has been noticed."""
    await eventually("no connections", lambda: connections(stand) == 0)


# --- gzip ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_events_in_gzip_arrive_one_by_one(
    context: BrowserContext, stand: WebStand, user: str, web_author: Author, mode: str
) -> None:
    """Chromium asks for gzip, and has each event before the next is sent; so has a second tab that joins later."""
    await nobody_connected(stand)
    await web_author.begin()
    saved = stand.edges[0].metric("runcast_event_bytes_saved_total")
    first = await (await new_tab(context, stand)).follow(stand.token(user), executionId="ex_1", mode=mode)
    await first.until_live()
    for number in range(15):
        await web_author.say(size=20_000 if number == 7 else number)
        await first.until_received(number + 2)
    second = await (await new_tab(context, stand)).follow(stand.token(user), executionId="ex_1", mode=mode)
    await second.until_live()
    for number in range(15, 20):
        await web_author.say()
        await asyncio.gather(first.until_received(number + 2), second.until_received(number + 2))
    await web_author.end()
    await asyncio.gather(first.until_phase("ended"), second.until_phase("ended"))
    assert await first.ids() == await second.ids() == await log_ids(web_author)
    assert (await first.seen())["status"]["reconnects"] == 0
    assert stand.edges[0].metric("runcast_event_bytes_saved_total") > saved


# --- many tabs -------------------------------------------------------------------------------------------------------


async def test_two_tabs_share_one_connection(
    context: BrowserContext, stand: WebStand, user: str, web_author: Author
) -> None:
    """Tabs of one user at one stream have one connection; each gets all events, from its own beginning, and the last
    that leaves, or has seen the end, closes it."""
    await nobody_connected(stand)
    await web_author.begin()
    await web_author.say(20)
    token = stand.token(user)
    first = await (await new_tab(context, stand)).follow(token, executionId="ex_1", mode="shared")
    await first.until_live()
    await web_author.say(5)
    second = await (await new_tab(context, stand)).follow(token, executionId="ex_1", mode="shared")
    await second.until_live()
    await web_author.say(5)
    await asyncio.gather(first.until_received(31), second.until_received(31))
    assert connections(stand) == 1
    # Each tab that the worker knows holds a lock, which is let go of with all that the worker keeps for it.
    await second.page.evaluate("""() => setInterval(async () => {
        window.locks = (await navigator.locks.query()).held.length;
    }, 50)""")
    await second.until("window.locks === 2")
    assert (await first.seen())["status"]["mode"] == (await second.seen())["status"]["mode"] == "shared"

    await first.page.close()
    await web_author.end()
    await second.until_phase("ended")
    assert await second.ids() == await log_ids(web_author)
    await nobody_connected(stand)
    await second.until("locks === 0")


async def test_seven_tabs_are_all_live(context: BrowserContext, stand: WebStand, user: str, web_author: Author) -> None:
    """A browser has six connections of HTTP/1.1 to an origin, and seven tabs are live all the same, with a request
    beside them."""
    await nobody_connected(stand)
    await web_author.begin()
    tabs = [await new_tab(context, stand) for _ in range(7)]
    await asyncio.gather(*(tab.follow(stand.token(user), executionId="ex_1", mode="shared") for tab in tabs))
    await asyncio.gather(*(tab.until_live() for tab in tabs))
    await web_author.say(3)
    await asyncio.gather(*(tab.until_received(4) for tab in tabs))
    assert connections(stand) == 1
    status = "token => fetch('/api/agent/agents', {headers: {Authorization: `Bearer ${token}`}}).then(r => r.status)"
    assert await tabs[6].page.evaluate(status, stand.token(user)) == 200
    assert all([await tab.ids() == await log_ids(web_author) for tab in tabs])


async def test_a_tab_without_a_connection_says_why(
    context: BrowserContext, stand: WebStand, user: str, web_author: Author
) -> None:
    """Without sharing, six tabs have all connections of HTTP/1.1 that the browser has for a host. The seventh says so
    while it waits, and goes on as soon as one is free."""
    await nobody_connected(stand)
    await web_author.begin()
    tabs = [await new_tab(context, stand) for _ in range(7)]
    await tabs[6].page.evaluate("import('/client/index.js').then(() => null)")
    await asyncio.gather(*(tab.follow(stand.token(user), executionId="ex_1", mode="fetch") for tab in tabs[:6]))
    await asyncio.gather(*(tab.until_live() for tab in tabs[:6]))
    await tabs[6].follow(stand.token(user), executionId="ex_1", mode="fetch")
    await tabs[6].until("seen.status.phase === 'connecting' && seen.status.error !== null")
    assert "six connections" in (await tabs[6].seen())["status"]["error"]
    await tabs[0].page.close()
    await tabs[6].until_live()
    assert (await tabs[6].seen())["status"]["error"] is None
    assert await tabs[6].ids() == await log_ids(web_author)


async def test_a_page_whose_origin_may_not_be_allowed(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """A browser does not tell a page why another origin cannot be had: the client names both reasons. One of the page's
    own origin can only be out of reach."""
    complaints.allow("blocked by CORS policy", "Failed to load resource")
    stand.site.folder(CLIENT)
    url = stand.site.page("/foreign.html", "<!doctype html><title>foreign</title>")
    await page.goto(url.replace("127.0.0.1", "localhost"))
    tab = await Tab(page).follow(
        stand.token(user), executionId="ex_1", mode="fetch", module="/index.js", base=stand.url
    )
    await tab.until("seen.status.phase === 'waiting'")
    assert "cannot be reached, or the origin of this page is not allowed" in (await tab.seen())["status"]["error"]
    own = await new_tab(page.context, stand, 1)
    await own.page.route("**/ex_1/stream", lambda route: route.abort())
    await own.follow(stand.token(user), executionId="ex_1", mode="fetch")
    await own.until("seen.status.phase === 'waiting'")
    assert (await own.seen())["status"]["error"] == "the edge cannot be reached"


async def test_a_late_tab_catches_up_and_joins(
    context: BrowserContext, stand: WebStand, user: str, web_author: Author
) -> None:
    """A tab that comes when the shared connection has forgotten the beginning gets it by a connection of its own, which
    is closed as soon as the shared one knows all that follows; no event comes twice or is left out, while more come."""
    await nobody_connected(stand)
    await web_author.begin()
    await web_author.say(1500)
    first = await (await new_tab(context, stand)).follow(stand.token(user), executionId="ex_1", mode="shared")
    await first.until_live()
    late = await (await new_tab(context, stand)).follow(stand.token(user), executionId="ex_1", mode="shared")
    for _ in range(20):
        await web_author.say(3)
    await asyncio.gather(first.until_received(1561), late.until_received(1561))
    await eventually("one connection", lambda: connections(stand) == 1)
    await late.until_live()
    await web_author.end()
    await asyncio.gather(first.until_phase("ended"), late.until_phase("ended"))
    assert await first.ids() == await late.ids() == await log_ids(web_author)


async def test_tabs_share_a_stream_in_short(
    context: BrowserContext, stand: WebStand, user: str, web_author: Author
) -> None:
    """Tabs with `compact` share a connection, which those without do not; whoever comes when has all of the log, and no
    chunk twice."""
    await nobody_connected(stand)
    chunks = [MessageDelta(message_id="m", delta="x") for _ in range(400)]
    await web_author.begin()
    await web_author.write(*chunks)
    options = {"executionId": "ex_1", "mode": "shared"}
    first = await (await new_tab(context, stand)).follow(stand.token(user), compact=True, **options)
    await first.until_live()
    plain = await (await new_tab(context, stand)).follow(stand.token(user), **options)
    await plain.until_live()
    await eventually("two connections", lambda: connections(stand) == 2)
    log = await log_ids(web_author)
    assert await first.ids() == [log[0], log[400]]
    assert await plain.ids() == log
    await web_author.write(*chunks[:30])
    late = await (await new_tab(context, stand)).follow(stand.token(user), compact=True, **options)
    await late.until_live()
    await web_author.write(*chunks[:3])
    middle = await (await new_tab(context, stand)).follow(stand.token(user), compact=True, cursor=log[200], **options)
    await middle.until_live()
    await web_author.write(*chunks[:3])
    await web_author.end()
    tabs = [first, plain, late, middle]
    await asyncio.gather(*(tab.until_phase("ended") for tab in tabs))
    log = await log_ids(web_author)
    assert [len((await tab.seen())["text"]) for tab in tabs] == [436, 436, 436, 236]
    assert await first.ids() == await late.ids() == [log[0], *log[400:]]
    assert set(await middle.ids()) < set(log[201:])


async def test_tabs_of_different_users_share_nothing(
    context: BrowserContext, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """Whose tab it is the edge decides: a forged token with another's claims gets none of his events."""
    complaints.allow("Failed to load resource", "401", "404")
    await nobody_connected(stand)
    await web_author.begin()
    token = stand.token(user)
    mine = await (await new_tab(context, stand)).follow(token, executionId="ex_1", mode="shared")
    await mine.until_live()
    forged = ".".join([*token.split(".")[:2], "A" * 43])
    thief = await (await new_tab(context, stand)).follow(forged, executionId="ex_1", mode="shared")
    other = await (await new_tab(context, stand)).follow(stand.token("nobody"), executionId="ex_1", mode="shared")
    await asyncio.gather(thief.until_phase("failed"), other.until_phase("failed"))
    await web_author.say()
    await mine.until_received(2)
    assert await thief.ids() == await other.ids() == []
    assert "expired" not in (await thief.seen())["status"]["error"]


async def test_without_a_shared_worker_each_tab_reads_by_itself(
    page: Page, stand: WebStand, user: str, web_author: Author
) -> None:
    """A page of another origin cannot start the edge's worker; its stream is read with `fetch` instead."""
    await web_author.begin()
    await page.goto(stand.site.page("/foreign.html", "<!doctype html><title>foreign</title>"))
    module = stand.url + "/client/index.js"
    tab = await Tab(page).follow(stand.token(user), executionId="ex_1", mode="shared", module=module)
    await tab.until_live()
    assert (await tab.seen())["status"]["mode"] == "fetch"
    assert await tab.ids() == await log_ids(web_author)


async def test_the_shared_worker_starts_under_the_console_s_policy(
    page: Page, stand: WebStand, user: str, web_author: Author
) -> None:
    """Where a page's policy asks for trusted types, the worker's address is one; a policy that allows only ours, and it
    only once, is enough."""
    strict = {"Content-Security-Policy": "trusted-types runcast; require-trusted-types-for 'script'"}
    await page.route("**/strict.html", lambda route: route.fulfill(content_type="text/html", body="", headers=strict))
    await web_author.begin()
    for path in ("/", "/strict.html"):
        await page.goto(stand.url + path)
        for _ in range(2):
            tab = await Tab(page).follow(stand.token(user), executionId="ex_1", mode="shared")
            await tab.until_live()
            assert (await tab.seen())["status"]["mode"] == "shared"


# --- what happens to a stream ----------------------------------------------------------------------------------------


async def test_an_edge_is_killed_in_the_middle_of_a_run(
    context: BrowserContext, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """An edge that is killed while an agent works, and started again, costs its viewers nothing: every event once and
    in order, in each mode. One that has all of it is not kept waiting."""
    complaints.allow("Failed to load resource", "ERR_")
    await web_author.begin()
    tabs = [await new_tab(context, stand, 1) for _ in MODES]
    for tab, mode in zip(tabs, MODES, strict=True):
        await tab.follow(stand.token(user), executionId="ex_1", mode=mode)
        await tab.until_live()
    await web_author.say(50)
    await asyncio.gather(*(tab.until_received(10) for tab in tabs))
    stand.edges[1].kill()
    await web_author.say(50)
    await asyncio.gather(*(tab.until("seen.phases.includes('waiting')") for tab in tabs))
    stand.mend()
    await web_author.say(50)
    await web_author.end()
    await asyncio.gather(*(tab.until_phase("ended") for tab in tabs))
    ids = await log_ids(web_author)
    for tab in tabs:
        assert await tab.ids() == ids
        assert (await tab.seen())["status"]["reconnects"] == 1
    for tab, mode in zip(tabs, MODES, strict=True):
        await tab.follow(stand.token(user), executionId="ex_1", mode=mode, cursor=ids[-1])
        await tab.until_phase("ended")
        assert (await tab.ids(), (await tab.seen())["status"]["error"]) == ([], None)


async def test_a_laptop_that_slept(context: BrowserContext, stand: WebStand, user: str, web_author: Author) -> None:
    """A page that wakes up after an hour does not trust its connection, and resumes at once, without an error."""
    await web_author.begin()
    tab = await new_tab(context, stand)
    await tab.page.clock.install()
    await tab.follow(stand.token(user), executionId="ex_1")
    await tab.until_live()
    await web_author.say(3)
    await tab.until_received(4)
    await tab.page.clock.fast_forward(3_600_000)
    await tab.until("seen.status.reconnects === 1 && seen.status.phase === 'live'")
    await web_author.say(3)
    await tab.until_received(7)
    assert await tab.ids() == await log_ids(web_author)
    assert (await tab.seen())["phases"] == ["connecting", "replaying", "live"] * 2


async def test_offline_and_back(
    context: BrowserContext, stand: WebStand, user: str, web_author: Author, complaints: Complaints
) -> None:
    """A browser that goes offline waits, and at its return has what happened meanwhile, each event once."""
    complaints.allow("Failed to load resource", "ERR_INTERNET_DISCONNECTED")
    await web_author.begin()
    tabs = [await new_tab(context, stand) for _ in ("fetch", "eventsource")]
    for tab, mode in zip(tabs, ("fetch", "eventsource"), strict=True):
        await tab.follow(stand.token(user), executionId="ex_1", mode=mode)
        await tab.until_live()
    await context.set_offline(True)
    await asyncio.gather(*(tab.until_phase("offline") for tab in tabs))
    await web_author.say(7)
    assert [len(await tab.ids()) for tab in tabs] == [1, 1]
    await context.set_offline(False)
    await asyncio.gather(*(tab.until_live() for tab in tabs))
    await web_author.end()
    await asyncio.gather(*(tab.until_phase("ended") for tab in tabs))
    for tab in tabs:
        assert await tab.ids() == await log_ids(web_author)
        assert (await tab.seen())["status"]["reconnects"] == 1


async def test_with_a_cookie(context: BrowserContext, stand: WebStand, user: str, web_author: Author) -> None:
    """Without a token the browser's cookie is sent. Tabs share a connection only if the page says whose it is."""
    await context.add_cookies([{"name": "runcast_token", "value": stand.token(user), "url": stand.url}])
    await web_author.begin()
    await web_author.end()
    tab = await new_tab(context, stand)
    for mode, identity, read in [*((mode, user, mode) for mode in MODES), ("shared", None, "fetch")]:
        await tab.follow(None, executionId="ex_1", mode=mode, **({"identity": identity} if identity else {}))
        await tab.until_phase("ended")
        assert await tab.ids() == await log_ids(web_author)
        assert (await tab.seen())["status"]["mode"] == read


async def test_a_token_that_expires_is_renewed_without_a_gap(
    context: BrowserContext, stand: WebStand, user: str, web_author: Author
) -> None:
    """The page is asked for a new token while the old one is good; the stream goes on with it in each mode, and no edge
    ever saw an expired one."""
    await web_author.begin()
    tabs = [await new_tab(context, stand) for _ in MODES]
    for tab, mode in zip(tabs, MODES, strict=True):
        await tab.page.expose_function("fresh", lambda: stand.token(user))
        await tab.follow(stand.token(user, ttl=7), executionId="ex_1", mode=mode)
        await tab.until_live()
    deadline = time.monotonic() + 30
    while not all([(await tab.seen())["status"]["reconnects"] for tab in tabs]):
        assert time.monotonic() < deadline
        await web_author.say()
        await asyncio.sleep(0.05)
    await asyncio.gather(*(tab.until_live() for tab in tabs))
    await web_author.end()
    for tab in tabs:
        await tab.until_phase("ended")
        seen = await tab.seen()
        assert seen["ids"] == await log_ids(web_author)
        assert seen["refreshed"] == 1
        assert seen["controls"].count("stream:token_expiring") == 1
        assert seen["controls"].count("stream:end") == 1
        assert not {"waiting", "failed"} & set(seen["phases"])
