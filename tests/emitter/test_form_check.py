"""Answers to forms against schemas of all kinds."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from emitter import form_check
from emitter.form_check import MESSAGE_CHARS, MISFITS_MAX, check

TEXT = {"type": "string"}
ADDRESS = {
    "type": "object",
    "properties": {
        "email": {"type": "string", "format": "email"},
        "name": {"type": "string", "minLength": 2, "maxLength": 20},
        "tags": {"type": "array", "items": {"type": "string"}},
        "home": {"type": "object", "properties": {"zip code": {"type": "string", "pattern": "^[0-9]{5}$"}}},
        "size": {"enum": ["s", "m"]},
    },
    "required": ["email"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {"node": {"type": "object", "properties": {"left": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}}}},
    "$ref": "#/$defs/node",
}


def places(schema: dict[str, Any], value: Any) -> list[str]:
    return [path for path, _ in check(schema, value)["misfits"]]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, {}),
        ({}, {"anything": [1, None]}),
        (ADDRESS, {"email": "a@example.com"}),
        (ADDRESS, {"email": "a@example.com", "name": "Ann", "tags": [], "home": {"zip code": "12345"}, "size": "m"}),
        (TREE, {"left": {"left": {"n": 1}}}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"]}}, {"a": 1, "b": 2}),
        ({"properties": {"day": {"format": "date"}}}, {"day": "2024-02-29"}),
    ],
)
def test_what_fits(schema: dict[str, Any], value: Any) -> None:
    """No misfit."""
    assert check(schema, value) == {"misfits": []}


@pytest.mark.parametrize(
    ("schema", "value", "path"),
    [
        (ADDRESS, {}, "$.value.email"),
        (ADDRESS, {"email": "nobody"}, "$.value.email"),
        (ADDRESS, {"email": "a@b", "name": "A"}, "$.value.name"),
        (ADDRESS, {"email": "a@b", "tags": ["x", 1]}, "$.value.tags[1]"),
        (ADDRESS, {"email": "a@b", "home": {"zip code": "1234"}}, "$.value.home['zip code']"),
        (ADDRESS, {"email": "a@b", "size": "l"}, "$.value.size"),
        (ADDRESS, {"email": "a@b", "surprise": 1}, "$.value"),
        (TREE, {"left": {"left": {"n": "1"}}}, "$.value.left.left.n"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"]}}, {"a": 1}, "$.value"),
        ({"properties": {"day": {"format": "date"}}}, {"day": "2023-02-29"}, "$.value.day"),
        ({"minProperties": 1}, {}, "$.value"),
    ],
)
def test_what_does_not_fit(schema: dict[str, Any], value: Any, path: str) -> None:
    """The path of the field, from the request's body on; a missing field is where it should be."""
    assert places(schema, value) == [path]


def test_every_field_that_does_not_fit_is_named_once() -> None:
    """Two that are missing and one that is wrong: three places."""
    schema = {"required": ["a", "b", "c"], "properties": {"c": TEXT}}
    assert places(schema, {"c": 5}) == ["$.value.a", "$.value.b", "$.value.c"]
    assert check({"required": ["a"]}, {})["misfits"] == [("$.value.a", "'a' is a required property")]


def test_misfits_are_bounded() -> None:
    """In number and in length, however much is wrong."""
    many = {f"field{number}": 5 for number in range(100)}
    found = check({"additionalProperties": TEXT}, many)["misfits"]
    assert len(found) == MISFITS_MAX
    found = check({"required": [f"field{number}" for number in range(100)]}, {})["misfits"]
    assert len(found) == MISFITS_MAX
    ((path, message),) = check({"additionalProperties": {"const": 1}}, {"x" * 5000: "y" * 5000})["misfits"]
    assert max(len(path), len(message)) == MESSAGE_CHARS


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objct"},
        {"properties": []},
        {"required": "email"},
        {"pattern": "("},
        {"minLength": -1},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
    ],
)
def test_a_schema_that_is_none(schema: dict[str, Any]) -> None:
    """It says so of any value, and why."""
    for value in ({}, {"email": 5}):
        assert check(schema, value).keys() == {"unusable"}
        assert len(check(schema, value)["unusable"]) <= MESSAGE_CHARS


@pytest.mark.parametrize(
    "reference",
    [
        "https://example.invalid/schema.json",
        "http://127.0.0.1:1/schema.json",
        "file:///etc/passwd",
        "#/$defs/missing",
        "#missing",
        "other.json",
    ],
)
@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_a_reference_that_leads_out_of_the_schema(
    keyword: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fetched; it allows anything, and the rest of the schema counts."""
    fetched: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *arguments, **options: fetched.append(arguments))
    schema = {"properties": {"a": {keyword: reference}, "b": TEXT}, "required": ["a"]}
    assert check(schema, {"a": [5], "b": "x"}) == {"misfits": []}
    assert places(schema, {"a": 5, "b": 5}) == ["$.value.b"]
    assert places(schema, {}) == ["$.value.a"]
    assert fetched == []


def test_an_unknown_dialect_is_read_as_the_latest() -> None:
    """And one that is not even a name."""
    for dialect in ("https://example.invalid/my-dialect", ""):
        assert places({"$schema": dialect, "properties": {"a": TEXT}}, {"a": 1}) == ["$.value.a"]
    assert check({"$schema": 5}, {}).keys() == {"unusable"}


def test_a_value_too_deep_to_be_looked_at_is_not_let_through() -> None:
    """Only the value decides that: the schema is used for others."""
    deep: dict[str, Any] = {"n": "not a number"}
    for _ in range(500):
        deep = {"left": deep}
    assert check(TREE, deep).keys() == {"unchecked"}
    assert check(TREE, {"n": 1}) == {"misfits": []}


def test_as_a_program() -> None:
    """One question on its input, one answer on its output, from any directory."""
    asked = json.dumps({"schema": ADDRESS, "value": {"email": "ä@ö", "name": ""}})
    run = subprocess.run(
        [sys.executable, "-P", form_check.__file__], input=asked, capture_output=True, text=True, cwd="/", check=True
    )
    assert json.loads(run.stdout)["misfits"] == [["$.value.name", "'' is too short"]]
    assert run.stderr == ""
