"""An application's page on another origin, in a real browser: what the edges let it do and see."""

from __future__ import annotations

import json
from typing import Any

from playwright.async_api import Page

from tests.edges import call, edge, eventually
from tests.web.browser import Complaints, WebStand

# Each asks the edge something from the page, and tells what the page could see of the answer.
ASK = """
async ([url, options]) => {
    const seen = ["X-Request-ID", "Retry-After", "ETag", "Content-Type"];
    const response = await fetch(url, options);
    const headers = Object.fromEntries(seen.map(name => [name, response.headers.get(name)]));
    return {status: response.status, headers, body: await response.text()};
}
"""
READ_STREAM = """
async ([url, options, until]) => {
    const controller = new AbortController();
    const response = await fetch(url, {...options, signal: controller.signal});
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (!text.includes(until)) {
        const {done, value} = await reader.read();
        if (done) break;
        text += value;
    }
    controller.abort();
    return text;
}
"""


async def on_site(page: Page, stand: WebStand) -> None:
    await page.goto(stand.site.page("/empty.html", "<!doctype html><title>an application</title>"))


def options(token: str, method: str = "GET", body: Any = None, **headers: str) -> dict[str, Any]:
    given = {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {"method": method, "headers": given, **({} if body is None else {"body": json.dumps(body)})}


async def test_a_page_may_do_what_its_token_may(page: Page, stand: WebStand, user: str) -> None:
    """A page of an allowed origin starts an execution with its own request id and idempotency key, follows it from a
    cursor, and sees the headers it needs."""
    await on_site(page, stand)
    token = stand.token(user)
    wanted = options(
        token, "POST", {"task": "t", "agent": "teller"}, Content_Type="application/json", Idempotency_Key="k1",
        X_Request_ID="mine-1",
    )  # fmt: skip
    started = await page.evaluate(ASK, [f"{stand.url}/api/agent/execute", wanted])
    assert (started["status"], started["headers"]["X-Request-ID"]) == (202, "mine-1")
    execution_id = json.loads(started["body"])["executionId"]
    stream = f"{stand.urls[1]}/api/agent/executions/{execution_id}/stream"
    whole = await page.evaluate(READ_STREAM, [stream, options(token), "stream:end"])
    ids = [line[4:] for line in whole.splitlines() if line.startswith("id: ")]
    rest = await page.evaluate(READ_STREAM, [stream, options(token, Last_Event_ID=ids[2]), "stream:end"])
    assert [line[4:] for line in rest.splitlines() if line.startswith("id: ")] == ids[3:]


async def test_a_page_sees_when_to_come_back(page: Page, stand: WebStand, user: str, complaints: Complaints) -> None:
    """A refusal's Retry-After can be read by the page, and its problem."""
    complaints.allow("Failed to load resource.*503")
    await on_site(page, stand)
    token = stand.token(user)
    with edge(stand.redis_url, max_connections=1, cors_origins=stand.site.origin) as crowded:
        answer = await page.evaluate(
            """async ([url, ask, options]) => {
                const first = await fetch(url, options);
                const answer = await eval(ask)([url, options]);
                await first.body.cancel();
                return answer;
            }""",
            [f"http://127.0.0.1:{crowded.port}/api/agent/stream", ASK, options(token)],
        )
    assert answer["status"] == 503
    assert int(answer["headers"]["Retry-After"]) >= 1
    assert json.loads(answer["body"])["type"] == "urn:runcast:problem:capacity"


async def test_a_page_of_a_foreign_origin_sees_nothing(
    page: Page, stand: WebStand, user: str, complaints: Complaints
) -> None:
    """The same page on an origin that is not allowed gets no answer, even with a token."""
    complaints.allow("blocked by CORS policy", "Failed to load resource")
    url = stand.site.page("/empty.html", "<!doctype html><title>an application</title>")
    await page.goto(url.replace("127.0.0.1", "localhost"))
    message = await page.evaluate(
        "([url, options]) => fetch(url, options).then(() => 'seen', error => error.message)",
        [f"{stand.url}/api/agent/executions", options(stand.token(user))],
    )
    assert message == "Failed to fetch"


async def test_a_preflight_is_asked_once(page: Page, stand: WebStand, user: str) -> None:
    """A browser that may call keeps that answer: the next calls go without another preflight."""
    await on_site(page, stand)
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Network.enable")
    asked: list[str] = []
    devtools.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["method"]))
    for _ in range(3):
        url = f"{stand.url}/api/agent/agents"
        assert (await page.evaluate(ASK, [url, options(stand.token(user))]))["status"] == 200
    await eventually("it is told of all requests", lambda: asked.count("GET") == 3 and "OPTIONS" in asked)
    assert sorted(asked) == ["GET", "GET", "GET", "OPTIONS"]


async def test_a_page_loads_the_client_from_an_edge(page: Page, stand: WebStand) -> None:
    """A module script of an edge's client can be imported across origins."""
    await on_site(page, stand)
    names = await page.evaluate("url => import(url).then(Object.keys)", f"{stand.url}/client/index.js")
    assert "RuncastClient" in names


async def test_a_tab_of_the_console_stays_within_the_limits(page: Page, stand: WebStand, user: str) -> None:
    """What a tab holds open (feed, one execution, operations) is three streams of its user, all of them live."""
    await page.goto(stand.url + "/openapi.json")
    token = stand.token(user)
    started = await call(stand.edges[0].port, "POST", "/api/agent/execute", token, {"task": "t", "agent": "sleeper"})
    paths = [
        "/api/agent/stream",
        f"/api/agent/executions/{started.body['executionId']}/stream",
        "/api/ops/stream",
    ]
    heads = await page.evaluate(
        """([paths, options]) => Promise.all(paths.map(async path => {
            const response = await fetch(path, options);
            const {value} = await response.body.pipeThrough(new TextDecoderStream()).getReader().read();
            return [response.status, value.includes("event: stream:open")];
        }))""",
        [paths, options(token)],
    )
    assert heads == [[200, True]] * 3
