"""Values that no client should send: JSON of any form, texts with what breaks readers, and good requests with some
members changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

PIECES = st.sampled_from(
    ["", " ", "0", "-1", "1-1", "0-0", "x", "\n", "\r\n", "\0", "\u2028", "\ufeff", "é", "\U0001f600", "٣", "²", ":",
     ".", "/", "%", "__proto__", "null", "true", "e9", "9" * 15, "9" * 20, "data:", "id:", "https://a.example/",
     "a" * 300]
)  # fmt: skip
"""`٣` and `²` are digits to some functions of Python."""
TEXTS = st.one_of(
    st.text(max_size=20), st.lists(PIECES, max_size=4).map("".join), st.text("0123456789-. :", max_size=24)
)
NUMBERS = st.one_of(
    st.integers(-5, 5), st.sampled_from([2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**30, 1e308, -0.0, 0.1, 1e-310])
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=8
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every member of a value, and to itself."""
    yield path
    if isinstance(value, dict):
        for name, each in value.items():
            yield from places(each, (*path, name))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from places(each, (*path, number))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a path; `...`: with nothing there."""
    if not path:
        return None if new is ... else new
    first, rest = path[0], path[1:]
    if isinstance(value, dict):
        changed = {name: (replaced(each, rest, new) if name == first else each) for name, each in value.items()}
        return {name: each for name, each in changed.items() if rest or new is not ... or name != first}
    changed_list = [(replaced(each, rest, new) if number == first else each) for number, each in enumerate(value)]
    return [each for number, each in enumerate(changed_list) if rest or new is not ... or number != first]


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A value of JSON, somewhere of another type, without a member, or with one more."""
    for _ in range(draw(st.integers(0, 3))):
        known = list(places(value))
        path = draw(st.sampled_from(known))
        other = at(value, draw(st.sampled_from(known)))
        value = replaced(value, path, draw(st.one_of(JSON, st.just(...), st.just(other))))
    return value


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@st.composite
def bodies(draw: st.DrawFn, value: Any) -> bytes:
    """The JSON of a changed value, sometimes cut or with a byte of its own."""
    body = json.dumps(draw(changed(value)), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0 and body:
        place = draw(st.integers(0, len(body)))
        body = body[:place] + draw(st.binary(max_size=3)) + draw(st.sampled_from([body[place:], b""]))
    return body
