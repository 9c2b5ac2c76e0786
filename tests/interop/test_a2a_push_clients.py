"""Push notifications with the official A2A clients, unmodified: of three versions of the protocol, in two languages.
All do the same, and what is posted is read with a package of that version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import Stand, needs_node, node, stand
from test_a2a import JAVASCRIPT, PYTHON, REST, python, run

from tests.edges import token_for
from tests.receivers import SETTINGS, receiver


@pytest.fixture(scope="module")
def site() -> Iterator[Stand]:
    with stand(**SETTINGS) as started:
        yield started


def state(body: Any) -> str:
    task = body.get("task", body)
    return str(task["status"]["state"])


async def check(site: Stand, script: Any, user: str, version: str, reading: Any, *, can_list: bool = True) -> None:
    """What the client saw, and what came to its receiver."""
    async with receiver() as here:
        hook = f"http://127.0.0.1:{here.port}"
        seen = await script({"urls": site.urls, "token": token_for(user), "hook": hook})
        assert seen["made"] == ["two", hook + "/two", ""], "the token is not shown again"
        assert seen["got"] == hook + "/two"
        if can_list:
            assert (seen["listed"], seen["left"]) == (["one", "two"], ["one"])
        await here.until("the end", lambda got: any("ancel" in state(each.body).lower() for each in got))
        one = [each for each in here.got if each.path == "/one"]
        assert {each.headers["x-a2a-notification-token"] for each in one} == {"of-one"}
        assert {each.headers["authorization"] for each in one} == {"Bearer of-the-receiver"}
        assert {each.body.get("task", each.body)["id"] for each in one} == {seen["task"]}
        assert all(("task" in each.body) == (version == "1.0") for each in one)
        states = await reading({"bodies": [each.body for each in one]})
        assert states == ["working", "input_required", "canceled"]


def reader(version: str) -> Any:
    """Reads bodies with the package for Python of that version of the protocol."""
    interpreter, script = (
        (python("1.3.0"), "push_python_1.py") if version == "1.0" else (python("0.3.26"), "push_python_0.py")
    )
    return lambda given: run(interpreter, script, given)


def with_(interpreter: Path, script: str, **more: Any) -> Any:
    return lambda given: run(interpreter, script, {**given, **more})


@pytest.mark.parametrize("options", PYTHON, ids=str)
async def test_python_1(site: Stand, options: dict[str, str]) -> None:
    """In each binding and version that the newest client speaks."""
    script = with_(python("1.3.0"), "push_python_1.py", **options)
    can_list = options != {"binding": REST, "version": "0.3"}  # the client cannot
    await check(site, script, site.new_user(), options["version"], reader(options["version"]), can_list=can_list)


@pytest.mark.parametrize("version", ["0.3.26", "0.2.16"])
async def test_python_0(site: Stand, version: str) -> None:
    script = with_(python(version), "push_python_0.py")
    await check(site, script, site.new_user(), "0.3", with_(python(version), "push_python_0.py"))


@needs_node
@pytest.mark.parametrize("options", JAVASCRIPT, ids=str)
async def test_javascript(site: Stand, options: dict[str, str]) -> None:
    version = options.get("version", "0.3")

    async def script(given: dict[str, Any]) -> Any:
        return await node("push_js.mjs", json.dumps({**given, **options}))

    await check(site, script, site.new_user(), version, reader(version))
