"""Every error is problem+json, says no more than it should, and carries the request's id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient
from redis import exceptions as redis_errors

from broker.base.error_mapping import to_problem
from broker.base.problem import Problem, retry_after
from broker.http import errors as problems
from emitter import errors

Client = Callable[[web.Application], Awaitable[TestClient]]


def app_raising(error: BaseException) -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        raise error

    app = web.Application()
    problems.setup(app)
    app.router.add_get("/", handler)
    return app


async def body_of(aiohttp_client: Client, error: BaseException) -> tuple[int, dict[str, Any]]:
    client = await aiohttp_client(app_raising(error))
    async with client.get("/") as response:
        assert response.content_type == "application/problem+json"
        return response.status, await response.json()


async def test_problem_body_has_the_standard_members_and_extensions(aiohttp_client: Client) -> None:
    """A problem's body has type, title, status, detail, requestId and its extensions; its headers are sent."""
    client = await aiohttp_client(
        app_raising(Problem(429, "rate-limited", "slow down", headers=retry_after(1.2), limit=5))
    )
    async with client.get("/", headers={"X-Request-ID": "req_1.a-B"}) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "2"
        assert response.headers["X-Request-ID"] == "req_1.a-B"
        assert response.headers["Server"] == "runcast"
        assert await response.json() == {
            "type": "urn:runcast:problem:rate-limited",
            "title": "Rate limited",
            "status": 429,
            "detail": "slow down",
            "requestId": "req_1.a-B",
            "limit": 5,
        }


async def test_an_extension_never_replaces_a_standard_member() -> None:
    """The status in the body is the response's, whatever an extension is called."""
    assert Problem(409, "execution-ended", type="x", requestId="y").body("r") == {
        "type": "urn:runcast:problem:execution-ended",
        "title": "Execution ended",
        "status": 409,
        "requestId": "r",
    }


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "ü", 'a"b', "a\tb"])
async def test_an_odd_request_id_is_replaced(aiohttp_client: Client, given: str) -> None:
    """A request id that is not 1 to 64 of A-Z a-z 0-9 _ . - is not echoed; each request gets one of its own."""
    client = await aiohttp_client(app_raising(Problem(409, "conflict")))
    async with client.get("/", headers={"X-Request-ID": given}) as first, client.get("/") as second:
        ids = {first.headers["X-Request-ID"], second.headers["X-Request-ID"]}
        assert given not in ids
        assert len(ids) == 2


@pytest.mark.parametrize(
    ("error", "status", "slug", "extras"),
    [
        (
            errors.InvalidEvent("tool:start: Expected `str`, got `int` - at `$.callId`"),
            422,
            "invalid",
            {"path": "$.callId"},
        ),
        (
            errors.InvalidEvent("plan:created: Object missing required field `goal` - at `$.plan`"),
            422,
            "invalid",
            {"path": "$.plan.goal"},
        ),
        (errors.InvalidEvent("executionId: 'a:b' is not 1 to 64"), 422, "invalid", {"path": "$.executionId"}),
        (errors.PayloadTooLarge(70_000, 65_536), 413, "payload-too-large", {"limit": 65_536, "size": 70_000}),
        (errors.UnknownExecution("ex_1"), 404, "unknown-execution", {}),
        (errors.UnknownInput("ex_1"), 404, "unknown-input", {}),
        (errors.ExecutionEnded("ex_1", "failed"), 409, "execution-ended", {"state": "failed"}),
        (errors.ExecutionExists("ex_1", "running"), 409, "execution-exists", {"state": "running"}),
        (errors.ExecutionOwned("ex_1", "worker-7"), 409, "execution-owned", {}),
        (errors.Superseded("ex_1", 2), 409, "superseded", {"attempt": 2}),
        (errors.EventsMissing("ex_1", 4), 409, "producer-gap", {"expected": 5}),
        (errors.TooManyQueued("ex_1", 5), 429, "too-many-queued", {"limit": 5}),
        (errors.TooManyInputs("ex_1", 5), 409, "too-many-inputs", {"limit": 5}),
        (errors.NotSteerable("ex_1", "deaf"), 409, "not-steerable", {}),
        (errors.UnknownMessage("ex_1"), 404, "unknown-message", {}),
        (errors.MessageTaken("ex_1"), 409, "message-taken", {}),
        (errors.TooManyMessages("ex_1", 50), 429, "too-many-messages", {"limit": 50}),
        (errors.TooManyMessages("ex_1", 0), 429, "too-many-messages", {"limit": 1000}),
        (errors.InputExpired("i1"), 409, "input-expired", {}),
        (
            errors.AlreadyAnswered("ex_1", '{"value":true,"by":"bob","at":5}'),
            409,
            "already-answered",
            {"answeredBy": "bob", "answeredAt": 5},
        ),
        (errors.AlreadyAnswered("ex_1", "not json"), 409, "already-answered", {}),
        (msgspec.ValidationError("Expected `str`, got `int` - at `$.task`"), 422, "invalid", {"path": "$.task"}),
        (msgspec.DecodeError("JSON is malformed"), 400, "malformed", {}),
        (redis_errors.ConnectionError("host secret-host refused"), 503, "unavailable", {}),
        (redis_errors.TimeoutError(), 503, "unavailable", {}),
        (redis_errors.ReadOnlyError(), 503, "unavailable", {}),
        (redis_errors.ResponseError("MISCONF Errors writing to the AOF file"), 503, "unavailable", {}),
        (redis_errors.NoPermissionError("User edge has no permissions to run"), 503, "unavailable", {}),
        (redis_errors.ResponseError("The user executing the script can't run this"), 503, "unavailable", {}),
        (redis_errors.ResponseError("ACL failure in script: No permissions to"), 503, "unavailable", {}),
        (errors.RedisUnavailable("away"), 503, "unavailable", {}),
        (TimeoutError(), 503, "unavailable", {}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_known_errors_become_their_problem(error: Exception, status: int, slug: str, extras: dict[str, Any]) -> None:
    """Each foreseen error has one status, one type and the data a client needs."""
    problem = to_problem(error)
    assert problem is not None
    assert (problem.status, problem.slug, problem.extensions) == (status, slug, extras)
    assert ("Retry-After" in problem.headers) == (status in (429, 503))
    assert "secret-host" not in problem.detail


async def test_the_limit_is_named_when_a_payload_is_too_large(aiohttp_client: Client) -> None:
    """413 names the setting that limits an event."""
    status, body = await body_of(aiohttp_client, errors.PayloadTooLarge(70_000, 65_536))
    assert status == 413
    assert "65536" in body["detail"]
    assert "RUNCAST_MAX_EVENT_BYTES" in body["detail"]


async def test_an_unforeseen_error_is_logged_and_not_shown(aiohttp_client: Client) -> None:
    """500 tells the request id; the error's text is in the log only."""
    with structlog.testing.capture_logs() as logs:
        status, body = await body_of(aiohttp_client, RuntimeError("password=hunter2"))
    assert status == 500
    assert "hunter2" not in str(body)
    assert [(line["event"], line["request_id"]) for line in logs] == [("request_failed", body["requestId"])]


async def test_aiohttp_errors_become_problems(aiohttp_client: Client) -> None:
    """A missing route is a 404 problem and a wrong method a 405 problem that keeps its Allow header."""
    client = await aiohttp_client(app_raising(Problem(409, "conflict")))
    async with client.get("/nowhere") as response:
        assert response.status == 404
        assert (await response.json())["type"] == "urn:runcast:problem:not-found"
    async with client.post("/") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET,HEAD"
        assert (await response.json())["title"] == "Method Not Allowed"


async def test_a_body_over_the_limit_is_a_problem(aiohttp_client: Client) -> None:
    """aiohttp's own body limit answers 413 as problem+json and names the limit."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app = web.Application(client_max_size=1000)
    problems.setup(app)
    app.router.add_post("/", handler)
    client = await aiohttp_client(app)
    async with client.post("/", data=b"x" * 2000) as response:
        assert response.status == 413
        assert "1000" in (await response.json())["detail"]


async def test_redirects_pass_through(aiohttp_client: Client) -> None:
    """What aiohttp raises below 400 is no problem."""
    client = await aiohttp_client(app_raising(web.HTTPFound("/elsewhere")))
    async with client.get("/", allow_redirects=False) as response:
        assert response.status == 302
        assert response.headers["Location"] == "/elsewhere"


async def test_an_error_in_a_started_response_cuts_the_connection(aiohttp_client: Client) -> None:
    """Once the head is out, an error ends in a cut connection, never in a body that looks complete; the head has
    the request's id."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise RuntimeError("boom")

    app = web.Application()
    problems.setup(app)
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    with structlog.testing.capture_logs() as logs:
        async with client.get("/", headers={"X-Request-ID": "r1"}) as response:
            assert response.headers["X-Request-ID"] == "r1"
            with pytest.raises(aiohttp.ClientError):
                await response.read()
    assert [line["event"] for line in logs] == ["request_failed"]
