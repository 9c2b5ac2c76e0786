"""Checks a form's answer against its JSON Schema. Needs `jsonschema`, which an edge brings along.

An edge (`broker.executions.forms`) runs this file as a program, so it imports nothing of its package. Its input is
`{"schema":…,"value":…}`, its output the result of `check`, both as JSON.

Nothing is fetched: a reference that leads out of the schema, or nowhere, allows any value. `$schema` names the dialect;
the default is 2020-12. Only formats that need no other package are checked.
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
    """`{"misfits": [[path, message], …]}` (empty: the value fits), `{"unusable": reason}` for a schema that is not
    valid, or `{"unchecked": reason}` if the check could not finish."""
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
    """The keyword, such that a dangling reference allows any value: the person who answers cannot mend the schema."""

    def check(validator: Any, reference: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        try:
            yield from keyword(validator, reference, instance, schema) or ()
        except Unresolvable:
            return

    return check


def _places(error: Any) -> Iterator[tuple[str, str]]:
    """Paths in the answer that do not fit, with the reason. A missing field has the path where it should be."""
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
    # Even if the parent has died. The CPU time of the start does not count.
    seconds = math.ceil(time.process_time()) + CPU_SECONDS
    # SIGXCPU comes a second before the hard limit and its SIGKILL. It would leave a core file.
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
