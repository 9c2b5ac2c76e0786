"""Cursors the log cannot serve: what is gone is said in band, exactly, and never silently skipped."""

from __future__ import annotations

import pytest

from emitter.store.append import LogLimits
from tests.edges import SSE, Author, EdgeProcess, Follower, call, read_log, request, token_for


async def test_trimmed_history_is_named_to_who_starts(two_edges: list[EdgeProcess], author: Author) -> None:
    """A log whose beginning is gone is told from its first event, after a reset with the ordinals that are lost."""
    await author.begin()
    await author.say(49)
    await author.redis.xtrim(author.keys.log, maxlen=20, approximate=False)
    async with Follower(two_edges, author.path, author.token) as viewer:
        await viewer.until_live()
    log = await author.log()
    (reset,) = viewer.resets
    assert reset.data == {"reason": "trimmed", "lostFrom": 1, "lostTo": 30, "resumedAt": log[0].id}
    assert reset.after == 0
    assert viewer.events == log


async def test_trimmed_history_is_named_to_who_returns(two_edges: list[EdgeProcess], author: Author) -> None:
    """A cursor that was trimmed away: the loss begins after it and ends before the log's first event."""
    await author.begin()
    cursor = await author.say(9)
    await author.say(40)
    await author.redis.xtrim(author.keys.log, maxlen=20, approximate=False)
    async with Follower(two_edges, author.path, author.token, cursor=str(cursor)) as viewer:
        await viewer.until_live()
    log = await author.log()
    assert [r.data for r in viewer.resets] == [
        {"reason": "trimmed", "lostFrom": 11, "lostTo": 30, "resumedAt": log[0].id}
    ]
    assert viewer.events == log


async def test_a_trimmed_cursor_whose_successor_is_there_lost_nothing(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """When the log now begins right after the cursor there is nothing to tell."""
    await author.begin()
    cursor = await author.say(29)
    await author.say(20)
    await author.redis.xtrim(author.keys.log, maxlen=20, approximate=False)
    async with Follower(two_edges, author.path, author.token, cursor=str(cursor)) as viewer:
        await viewer.until_live()
    assert not viewer.resets
    assert viewer.events == await author.log()


async def test_the_configured_length_trims_and_the_loss_is_told(two_edges: list[EdgeProcess], author: Author) -> None:
    """With a small log limit, a viewer from the start hears what its limit cost, and misses nothing after that."""
    short = Author(author.redis, author.user, limits=LogLimits(log_maxlen=100))
    await short.begin()
    for _ in range(20):
        await short.say(50)
    await short.end()
    async with Follower(two_edges, short.path, short.token) as viewer:
        await viewer.until_done()
    log = await short.log()
    assert len(log) < 400
    first = int(log[0].id.split("-")[1])
    assert [(r.data["reason"], r.data["lostFrom"], r.data["lostTo"]) for r in viewer.resets] == [
        ("trimmed", 1, first - 1)
    ]
    assert viewer.events == log


async def test_a_live_viewer_does_not_care_that_the_log_is_trimmed_behind_it(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """Who is up to date loses nothing to trimming, on a reconnect neither."""
    short = Author(author.redis, author.user, limits=LogLimits(log_maxlen=100))
    await short.begin()
    async with Follower(two_edges, short.path, short.token) as viewer:
        for count in range(1, 11):
            await short.say(50)
            await viewer.until_events(1 + 50 * count)
            viewer.hang_up()
        await short.end()
        await viewer.until_done()
    assert not viewer.resets
    assert [int(id_.split("-")[1]) for id_ in viewer.ids] == list(range(1, 503))


@pytest.mark.parametrize("cursor", ["1-3", "99999999999999-3", "1-0000000000999", "99999999999999-999"])
async def test_a_foreign_cursor_is_said_to_be_one(two_edges: list[EdgeProcess], author: Author, cursor: str) -> None:
    """An id that is not of this log is answered with `diverged` and the whole log."""
    await author.begin()
    await author.say(9)
    async with Follower(two_edges, author.path, author.token, cursor=cursor) as viewer:
        await viewer.until_live()
    assert [r.data["reason"] for r in viewer.resets] == ["diverged"]
    assert viewer.events == await author.log()


@pytest.mark.parametrize("cursor", ["x", "12", "-1-2", "1-2-3", "1.5-2", "12345678901234567-1", "%00-1"])
async def test_a_malformed_cursor_is_a_problem_to_a_fetch_and_a_reset_to_an_event_source(
    two_edges: list[EdgeProcess], author: Author, cursor: str
) -> None:
    """A program is told 400; a browser, which could do nothing about it, gets `unknown` and the log from the start."""
    await author.begin()
    await author.say(3)
    port = two_edges[0].port
    answer = await call(port, "GET", author.path, author.token, headers={"Last-Event-ID": cursor})
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.body["type"].endswith("malformed-cursor")
    async with Follower([port], author.path, author.token, cursor=cursor) as viewer:
        await viewer.until_live()
    assert [(r.data["reason"], r.after) for r in viewer.resets] == [("unknown", 0)]
    assert viewer.events == await author.log()


async def test_the_header_wins_over_the_query(two_edges: list[EdgeProcess], author: Author) -> None:
    """A browser that reconnects keeps the URL it was opened with, so the header must count."""
    await author.begin()
    old = await author.say(3)
    new = await author.say(3)
    await author.say(3)
    path = f"{author.path}?lastEventId={old}"
    async with Follower(two_edges, path, author.token) as by_query:
        await by_query.until_live()
    async with Follower(two_edges, path, author.token, cursor=str(new)) as by_header:
        await by_header.until_live()
    log = await author.log()
    assert by_query.events == log[4:]
    assert by_header.events == log[7:]


async def test_nothing_follows_the_end(two_edges: list[EdgeProcess], author: Author) -> None:
    """204 to a cursor at the end and to `from=now`; before the end, the rest and then the end."""
    await author.begin()
    almost = await author.say(3)
    last = await author.end()
    for port in (edge.port for edge in two_edges):
        for path, headers in (
            (author.path, {"Last-Event-ID": str(last)}),
            (author.path + "?from=now", {}),
        ):
            async with request(port, "GET", path, author.token, headers=SSE | headers) as response:
                assert response.status == 204
    async with Follower(two_edges, author.path, author.token, cursor=str(almost)) as viewer:
        await viewer.until_done()
    assert viewer.events == (await author.log())[-1:]


async def test_an_expired_log_still_tells_that_it_ended(two_edges: list[EdgeProcess], author: Author) -> None:
    """With only the tombstone left: 204 at the end, else a reset with what is lost and a clean end, once."""
    await author.begin()
    cursor = await author.say(4)
    last = await author.end()
    await author.redis.delete(author.keys.log)
    async with request(
        two_edges[0].port, "GET", author.path, author.token, headers=SSE | {"Last-Event-ID": str(last)}
    ) as response:
        assert response.status == 204
    for start, lost_from in ((None, 1), (str(cursor), 6)):
        async with Follower(two_edges, author.path, author.token, cursor=start) as viewer:
            await viewer.until_done()
        assert [r.data for r in viewer.resets] == [
            {"reason": "trimmed", "lostFrom": lost_from, "lostTo": 6, "resumedAt": str(last)}
        ]
        assert not viewer.events
        assert viewer.ends == ["finished"]
        assert viewer.statuses == [200, 204]


async def test_an_expired_log_of_a_running_execution_goes_on(two_edges: list[EdgeProcess], author: Author) -> None:
    """A log that expired while the execution ran: the loss is told, and what comes next is received."""
    await author.begin()
    await author.say(4)
    await author.redis.delete(author.keys.log)
    async with Follower(two_edges, author.path, author.token) as viewer:
        await viewer.until_live()
        await author.say(2)
        await author.end()
        await viewer.until_done()
    assert [(r.data["reason"], r.data["lostFrom"], r.data["lostTo"]) for r in viewer.resets] == [("trimmed", 1, 5)]
    assert viewer.events == await read_log(author.redis, author.keys.log)


async def test_an_unknown_execution_and_a_foreign_one_are_the_same_404(
    two_edges: list[EdgeProcess], author: Author
) -> None:
    """Nobody can learn from the answer whether somebody else has an execution of that name."""
    await author.begin()
    port = two_edges[0].port
    foreign = await call(port, "GET", author.path, token_for("mallory"))
    unknown = await call(port, "GET", author.path.replace("ex_1", "ex_2"), author.token)
    for answer in (foreign, unknown):
        assert answer.status == 404
        del answer.body["requestId"]
    assert foreign.body == unknown.body
