"""The client's streams in Node, over real edges that die, hang, drain, refuse and forget. Whatever breaks, a viewer's
ids are the log's."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from emitter.events import ExecutionStarted, MessageDelta, Thinking, ToolStart
from tests.edges import Author
from tests.web.browser import NODE, WebStand, web_stand
from tests.web.client.viewers import Viewer, node

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")


@pytest.fixture(scope="module")
def module_stand() -> Iterator[WebStand]:
    with web_stand(max_connections_per_user=2, heartbeat_seconds=2) as stand:  # so that silence is noticed in 5 s
        yield stand


async def log_ids(author: Author) -> list[str]:
    return [event.id for event in await author.log()]


async def test_an_edge_dies_and_another_goes_on(stand: WebStand, user: str, web_author: Author) -> None:
    """The stream of a killed edge goes on at another after the last event."""
    await web_author.begin()
    async with Viewer(stand.urls, stand.token(user), executionId="ex_1") as viewer:
        await viewer.until_phase("live")
        await web_author.say(50)
        await viewer.until_received(20)
        stand.edges[0].kill()
        await web_author.say(50)
        await web_author.end()
        await viewer.until_phase("ended")
        assert viewer.ids == await log_ids(web_author)
        assert viewer.status["reconnects"] == 1
        assert viewer.connects[1]["cursor"] in viewer.ids[19:]


async def test_an_edge_hangs(stand: WebStand, user: str, web_author: Author) -> None:
    """An edge from which nothing comes for two and a half heartbeats is left, although its connection stands."""
    await web_author.begin()
    async with Viewer(stand.urls, stand.token(user), executionId="ex_1") as viewer:
        await viewer.until_phase("live")
        stand.edges[0].send_signal(signal.SIGSTOP)
        try:
            await web_author.end()
            await viewer.until_phase("ended")
        finally:
            stand.edges[0].send_signal(signal.SIGCONT)
        assert viewer.ids == await log_ids(web_author)
        silent = next(status for status in viewer.statuses if status["error"])
        assert silent["error"]["type"] == "urn:runcast:problem:silent"


async def test_an_edge_drains(stand: WebStand, user: str, web_author: Author) -> None:
    """An edge that stops says so, and the stream goes on elsewhere at the time it said, without an error."""
    await web_author.begin()
    async with Viewer(stand.urls, stand.token(user), executionId="ex_1") as viewer:
        await viewer.until_phase("live")
        stand.edges[0].stop()
        await web_author.end()
        await viewer.until_phase("ended")
        assert viewer.ids == await log_ids(web_author)
        assert [end["reason"] for end in viewer.named("stream:end")] == ["draining", "finished"]
        assert not any(status["error"] for status in viewer.statuses)


async def test_a_user_with_too_many_streams(stand: WebStand, user: str) -> None:
    """A user at the limit of connections is told when to come back."""
    given = stand.urls, stand.token(user)
    async with Viewer(*given) as first, Viewer(*given) as second:
        await first.until_phase("live")
        await second.until_phase("live")
        async with Viewer(*given) as refused:
            await refused.until("it waits", lambda viewer: "waiting" in viewer.phases)
            waiting = next(status for status in refused.statuses if status["phase"] == "waiting")
            error = waiting["error"]
            assert error["status"] == 429
            assert waiting["retryAt"] >= refused.connects[0]["at"] + error["retryAfterMs"] > 0


async def test_a_gateway_that_asks_to_wait(stand: WebStand, user: str, web_author: Author) -> None:
    """`Retry-After` of a 503 is waited for."""
    await web_author.begin()
    faults = {"refuse": {"status": 503, "headers": {"Retry-After": "1"}}}
    async with Viewer(stand.urls, stand.token(user), executionId="ex_1", faults=faults) as viewer:
        await viewer.until_phase("live")
        assert viewer.phases == ["connecting", "waiting", "connecting", "replaying", "live"]
        assert viewer.connects[1]["at"] - viewer.connects[0]["at"] >= 1000
        assert viewer.ids == await log_ids(web_author)


async def test_what_is_refused_for_good(stand: WebStand, user: str) -> None:
    """A stream of what is not there fails, and does not come back by itself; a start tries again."""
    async with Viewer(stand.urls, stand.token(user), executionId="nobody-knows-it") as viewer:
        await viewer.until_phase("failed")
        assert viewer.status["error"]["status"] == 404
        viewer.command("start")
        await viewer.until("a second try", lambda viewer: viewer.phases.count("failed") == 2)
        assert len(viewer.connects) == 2


async def test_a_refused_token(stand: WebStand, user: str, web_author: Author) -> None:
    """A refused token is asked for again once: with a good one the stream goes on, without it has failed."""
    await web_author.begin()
    expired = stand.token(user, ttl=-3600)
    async with Viewer(stand.urls, expired, fresh=stand.token(user), executionId="ex_1") as viewer:
        await viewer.until_phase("live")
        assert viewer.ids == await log_ids(web_author)
        assert viewer.refreshed == 1
    async with Viewer(stand.urls, expired, fresh=expired, executionId="ex_1") as viewer:
        await viewer.until_phase("failed")
        assert (viewer.status["error"]["status"], len(viewer.connects)) == (401, 2)
    async with Viewer(stand.urls, expired, executionId="ex_1") as viewer:
        await viewer.until_phase("failed")
        assert (viewer.status["error"]["status"], len(viewer.connects)) == (401, 1)


@pytest.mark.parametrize("faults", [{"drop": 5}, {"repeat": True}], ids=["missing", "twice"])
async def test_a_stream_that_is_not_the_log(
    stand: WebStand, user: str, web_author: Author, faults: dict[str, object]
) -> None:
    """An event that is missing on the way is fetched by a resume before it; one that comes twice is given once."""
    await web_author.begin()
    await web_author.say(8)
    await web_author.end()
    async with Viewer(stand.urls, stand.token(user), executionId="ex_1", faults=faults) as viewer:
        await viewer.until_phase("ended")
        ids = await log_ids(web_author)
        assert viewer.ids == ids
        assert [connect["cursor"] for connect in viewer.connects[1:]] == ([ids[3]] if "drop" in faults else [])


async def test_a_trimmed_log(stand: WebStand, stand_redis: Redis, user: str, web_author: Author) -> None:
    """What was trimmed away is said once, with its ordinals, and the stream goes on with what there is."""
    await web_author.begin()
    await web_author.say(9)
    await stand_redis.xtrim(web_author.keys.log, maxlen=4, approximate=False)
    async with Viewer(stand.urls, stand.token(user), executionId="ex_1") as viewer:
        await viewer.until_phase("live")
        assert viewer.ids == await log_ids(web_author)
        (reset,) = viewer.named("stream:reset")
        assert viewer.status["resets"] == [reset]
        assert (reset["reason"], reset["lostFrom"], reset["lostTo"]) == ("trimmed", 1, 6)
        await web_author.end()
        await viewer.until_phase("ended")
        assert viewer.ids == await log_ids(web_author)


async def test_a_log_that_is_another(stand: WebStand, user: str, web_author: Author) -> None:
    """A cursor from a history that is gone is told so, and gets the history there is from its first event."""
    await web_author.begin()
    await web_author.say(5)
    async with Viewer(stand.urls, stand.token(user), executionId="ex_1", cursor="1-4") as viewer:
        await viewer.until_phase("live")
        assert [reset["reason"] for reset in viewer.named("stream:reset")] == ["diverged"]
        await web_author.end()
        await viewer.until_phase("ended")
        assert viewer.ids == await log_ids(web_author)


async def test_only_some_types(stand: WebStand, user: str, web_author: Author) -> None:
    """A filtered stream has gaps by design, and resumes after what it left out."""
    await web_author.write(
        ExecutionStarted(task="t", started_at=1, attempt=1),
        *(Thinking(thought=str(number)) for number in range(5)),
        ToolStart(call_id="c", tool_name="t", params={}),
    )
    types = ["tool:*", "execution:*"]
    async with Viewer(stand.urls, stand.token(user), executionId="ex_1", types=types) as viewer:
        await viewer.until_phase("live")
        await web_author.say(3)
        last = (await log_ids(web_author))[-1]
        await viewer.until("the cursor passes", lambda viewer: viewer.status["lastEventId"] == last)
        viewer.command("cut")
        await viewer.until("it is cut", lambda viewer: "waiting" in viewer.phases)
        await web_author.end()
        await viewer.until_phase("ended")
        assert viewer.types == ["execution:started", "tool:start", "execution:complete"]
        assert viewer.connects[1]["cursor"] == last


async def test_the_feed_from_now(stand: WebStand, user: str, web_author: Author) -> None:
    """The feed begins now, and a connection that is lost before its first event loses nothing."""
    await web_author.begin()
    async with Viewer(stand.urls, stand.token(user)) as viewer:
        await viewer.until_phase("live")
        assert viewer.ids == []
        viewer.command("cut")
        await viewer.until("it is cut", lambda viewer: "waiting" in viewer.phases)
        await web_author.say(3)
        await viewer.until_received(3)
        assert viewer.types == ["thinking"] * 3
        assert viewer.connects[1]["cursor"].endswith("-1")


async def test_leaving_and_coming_back(stand: WebStand, user: str, web_author: Author) -> None:
    """A closed stream keeps its place, and a start goes on from there."""
    await web_author.begin()
    async with Viewer(stand.urls, stand.token(user), executionId="ex_1") as viewer:
        await viewer.until_phase("live")
        viewer.command("close")
        await viewer.until_phase("closed")
        await web_author.say(4)
        await web_author.end()
        viewer.command("start")
        await viewer.until_phase("ended")
        assert viewer.ids == await log_ids(web_author)
        viewer.command("start")
        await viewer.until("a 204", lambda viewer: viewer.phases[-2:] == ["connecting", "ended"])
        assert len(viewer.ids) == 6


async def test_a_watch_and_a_slow_reader(stand: WebStand, user: str, web_author: Author) -> None:
    """However fast 7,000 events come, who watches is told once a frame, at the end with what the edge says as well; an
    iterator that lags behind them lets go of its connection, and has them all in the end."""
    await web_author.begin()
    for _ in range(14):
        await web_author.say(500)
    await web_author.end()
    given = {"url": stand.url, "token": stand.token(user), "executionId": "ex_1"}
    seen = json.loads(await node("watch.mjs", json.dumps(given)))
    ids = await log_ids(web_author)
    assert seen["ids"] == ids
    assert seen["kept"] == ids[-10:]
    assert seen["connects"] >= 2
    assert seen["isStable"]
    assert 1 <= seen["told"] <= seen["frames"] + 2


async def test_a_compact_stream_is_resumed_where_it_was_cut(stand: WebStand, user: str, web_author: Author) -> None:
    """The client takes a replay in short, over a cut and another edge, and each live event as it was logged; an event
    that is missing while it is live is still found."""
    chunks = [MessageDelta(message_id="m", delta="x") for _ in range(300)]
    await web_author.begin()
    await web_author.write(*chunks)
    await web_author.think("x")
    async with Viewer(stand.urls, stand.token(user), executionId="ex_1", compact=True, faults={"drop": 305}) as viewer:
        await viewer.until_phase("live")
        log = await log_ids(web_author)
        assert viewer.ids == [log[0], log[300], log[301]]
        await web_author.write(*chunks[:20])
        await viewer.until("a reconnect", lambda viewer: len(viewer.connects) == 2)
        await viewer.until_received(6)
        log = await log_ids(web_author)
        assert viewer.ids[3:] == [log[302], log[303], log[321]], "two live, the rest in short"
        assert viewer.connects[1]["cursor"] == log[303]
        viewer.command("cut")
        await web_author.end()
        await viewer.until_phase("ended")
    assert viewer.ids[6:] == (await log_ids(web_author))[322:]
    assert not viewer.named("stream:reset")
