"""Which failures are tried again, and when."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
import redis.exceptions

from emitter import Fatal, Retry
from emitter.worker.retries import BACKOFF_SECONDS_MAX, retry_after


class Answer:
    def __init__(self, status: int) -> None:
        self.status_code = status


class ApiError(Exception):
    """As the clients of models have it."""

    def __init__(self, status: int) -> None:
        self.status_code = status


class HttpError(Exception):
    """As httpx and requests have it."""

    def __init__(self, status: int) -> None:
        self.response = Answer(status)


TRANSIENT = [
    ConnectionResetError(),
    TimeoutError(),
    TimeoutError(),
    redis.exceptions.ConnectionError(),
    aiohttp.ServerDisconnectedError(),
    ApiError(429),
    HttpError(503),
    ExceptionGroup("g", [TimeoutError(), ApiError(500)]),
]
FINAL = [
    ValueError("no"),
    KeyError("x"),
    FileNotFoundError(),
    ApiError(400),
    HttpError(404),
    Fatal("never"),
    ExceptionGroup("g", [TimeoutError(), ValueError()]),
    ExceptionGroup("g", [TimeoutError(), Fatal()]),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda each: type(each).__name__)
def test_what_may_pass_is_tried_again(error: BaseException) -> None:
    assert retry_after(error, 0, None) is not None


@pytest.mark.parametrize("error", FINAL, ids=lambda each: type(each).__name__)
def test_what_will_not_pass_is_final(error: BaseException) -> None:
    assert retry_after(error, 0, None) is None


def test_errors_of_other_packages_are_known_by_their_names() -> None:
    """Without importing them; classes that only share a name are none of them."""
    known: Any = type("ConnectError", (type("TransportError", (Exception,), {"__module__": "httpx._exceptions"}),), {})
    other: Any = type("TransportError", (Exception,), {"__module__": "my_code"})
    assert retry_after(known(), 0, None) is not None
    assert retry_after(other(), 0, None) is None


def test_an_agent_says_which() -> None:
    """`retry_on` stands instead of the default; `Retry` and `Fatal` count whatever it says."""
    assert retry_after(ValueError(), 0, (ValueError,)) is not None
    assert retry_after(TimeoutError(), 0, (ValueError,)) is None
    assert retry_after(TimeoutError(), 0, ()) is None
    assert retry_after(Retry(after=3), 0, ()) == 3
    assert retry_after(Fatal(), 0, (Exception,)) is None


@pytest.mark.parametrize(("after", "seconds"), [(0, 0), (-1, 0), (30, 30), (1e12, 7 * 86_400)])
def test_a_pause_that_was_asked_for_is_kept_within_bounds(after: float, seconds: float) -> None:
    assert retry_after(Retry(after=after), 0, None) == seconds


def test_pauses_grow_with_jitter_up_to_a_bound() -> None:
    for failed in range(2000):
        seconds = retry_after(TimeoutError(), failed, None)
        assert seconds is not None
        whole = min(BACKOFF_SECONDS_MAX, 2.0 ** min(failed, 10))
        assert whole / 2 <= seconds <= whole
    assert len({retry_after(Retry(), 3, None) for _ in range(20)}) > 1
