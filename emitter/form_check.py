"""Checks a form's answer against its JSON Schema. Needs `jsonschema`, which an edge brings along.

An edge (`broker.executions.forms`) runs this file as a program of its own, so it imports nothing of its package:
`{"schema":…,"value":…}` comes in, `check`'s result goes out, both as JSON.

Nothing is ever fetched: a reference that leads out of the schema, or nowhere, allows anything. The schema's own
`$schema` names its dialect, 2020-12 if it names none. Of the formats those are checked that need no other package.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, SchemaError, ValidationError
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

FORMATS = FormatChecker(("email", "date", "ipv4", "ipv6", "uuid"))
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
MISFITS_MAX = 10
MESSAGE_CHARS = 200
CPU_SECONDS = 2
MEMORY_BYTES = 128 * 1024 * 1024
"""Of addresses. The interpreter and its libraries take a third of it at most."""


def check(schema: dict[str, Any], value: Any) -> dict[str, Any]:
    """`{"misfits": [[path, message], …]}` (empty: the value fits), `{"unusable": why}` of a schema that fits no value
    or all, or `{"unchecked": why}` of a value for which that cannot be told."""
    try:
        validator = _validator(schema)
        for _ in validator.iter_errors({}):
            pass
    except (SchemaError, Unresolvable, RecursionError) as error:
        return {"unusable": _clip(getattr(error, "message", "") or type(error).__name__)}
    try:
        errors = list(islice(validator.iter_errors(value), MISFITS_MAX))
    except (Unresolvable, RecursionError) as error:
        return {"unchecked": type(error).__name__}
    misfits = {path: message for error in errors for path, message in _places(error)}
    return {"misfits": list(misfits.items())[:MISFITS_MAX]}


def _validator(schema: dict[str, Any]) -> Any:
    """Raises `SchemaError`."""
    named = {"$schema": schema["$schema"]} if isinstance(schema.get("$schema"), str) else {}
    dialect: Any = validator_for(named, default=Draft202012Validator)
    dialect.check_schema(schema)
    known = {name: dialect.VALIDATORS[name] for name in REFERENCES if name in dialect.VALIDATORS}
    make: Any = extend
    lenient = make(dialect, {name: _lenient(keyword) for name, keyword in known.items()})
    return lenient(schema, registry=Registry(), format_checker=FORMATS)


def _lenient(keyword: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    """The keyword, for which a reference to what is not there allows anything: whoever made the schema may mend it,
    whoever answers cannot."""

    def check(validator: Any, reference: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        try:
            yield from keyword(validator, reference, instance, schema) or ()
        except Unresolvable:
            return

    return check


def _places(error: Any) -> Iterator[tuple[str, str]]:
    """Where in the answer it does not fit, and why. A missing field is where it should be."""
    path = "$.value" + error.json_path[1:]
    if error.validator == "required" and isinstance(error.instance, dict):
        for name in error.validator_value:
            if name not in error.instance:
                yield f"{path}.{_clip(name)}", _clip(f"{name!r} is a required property")
    else:
        yield _clip(path), _clip(error.message)


def _clip(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARS else text[: MESSAGE_CHARS - 1] + "…"


def main() -> None:
    # Also if nobody is left to kill it. What the start took is not the check's.
    seconds = math.ceil(time.process_time()) + CPU_SECONDS
    # A second before the hard limit, whose SIGKILL does not tell who sent it; and SIGXCPU would leave a core.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        asked = json.load(sys.stdin)
        answer = check(asked["schema"], asked["value"])
    except MemoryError:
        answer = {"unchecked": "it took too much memory", "is_costly": True}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
