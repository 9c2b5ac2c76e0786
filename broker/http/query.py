"""What the query of a request names."""

from __future__ import annotations

import re
from typing import get_args

from aiohttp import web

from broker.base.problem import Problem
from broker.executions.search import Sought, words_of
from emitter.events import State
from emitter.wire.ids import START, EventId, parse_event_id


def is_tree(request: web.Request) -> bool:
    text = request.query.get("tree", "false")
    if text not in ("true", "false"):
        raise Problem(400, "invalid-parameter", "tree is true or false", path="tree")
    return text == "true"


def sought_in(request: web.Request) -> Sought | None:
    """What a list is searched for; None: for nothing."""
    query = request.query
    state = query.get("state")
    if state is not None and state not in get_args(State):
        raise Problem(400, "invalid-parameter", f"state is one of {', '.join(get_args(State))}", path="state")
    sought = Sought(
        state, query.get("agent"), words_of(query.get("q", "")), time_in(request, "since"), time_in(request, "until")
    )
    return None if sought == Sought() else sought


def time_in(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise Problem(400, "invalid-parameter", f"{name} is a time in milliseconds since the epoch", path=name)
    return int(text)


def whole_number(request: web.Request, name: str, *, default: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= most:
        raise Problem(400, "invalid-parameter", f"{name} is a whole number from 1 to {most}", path=name)
    return int(text)


def after_in(request: web.Request) -> EventId:
    text = request.query.get("after")
    if text is None:
        return START
    try:
        return parse_event_id(text)
    except ValueError as error:
        raise Problem(400, "malformed-cursor", str(error), path="after") from error
