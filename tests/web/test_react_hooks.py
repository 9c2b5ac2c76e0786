"""The hooks in real React 18 and 19 with zustand 4 and 5, in Chromium, over real edges and a real worker."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from emitter.events import InputRequired
from tests.edges import Author, EdgeProcess, call, eventually, under_load
from tests.web.browser import NODE, Complaints, WebStand, needs_chromium, needs_npm

HERE = Path(__file__).resolve().parent / "react"
VERSIONS = {"react18": "18.", "react19": "19."}
BLANK = '<!doctype html><meta charset="utf-8"><div id="root"></div><script type="module" src="/{}.js"></script>'

VENDOR = """
import { build } from "esbuild";
const contents = `
    import React from "react19";
    export const { createContext, createElement, useCallback, useContext, useEffect, useInsertionEffect, useMemo,
        useRef, useState, useSyncExternalStore } = React;
    export { createRoot } from "react-dom19/client";
`;
const alias = { react: "./node_modules/react19", "react-dom": "./node_modules/react-dom19" };
await build({ stdin: { contents, resolveDir: "." }, outfile: process.argv[1], bundle: true, format: "esm", alias });
"""
MAPPED = """
<!doctype html><meta charset="utf-8">
<script type="importmap">
{"imports": {"react": "/vendor.js", "react-dom/client": "/vendor.js", "@runcast/client/react": "EDGE/client/react.js"}}
</script>
<script type="module">
    import { createElement as h } from "react";
    import { createRoot } from "react-dom/client";
    import { RuncastProvider, useAgentFeed } from "@runcast/client/react";

    function Count() {
        const { executions, isLoaded, status } = useAgentFeed();
        return h("output", {}, isLoaded ? `${executions.length} ${status.mode} ${status.fallback}` : "");
    }
    createRoot(document.body).render(h(RuncastProvider, {baseUrl: "EDGE", token: "TOKEN"}, h(Count)));
</script>
"""

pytestmark = [needs_chromium, needs_npm(HERE)]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """page.jsx, bundled for each React."""
    assert NODE is not None
    folder = tmp_path_factory.mktemp("react")
    subprocess.run([NODE, "build.mjs", str(folder)], cwd=HERE, check=True, timeout=30)
    return folder


class Probes:
    """A page of probes (tests/web/react/page.jsx), and the user who looks at it."""

    def __init__(self, page: Page, stand: WebStand, user: str) -> None:
        self.page = page
        self.stand = stand
        self.user = user
        self.edge: EdgeProcess = stand.edges[0]

    async def open(self, version: str, bundles: Path) -> None:
        self.stand.site.folder(bundles)
        await self.page.goto(self.stand.site.page("/probes.html", BLANK.format(version)))
        await self.page.wait_for_function("!!window.show")
        assert (await self.page.title()).startswith(VERSIONS[version])
        await self.provide(baseUrl=self.stand.url, token=self.stand.token(self.user))

    async def provide(self, **options: Any) -> None:
        await self.page.evaluate("options => { page.provider = options }", options)

    async def show(self, *probes: dict[str, Any]) -> None:
        """Have these probes on the page, and no others."""
        await self.page.evaluate("probes => show(probes)", list(probes))

    async def until(self, condition: str) -> Any:
        """Wait until a condition on `seen`, what each probe's hook returned, holds; its value."""
        try:
            handle = await self.page.wait_for_function(condition, timeout=1000 * under_load(30))
        except Exception as error:
            found = await self.page.evaluate("JSON.stringify(seen)")
            raise AssertionError(f"not in time: {condition}; {found[:2000]}") from error
        return await handle.json_value()

    async def now(self, expression: str, argument: Any = None) -> Any:
        return await self.page.evaluate(expression, argument)

    def opened(self) -> float:
        """How many streams the edge has opened so far."""
        return self.edge.metric("runcast_connections_opened_total", protocol="native")

    async def until_open(self, count: int) -> None:
        """Wait until the edges count so many streams."""
        await eventually(f"{count} streams", lambda: self._connections() == count)

    def _connections(self) -> float:
        return sum(edge.metric("runcast_connections") for edge in self.stand.edges)

    async def server(self, path: str, method: str = "GET", value: Any = None) -> Any:
        return (await call(self.edge.port, method, path, self.stand.token(self.user), value)).body


@pytest_asyncio.fixture(loop_scope="session", params=list(VERSIONS))
async def probes(
    request: pytest.FixtureRequest, page: Page, stand: WebStand, user: str, bundles: Path
) -> AsyncIterator[Probes]:
    probes = Probes(page, stand, user)
    await probes.open(request.param, bundles)
    yield probes
    await probes.show()


newest = pytest.mark.parametrize("probes", ["react19"], indirect=True)
"""For tests of what the hooks stand on, which no version of React has a part in."""


def watch(name: str, execution_id: str | None, **options: Any) -> dict[str, Any]:
    return {"name": name, "use": "useAgentSSE", "args": [execution_id, options], "listens": True}


def execution(name: str = "run", **options: Any) -> dict[str, Any]:
    return {"name": name, "use": "useAgentExecution", "args": [options]}


def stored(name: str, execution_id: str, select: str, **options: Any) -> dict[str, Any]:
    return {"kind": "stored", "name": name, "executionId": execution_id, "select": select, "options": options}


async def test_strict_mode_opens_one_stream(probes: Probes, web_author: Author) -> None:
    """StrictMode's second round of effects opens no second stream, and no event is lost or told twice; a component that
    goes closes its stream."""
    await web_author.begin()
    await web_author.say(2)
    before = probes.opened()
    await probes.show(watch("a", "ex_1"))
    await probes.until("seen.a?.status.phase === 'live'")
    assert await probes.now("[seen.a.status.mode, seen.a.status.fallback]") == ["shared", None]
    await web_author.say(2)
    await probes.until("seen.a.events.length === 5")
    assert await probes.now("heard.a") == [event.id for event in await web_author.log()]
    assert await probes.now("seen.a.events.map(event => event.id)") == await probes.now("heard.a")
    assert probes.opened() == before + 1
    await probes.until_open(1)
    await probes.show()
    await probes.until_open(0)


async def test_components_share_a_stream(probes: Probes, web_author: Author) -> None:
    """Components, and stores, that look at one execution have one stream, open until the last of them goes; one that
    comes later sees everything; another execution is another stream, and nothing of the one before is shown for it."""
    other = Author(web_author.redis, web_author.user, "ex_2")
    await web_author.begin()
    await web_author.say(3)
    await other.begin()
    before = probes.opened()
    await probes.show(watch("a", "ex_1"), watch("b", "ex_1"), stored("thoughts", "ex_1", "thinkingSteps"))
    await probes.until("seen.a?.status.phase === 'live' && seen.thoughts.length === 3")
    await probes.show(watch("b", "ex_1"), watch("late", "ex_1"))
    await probes.until("seen.late?.state.thinking.length === 3")
    assert await probes.now("seen.b.state === seen.late.state")
    assert probes.opened() == before + 1
    await probes.until_open(1)
    await probes.now("heard.b = []")
    await probes.show(watch("b", "ex_2"))
    await probes.until("seen.b?.executionId === 'ex_2' && seen.b.status.phase === 'live'")
    assert await probes.now("[seen.b.state.executionId, seen.b.state.thinking]") == ["ex_2", []]
    assert await probes.now("heard.b") == [event.id for event in await other.log()]
    assert probes.opened() == before + 2
    await probes.until_open(1)
    for number in range(6):
        await probes.show(watch("b", f"ex_{1 + number % 2}"))
    await probes.until("seen.b?.executionId === 'ex_2' && seen.b.status.phase === 'live'")
    await probes.until_open(1)
    await probes.show(watch("b", None))
    await probes.until("seen.b?.state === null && seen.b.status.phase === 'idle'")
    await probes.until_open(0)


async def test_a_whole_run(probes: Probes, tmp_path: Path) -> None:
    """A page starts the analyst, sees its plan, tools and text, answers what it asks, and has the state that the edge
    has; the report is written because the page said so."""
    (tmp_path / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    await probes.show(execution(agent="analyst"))
    await probes.until("seen.run?.isExecuting === false")
    start = "task => seen.run.startExecution({task, params: {pace: 0}})"
    execution_id = await probes.now(start, str(tmp_path))
    asked = await probes.until("seen.run.state?.openInputs[0]?.inputId")
    assert await probes.now("[seen.run.isExecuting, seen.run.state.status]") == [True, "waiting_input"]
    assert not (tmp_path / "RUNCAST_REPORT.md").exists()
    assert await probes.now("id => seen.run.answerInput(id, true)", asked)
    await probes.until("seen.run.state?.status === 'completed' && seen.run.status.phase === 'ended'")
    assert (tmp_path / "RUNCAST_REPORT.md").exists()
    assert await probes.now("[seen.run.isExecuting, seen.run.error]") == [False, None]
    state = await probes.server(f"/api/agent/executions/{execution_id}")
    assert await probes.now("seen.run.state") == {**state, "params": None}  # which are in no event
    assert [phase["status"] for phase in state["phases"]] == ["complete"] * 5
    await probes.until_open(0)


@contextlib.asynccontextmanager
async def answers_reversed(page: Page, path: str) -> AsyncIterator[None]:
    """Of two requests to a path, the second is answered first."""
    answered = asyncio.Event()
    numbers = itertools.count()

    async def handle(route: Route) -> None:
        is_first = next(numbers) == 0
        response = await route.fetch()
        if is_first:
            await answered.wait()
        await route.fulfill(response=response)
        answered.set()

    await page.route(path, handle)
    yield
    await page.unroute(path)


@newest
async def test_cancel(probes: Probes, complaints: Complaints) -> None:
    """A page cancels what it started, of two starts at once the last; to cancel what is over is no error."""
    complaints.allow("status of 409")
    await probes.show(execution(agent="sleeper"))
    await probes.until("seen.run")
    async with answers_reversed(probes.page, "**/api/agent/execute"):
        started = await probes.now("Promise.all(['one', 'two'].map(task => seen.run.startExecution(task)))")
    await probes.until("seen.run.state?.thinking.length === 1")
    assert await probes.now("[seen.run.executionId, seen.run.isStarting]") == [started[1], False]
    await probes.server(f"/api/agent/executions/{started[0]}/cancel", "POST", {})
    assert await probes.now("seen.run.cancelExecution('enough')")
    await probes.until("seen.run.state?.status === 'cancelled' && !seen.run.isExecuting")
    assert await probes.now("seen.run.state.cancelled.reason") == "enough"
    await probes.now("seen.run.startExecution({task: 'count', agent: 'counter'})")
    await probes.until("seen.run.state?.status === 'completed' && seen.run.state?.agent === 'counter'")
    assert not await probes.now("seen.run.cancelExecution()")
    assert await probes.now("seen.run.error") is None


@newest
async def test_a_page_talks_to_the_agent(probes: Probes, complaints: Complaints) -> None:
    """A message waits, is withdrawn, or reaches the agent; what becomes of it is in the state; no refusal raises."""
    complaints.allow("status of 409")
    await probes.show(execution(agent="listener"))
    await probes.until("seen.run")
    await probes.now("seen.run.startExecution('x')")
    await probes.until("seen.run.state?.thinking.length === 1")
    assert await probes.now("seen.run.sendMessage({text: 'a mistake', messageId: 'm1'})")
    assert await probes.now("seen.run.withdrawMessage('m1')")
    assert await probes.now("seen.run.sendMessage({text: 'now', mode: 'interrupt'})")
    await probes.until("seen.run.state.userMessages.map(each => each.state).join() === 'dropped,taken'")
    assert await probes.now("seen.run.sendMessage('stop')")
    await probes.until("seen.run.state.status === 'completed'")
    assert await probes.now("seen.run.state.result") == ["now", "stop"]
    assert not await probes.now("seen.run.sendMessage('late')")
    assert await probes.until("seen.run.error?.status") == 409


@newest
async def test_what_goes_wrong_is_an_error_to_show(probes: Probes, complaints: Complaints) -> None:
    """Nothing raises: a refused request, an agent that failed and a stream that cannot be had are `error`, until the
    next request; a page may follow another execution, or none."""
    complaints.allow("status of 4")
    await probes.show(execution(agent="nobody"))
    await probes.until("seen.run")
    assert await probes.now("seen.run.startExecution('x')") is None
    assert await probes.until("seen.run.error?.status") == 422
    assert await probes.now("[seen.run.isExecuting, seen.run.executionId]") == [False, None]
    failed = await probes.now("seen.run.startExecution({task: 'on purpose', agent: 'failer'})")
    await probes.until("seen.run.state?.status === 'failed'")
    assert await probes.now("seen.run.error instanceof hooks.ExecutionFailed")
    assert await probes.now("[seen.run.error.executionId, seen.run.isExecuting]") == [failed, False]
    await probes.now("seen.run.followExecution('unknown')")
    assert await probes.until("seen.run.status.phase === 'failed' && seen.run.error.status") == 404
    await probes.now("seen.run.followExecution(null)")
    await probes.until("seen.run.executionId === null && seen.run.error === null && seen.run.state === null")
    assert not await probes.now("seen.run.cancelExecution()")


@newest
async def test_nothing_is_said_of_what_is_not_known(probes: Probes, web_author: Author, complaints: Complaints) -> None:
    """With no edge, or a token that none takes, hooks and store show no state and nothing executes; one that was just
    started executes all the while."""
    complaints.allow("status of 401", "Failed to load resource", "ERR_")
    said = """name => {
        const { currentExecution, isExecuting } = stores.useAgentStore.getState();
        return [seen[name].state, seen[name].isExecuting ?? false, currentExecution, isExecuting];
    }"""
    shown = [execution(executionId="ex_1", mode="fetch"), stored("slice", "ex_1", "text")]
    await probes.provide(baseUrl="http://127.0.0.1:9", token="t")
    await probes.show(*shown)
    await probes.until("seen.run?.status.phase === 'waiting'")
    assert await probes.now(said, "run") == [None, False, None, False]
    await probes.provide(baseUrl=probes.stand.url, token="not-a-token")
    await probes.show(*shown)
    await probes.until("seen.run?.status.phase === 'failed'")
    assert await probes.now(said, "run") == [None, False, None, False]
    assert await probes.now("seen.run.error.status") == 401

    await probes.provide(baseUrl=probes.stand.url, token=probes.stand.token(probes.user))
    await probes.page.route("**/stream", lambda route: None)  # which never answers
    await probes.show(execution(agent="sleeper", mode="fetch"))
    await probes.until("seen.run?.isExecuting === false")
    await probes.now("seen.run.startExecution('sleep')")
    await probes.until("seen.run.executionId !== null && !seen.run.isStarting")
    assert await probes.now("[seen.run.state, seen.run.isExecuting]") == [None, True]
    await probes.page.unroute("**/stream")
    await probes.now("seen.run.cancelExecution()")


@newest
async def test_hook_and_store_share_under_the_same_options(probes: Probes, web_author: Author) -> None:
    """Where a page asks for `fetch`, its store can ask for it too, and both have one stream."""
    await web_author.begin()
    before = probes.opened()
    options = {"mode": "fetch", "compact": True}
    await probes.show(watch("a", "ex_1", **options), stored("connection", "ex_1", "connection", **options))
    await probes.until("seen.a?.status.phase === 'live' && seen.connection?.phase === 'live'")
    assert await probes.now("[seen.a.status.mode, seen.connection.mode]") == ["fetch", "fetch"]
    assert probes.opened() == before + 1


@newest
async def test_an_edge_dies(probes: Probes, web_author: Author, complaints: Complaints) -> None:
    """A stream whose edge is killed goes on when it is back: every event once, in hooks and `onEvent` alike."""
    complaints.allow("ERR_CONNECTION", "ERR_INCOMPLETE", "Failed to load")
    await web_author.begin()
    await web_author.say(3)
    await probes.show(watch("a", "ex_1"), {"name": "feed", "use": "useAgentFeed"})
    await probes.until("seen.a?.status.phase === 'live' && seen.feed?.isLoaded")
    probes.edge.kill()
    await probes.until("seen.a.status.phase !== 'live'")
    assert await probes.now("[seen.a.error, seen.a.state.thinking.length]") == [None, 3]
    await web_author.say(3)
    await web_author.write(InputRequired(input_id="q1", prompt="Go on?", kind="approval"))
    probes.edge.start().wait_ready()
    await probes.now("dispatchEvent(new Event('online'))")
    await probes.until("seen.a.state?.thinking.length === 6 && seen.a.state.openInputs.length === 1")
    await probes.until("seen.feed.executions[0].state === 'waiting_input'")
    assert await probes.now("heard.a") == [event.id for event in await web_author.log()]
    assert await probes.now("seen.a.status.reconnects") >= 1


async def test_memory_is_bounded(probes: Probes) -> None:
    """However much an agent says, the last events and steps are kept; a store lets go of the stream of an execution
    that is over, and of what it showed when another is followed."""
    request = {"task": "count", "agent": "counter", "params": {"count": 700}}
    await probes.now("page.provider = {client: new RuncastClient(page.provider)}; undefined")
    start = "request => stores.useAgentStore.getState().startExecution(page.provider.client, request)"
    execution_id = await probes.now(start, request)
    await probes.until("stores.useAgentStore.getState().currentExecution?.status === 'completed'")
    store = "(({thinkingSteps: s, ...rest}) => [s.length, s.at(-1).thought, rest.isExecuting])"
    assert await probes.now(store + "(stores.useAgentStore.getState())") == [100, "thought 700", False]
    await probes.until_open(0)
    before = probes.opened()
    await probes.show(watch("a", execution_id))
    await probes.until("seen.a?.status.phase === 'ended'")
    assert probes.opened() == before + 1, "the store holds no stream that this one could share"
    assert await probes.now("[seen.a.events.length, seen.a.events.at(-1).type]") == [200, "execution:complete"]
    request["params"] = {"count": 1}
    await probes.now(start, request)
    await probes.until("stores.useAgentStore.getState().thinkingSteps.length === 1")
    await probes.now("stores.useAgentStore.getState().clear()")
    assert await probes.now("JSON.stringify(stores.useAgentStore.getState())") == await probes.now(
        "JSON.stringify(stores.createAgentStore().getState())"
    )
    await probes.now("small = stores.createAgentStore({maxText: 7}); undefined")
    request = {"task": "say", "agent": "sayer", "params": {"text": "\U0001f642" * 20}}
    await probes.now(start.replace("stores.useAgentStore", "small"), request)
    await probes.until("small.getState().currentExecution?.status === 'completed'")
    assert await probes.now("small.getState().text") == "\U0001f642" * 3


async def test_the_store(probes: Probes) -> None:
    """The store shows, answers, talks to and cancels what it follows, and a component renders when its own slice has
    changed."""
    actions = "stores.useAgentStore.getState()"
    await probes.show(*({"kind": "slice", "name": name, "select": name} for name in ("tools", "text")))
    await probes.now("client = new RuncastClient(page.provider); undefined")
    await probes.now(actions + ".startExecution(client, {task: 'x', agent: 'asker'})")
    await probes.until(actions + ".openInputs.length === 1 && seen.text === 'Before. '")
    await probes.until(actions + ".connection.phase === 'live'")  # its history may have had all of that
    assert await probes.now(actions + ".currentExecution.agent") == "asker"
    assert await probes.now(f"{actions}.answerInput({actions}.openInputs[0].inputId, true)")
    await probes.until("seen.text === 'Before. After.'")
    await probes.until(f"{actions}.currentExecution.result?.answer === true && !{actions}.isExecuting")
    assert await probes.now("renders.tools <= 4"), "twice, and StrictMode doubles it: text is none of its business"
    await probes.now(actions + ".startExecution(client, {task: 'x', agent: 'sleeper'})")
    await probes.until(actions + ".tools.length === 1")
    await probes.now(actions + ".cancelExecution('enough')")
    await probes.until(actions + ".currentExecution.status === 'cancelled'")
    assert not await probes.now("stores.createAgentStore().getState().sendMessage('to nobody')")
    await probes.now(actions + ".startExecution(client, {task: 'x', agent: 'listener'})")
    await probes.until(actions + ".thinkingSteps.length === 1")
    assert await probes.now(actions + ".sendMessage({text: 'a mistake', messageId: 'm1'})")
    assert await probes.now(actions + ".withdrawMessage('m1')")
    assert await probes.now(actions + ".sendMessage({text: 'now', mode: 'interrupt'})")
    await probes.until(actions + ".userMessages.map(each => each.state).join() === 'dropped,taken'")
    assert await probes.now(actions + ".sendMessage('stop')")
    await probes.until(actions + ".currentExecution.result?.join() === 'now,stop'")


async def test_bursts_render_once_a_frame(probes: Probes, web_author: Author) -> None:
    """However fast events come, a component renders at most once for each frame, and all that look at an execution see
    the same of it in one render."""
    await web_author.begin()
    await probes.show(watch("a", "ex_1"), {"kind": "pair", "name": "pair", "executionId": "ex_1"})
    await probes.until("seen.a?.status.phase === 'live'")
    await probes.now("""() => {
        [window.frames_, renders.a, seen.torn] = [0, 0, 0];
        const next = (act) => {  // a browser that has no time draws none: then a timer stands for it
            const once = () => (cancelAnimationFrame(frame), clearTimeout(timer), act());
            const [frame, timer] = [requestAnimationFrame(once), setTimeout(once, 250)];
        };
        (function count() { frames_ += 1; next(count); })();
    }""")
    for _ in range(300):
        await web_author.say()
    await web_author.end()
    await probes.until("seen.a.status.phase === 'ended' && seen.pair.status === 'completed'")
    assert await probes.now("heard.a") == [event.id for event in await web_author.log()]
    rendered, frames = await probes.now("[renders.a, frames_]")
    assert 2 <= rendered <= 2 * (frames + 2), "StrictMode renders twice"
    assert await probes.now("seen.torn") == 0


def feed(name: str = "feed", **options: Any) -> dict[str, Any]:
    return {"name": name, "use": "useAgentFeed", "args": [options]}


LISTED = """() => seen.feed.executions.map(
    ({executionId, state, task, agent, attempt, createdAt, metadata}) =>
        JSON.stringify({executionId, state, task, agent, attempt, createdAt, metadata}))"""


@newest
async def test_the_tree(probes: Probes) -> None:
    """An execution with its children, live over the feed: what begins, waits, ends and is cancelled with its parent."""
    root = (await probes.server("/api/agent/execute", "POST", {"task": "t", "agent": "delegator"}))["executionId"]
    await probes.show(
        {"name": "tree", "use": "useAgentTree", "args": [root, {}]},
        {"name": "none", "use": "useAgentTree", "args": [None, {}]},
    )
    states = "seen.tree?.tree?.children.map(({agent, key, state}) => `${agent} ${key} ${state}`).join()"
    await probes.until(f"{states} === 'asker asked waiting_input,sleeper null running'")
    assert await probes.now("seen.none.tree") is None
    assert await probes.now("seen.tree.tree.state") == "running"
    asker = await probes.now("seen.tree.tree.children[0].executionId")
    state = await probes.server(f"/api/agent/executions/{asker}", "GET")
    answer = {"inputId": state["openInputs"][0]["inputId"], "value": True}
    await probes.server(f"/api/agent/executions/{asker}/input", "POST", answer)
    await probes.until(f"{states} === 'asker asked completed,sleeper null cancelled'")
    await probes.until("seen.tree.tree.state === 'completed'")  # the edge may have read it before its children


@newest
async def test_the_feed(probes: Probes) -> None:
    """The feed is the edge's list, live: what begins, asks and ends while it is shown, on one stream however many
    executions and components there are."""
    request = {"task": "t", "agent": "counter", "params": {"count": 1}, "metadata": {"place": "first"}}
    first = (await probes.server("/api/agent/execute", "POST", request))["executionId"]
    await probes.show(feed(), feed("other"))
    await probes.until("seen.feed?.isLoaded && seen.feed.executions[0].state === 'completed'")
    before = probes.opened()
    request = {"task": "t", "agent": "asker", "metadata": {"place": "second"}}
    asking = (await probes.server("/api/agent/execute", "POST", request))["executionId"]
    await probes.until("seen.feed.executions[0].openInputs.length === 1")
    assert await probes.now("seen.feed.executions.map(item => item.executionId)") == [asking, first]
    await probes.until("seen.feed.executions[0].metadata?.place === 'second'")
    input_id = await probes.now("seen.feed.executions[0].openInputs[0].inputId")
    path = f"/api/agent/executions/{asking}/input"
    await probes.server(path, "POST", {"inputId": input_id, "value": False})
    await probes.until("seen.feed.executions[0].state === 'completed' && !seen.feed.executions[0].openInputs.length")
    assert await probes.now("seen.feed === seen.other || seen.feed.executions === seen.other.executions")
    listed = (await probes.server("/api/agent/executions"))["executions"]
    kept = ("executionId", "state", "task", "agent", "attempt", "createdAt", "metadata")
    shown = await probes.now(LISTED)
    assert [json.loads(item) for item in shown] == [{key: item[key] for key in kept} for item in listed]
    assert probes.opened() == before
    await probes.show()
    await probes.until_open(0)


async def test_a_server_renders_what_a_browser_takes_over(probes: Probes, web_author: Author) -> None:
    """Rendered on a server the hooks open nothing and show nothing yet; hydration finds the same, then the streams."""
    await web_author.begin()
    before = probes.opened()
    hydrated = await probes.now("probes => hydrate(probes)", [watch("a", "ex_1"), feed(), execution()])
    assert hydrated.count("idle") == 3
    assert "live" not in hydrated
    await probes.until("seen.a?.status.phase === 'live' && seen.a.state?.status === 'running' && seen.feed.isLoaded")
    assert probes.opened() == before + 1


async def test_the_provider(probes: Probes, web_author: Author) -> None:
    """A token function that is a new one at each render opens nothing again, and the last one is asked; a client may be
    given; without a provider a hook says what is missing."""
    await web_author.begin()
    await probes.now("asked = []; undefined")
    as_if_rendered = """token => {
        const number = asked.length;
        page.provider = {...page.provider, token: () => { asked.push(number); return token; }};
    }"""
    token = probes.stand.token(probes.user)
    before = probes.opened()
    await probes.now(as_if_rendered, token)
    await probes.show(watch("a", "ex_1"))
    await probes.until("seen.a?.status.phase === 'live'")
    await probes.now(as_if_rendered, token)
    await probes.show(watch("a", "ex_1"), execution())
    await probes.until("seen.run")
    await probes.now("seen.run.startExecution({task: 't', agent: 'counter', params: {count: 1}})")
    await probes.until("seen.run.state?.status === 'completed'")
    assert await probes.now("[asked[0], asked.at(-1) > 0]") == [0, True]
    assert probes.opened() == before + 2
    await probes.now("page.provider = {client: new RuncastClient(page.provider)}; undefined")
    await probes.show(watch("a", "ex_1"))
    await probes.until("seen.a?.status.phase === 'live'")
    await probes.until_open(1)
    assert "RuncastProvider" in await probes.now("renderBare()")


async def test_without_a_bundler(
    page: Page, stand: WebStand, user: str, web_author: Author, tmp_path: Path, complaints: Complaints
) -> None:
    """A page takes the hooks from an edge, and says by an import map where React is."""
    assert NODE is not None
    script = ["--input-type=module", "-e", VENDOR, str(tmp_path / "vendor.js")]
    subprocess.run([NODE, *script], cwd=HERE, check=True, timeout=30)
    await web_author.begin()
    stand.site.folder(tmp_path)
    html = MAPPED.replace("EDGE", stand.url).replace("TOKEN", stand.token(user))
    await page.goto(stand.site.page("/mapped.html", html))
    output = page.locator("output")
    await expect(output).to_contain_text("1 fetch")
    await expect(output).to_contain_text("cannot be accessed from origin")  # why it is not shared
