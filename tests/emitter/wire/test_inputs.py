"""Questions and their ids."""

from __future__ import annotations

from typing import Any

import pytest

from emitter.errors import InvalidEvent
from emitter.events import InputRequired
from emitter.wire.envelope import append_mark, encode_data
from emitter.wire.ids import INPUT_ID, now_ms
from emitter.wire.inputs import EXPIRES_SECONDS_MAX, OPTIONS_MAX, Inputs

FORM = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


def ids(*asked: dict[str, Any]) -> list[str]:
    """Of questions asked one after the other in one attempt."""
    inputs = Inputs()
    return [inputs.make(**({"prompt": "Go?", "kind": "approval"} | each)).input_id for each in asked]


def test_the_same_question_has_the_same_id_in_every_attempt() -> None:
    """However its schema's keys are ordered, and whatever its time."""
    turned = {"properties": {"age": {"type": "integer"}, "name": {"type": "string"}}, "type": "object"}
    assert ids({"kind": "form", "schema": FORM}) == ids({"kind": "form", "schema": turned, "expires_in": 5})
    assert ids({"kind": "choice", "options": ["a", "b"]}) == ids({"kind": "choice", "options": ("a", "b")})


def test_another_question_has_another_id() -> None:
    """Prompt, kind, options and their order, and schema make the question."""
    different: list[dict[str, Any]] = [
        {},
        {"prompt": "Go!"},
        {"kind": "text"},
        {"kind": "choice", "options": ["a", "b"]},
        {"kind": "choice", "options": ["b", "a"]},
        {"kind": "form"},
        {"kind": "form", "schema": FORM},
        {"kind": "form", "schema": {**FORM, "required": ["name"]}},
    ]
    assert len({*ids(*different)}) == len(different)


def test_a_repeated_question_is_told_apart_by_its_number() -> None:
    """The second time is another question, and so is the same one in between of no consequence to it."""
    first, other, second = ids({}, {"prompt": "Sure?"}, {})
    assert first.removesuffix("_1") == second.removesuffix("_2")
    assert other.endswith("_1")
    assert all(INPUT_ID.match(each) for each in (first, other, second))


def test_an_id_of_ones_own_is_kept_and_counts_for_nothing() -> None:
    """It is the agent's own promise, and numbers none of the others."""
    assert ids({"input_id": "mine"}, {})[0] == "mine"
    assert ids({"input_id": "mine"}, {})[1] == ids({})[0]


def test_a_question_is_made_as_it_was_asked() -> None:
    """With the time of its end by the clock (ms)."""
    made = Inputs().make("Which?", "choice", options=("a", "b"), expires_in=60, input_id="q")
    assert made.expires_at is not None
    assert abs(made.expires_at - now_ms() - 60_000) < 5_000
    expected = InputRequired(
        input_id="q", prompt="Which?", kind="choice", options=["a", "b"], expires_at=made.expires_at
    )
    assert made == expected
    assert append_mark(made, encode_data(made)).startswith("w:q ")


@pytest.mark.parametrize(
    "wrong",
    [
        *({"expires_in": seconds} for seconds in (0, -1, float("nan"), float("inf"), EXPIRES_SECONDS_MAX * 2)),
        *({"expires_in": seconds} for seconds in (True, "5", [], 10**400)),
        {"schema": []},
        {"schema": "{}"},
        {"schema": {"a": object()}},
        {"prompt": "half \ud83d"},
        {"prompt": object()},
        {"options": "ab"},
        {"options": 5},
        {"options": {"a", "b"}},
        {"kind": "choice"},
        *({"kind": "choice", "options": each} for each in ([], [""], ["a", " "], ["a", "a"], ["a", 1], [None])),
        {"kind": "choice", "options": [str(number) for number in range(OPTIONS_MAX + 1)]},
    ],
    ids=lambda wrong: ", ".join(wrong),
)
def test_what_nobody_could_answer_is_refused(wrong: dict[str, Any]) -> None:
    """No time, no options, no schema: it raises at the call."""
    with pytest.raises(InvalidEvent):
        ids(wrong)


def test_a_refused_question_does_not_count() -> None:
    """The next of the same kind has the first's number."""
    inputs = Inputs()
    with pytest.raises(InvalidEvent):
        inputs.make("Go?", "approval", expires_in=-1)
    assert inputs.make("Go?", "approval").input_id.endswith("_1")


@pytest.mark.parametrize("options", [["a"], [str(number) for number in range(OPTIONS_MAX)]])
def test_as_many_options_as_are_allowed(options: list[str]) -> None:
    """From one to a hundred; other kinds may have any."""
    assert Inputs().make("Which?", "choice", options=options).options == options
    assert Inputs().make("Go?", "approval", options=[]).options == []
