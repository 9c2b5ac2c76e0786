"""The panel on a small tree made for it, on trees that some or all specialists can do nothing with, and on this
repository."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from structlog.testing import capture_logs

from emitter.demo import agents, smells, synthesis
from emitter.demo.findings import Finding
from emitter.demo.panel import INPUT_SCHEMA, NAMES, NobodyLeft, Panel, Params
from emitter.demo.python_code import ImportGraph
from emitter.demo.reading import Code
from emitter.demo.specialists import CODE, SECRETS, SPECIALISTS, SPECIMENS, CannotWork, Desk, Specialist
from emitter.demo.survey import Limits, SourceFile, scan
from emitter.demo.synthesis import Failure, Report
from emitter.errors import ExecutionEnded
from emitter.testing import RecordingEmitter
from emitter.worker.agents import Context

ROOT = Path(__file__).parents[2]
KEY = "AKIA" + "ABCDEFGHIJKLMNOP"
HIDDEN = "9f8g7h6j5k4l"
CORE = f'''"""The core."""
import os, pickle
from shop import prices

aws = "{KEY}"

def total(items, seen=[]):
    """Sum. TODO: taxes"""
    try:
        return sum(prices.of(item) for item in items)
    except Exception:
        pass

def load(data):
    return pickle.loads(data)
'''
FILES = {
    "README.md": "# Shop\n\nA shop. See [the docs](docs/lost.md) and [the core](shop/core.py).\n",
    "shop/__init__.py": "",
    "shop/core.py": CORE,
    "shop/prices.py": "from shop import core\n\ndef of(item):\n    return 1\n" + "# …\n" * 40,
    "tests/test_core.py": f'import shop.core, time\n\nkey = "{KEY}"\n\ndef test_a():\n    time.sleep(1)\n',
    ".env": f"DB_PASSWORD={HIDDEN}\nDEBUG=1\nAPI_KEY=changeme-please\n",
    "tls.pem": "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n",
}
QUESTION = (
    "Where shall I look for credentials? Tests and documents may hold specimens: 2. These files hold secrets, by their "
    "names: .env, tls.pem."
)


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return make(tmp_path / "shop app", FILES)


async def run(task: Path | str, answer: Any = None, **params: Any) -> tuple[RecordingEmitter, dict[str, Any]]:
    """Run the agent; `answer` is what a person says to its question, `None` that nobody does."""
    emitter = RecordingEmitter(answers={} if answer is None else {QUESTION: answer})
    context = Context(emitter, task=str(task), params={"pace": 0, **params})
    result = await agents["panel"].function(context)
    return emitter, result


def found(emitter: RecordingEmitter, specialist: str) -> dict[str, list[str]]:
    """What one specialist has found, title → places, from its partial results."""
    results = [event.result for event in emitter.of("partial:result") if event.specialist == specialist]
    return {result["finding"]: result["places"] for result in results if "finding" in result}


def check_sequence(emitter: RecordingEmitter, names: Collection[str], failed: Collection[str] = ()) -> None:
    """What holds for the events of every consultation, whoever fails in it."""
    assert sorted(event.specialist for event in emitter.of("specialist:activated")) == sorted(names)
    assert sorted(event.specialist for event in emitter.of("specialist:complete")) == sorted(names)
    for name in names:
        check_specialist(emitter, name, name in failed)
    completed = [event.specialist for event in emitter.of("specialist:complete")]
    last: list[str] = []
    for synthesis_ in emitter.of("synthesis"):
        complete, pending = synthesis_.specialists_complete, synthesis_.specialists_pending
        assert sorted([*complete, *pending]) == sorted(names), "the two lists are all of them, each once"
        assert complete[:-1] == last, "one more than before"
        last = complete
    assert sorted(last) == sorted(completed), "as many syntheses as specialists, the last with nobody pending"
    overall = [event.progress for event in emitter.of("progress") if event.specialist is None]
    assert overall == sorted(overall)


def check_specialist(emitter: RecordingEmitter, name: str, failed: bool) -> None:
    mine = [(type_, event) for type_, event in emitter.events if getattr(event, "specialist", None) == name]
    assert (mine[0][0], mine[-1][0]) == ("specialist:activated", "specialist:complete")
    progress = [event.progress for type_, event in mine if type_ == "progress"]
    assert progress == sorted(progress)
    assert mine[-1][1].summary
    if failed:
        assert mine[-1][1].summary.startswith("failed: ")
        assert 100 not in progress
    else:
        assert progress[-1] == 100
        assert "partial:result" in [type_ for type_, _ in mine]
    done = [type_ for type_, _ in emitter.events].index("synthesis")
    ends = [n for n, (type_, e) in enumerate(emitter.events) if type_ == "specialist:complete" and e.specialist == name]
    names_it = [
        n for n, (type_, e) in enumerate(emitter.events) if type_ == "synthesis" and name in e.specialists_complete
    ]
    assert done <= names_it[0]
    assert ends[0] < names_it[0], "it is counted in after its end"


# --- the agent -------------------------------------------------------------------------------------------------------


async def test_all_of_them_look_and_are_put_together(shop: Path) -> None:
    """The code is read once; every specialist begins, tells and ends once; the syntheses count them in; the text says
    what all have found."""
    emitter, result = await run(f"look at {shop}", answer=CODE)
    check_sequence(emitter, NAMES)
    assert emitter.types[0] == "plan:created"
    planned = [phase.id for phase in emitter.of("plan:created")[0].plan.phases]
    assert [event.phase_id for event in emitter.of("phase:start")] == planned
    assert [event.phase_id for event in emitter.of("phase:complete")] == planned
    assert [event.tool_name for event in emitter.of("tool:start")].count("parse_python") == 1
    overall = [event.progress for event in emitter.of("progress") if event.specialist is None]
    assert (overall[0], overall[-1]) == (0, 100)
    assert emitter.text_emitted.startswith("# shop app: what the panel says")
    assert emitter.types.count("message:delta") > 20
    assert result["summary"] in emitter.text_emitted
    assert list(result["verdicts"]) == list(NAMES)
    assert all(verdict in emitter.text_emitted for verdict in result["verdicts"].values())
    assert result["failed"] == []
    assert result["findings"] == sum(len(found(emitter, name)) for name in NAMES)
    read, written = emitter.of("usage")
    assert (read.model, read.cost_usd, read.output_tokens) == ("none: static analysis", 0.0, 0)
    assert (written.input_tokens, written.output_tokens > 0) == (read.input_tokens, True)


async def test_each_finds_what_is_for_it_to_find(shop: Path) -> None:
    """What was planted is found by the one whose matter it is, with its file and line."""
    emitter, _ = await run(shop, answer=CODE)
    (ring,) = found(emitter, "structure")["import cycle"]
    assert ring in ("shop/core.py:3 → shop/prices.py:1", "shop/prices.py:1 → shop/core.py:3")
    assert found(emitter, "docs") == {"note left behind": ["shop/core.py:8"]}
    assert found(emitter, "security") == {
        "unsafe deserialisation": ["shop/core.py:15"],
        "credential in the code": ["shop/core.py:5"],
    }


ONLY_CODE = {"credential in the code": ["shop/core.py:5"]}
OPENED = {
    "credential in the code": ["shop/core.py:5"],
    "credential in a file": [".env:1"],
    "private key in a file": ["tls.pem:1"],
}


@pytest.mark.parametrize(
    ("answer", "credentials", "key_count"),
    [
        (CODE, ONLY_CODE, 1),
        (SPECIMENS, ONLY_CODE, 2),
        (SECRETS, OPENED, 2),
    ],
)
async def test_a_person_says_how_far_security_goes(
    shop: Path, answer: Any, credentials: dict[str, list[str]], key_count: int
) -> None:
    """The answer decides what is searched."""
    emitter, result = await run(shop, answer=answer)
    (asked,) = emitter.of("input:required")
    assert (asked.prompt, asked.kind, asked.options) == (QUESTION, "choice", [CODE, SPECIMENS, SECRETS])
    assert asked.expires_at is not None
    security = found(emitter, "security")
    del security["unsafe deserialisation"]
    assert security == credentials
    counts = [
        e.result["count"] for e in emitter.of("partial:result") if e.result.get("finding") == "credential in the code"
    ]
    assert counts == [key_count]
    assert ("Not opened: .env, tls.pem." in result["verdicts"]["security"]) == (answer != SECRETS)


async def test_without_an_answer_it_goes_on_with_care(shop: Path) -> None:
    """A question that expires, or is not to be asked, leaves files that hold secrets alone; nobody fails for it."""
    for params, questions in (({}, 1), ({"patience": 0}, 0)):
        emitter, result = await run(shop, **params)
        check_sequence(emitter, NAMES)
        assert len(emitter.of("input:required")) == questions
        assert [event.by for event in emitter.of("input:received")] == ["system:expired"] * questions
        assert found(emitter, "security").keys() == {"unsafe deserialisation", "credential in the code"}
        assert result["failed"] == []


async def test_nothing_is_asked_where_there_is_no_choice(tmp_path: Path) -> None:
    """Code alone, without tests, documents and files that hold secrets, raises no question."""
    emitter, _ = await run(make(tmp_path, {"a.py": "x = 1\n"}))
    assert emitter.of("input:required") == []


@pytest.mark.parametrize("answer", [CODE, SECRETS])
async def test_no_secret_is_in_any_event(shop: Path, answer: str) -> None:
    """Places travel, what stands there does not, not even where a person let it be read."""
    emitter, _ = await run(shop, answer=answer)
    assert KEY not in str(emitter.events)
    assert HIDDEN not in str(emitter.events)


async def test_a_part_of_the_panel_can_be_asked(shop: Path) -> None:
    """Only those named take part, each once, in the panel's own order."""
    emitter, result = await run(shop, specialists=["docs", "structure", "docs"])
    check_sequence(emitter, ["structure", "docs"])
    assert list(result["verdicts"]) == ["structure", "docs"]
    assert emitter.of("input:required") == []


BAD_PARAMS: list[dict[str, Any]] = [
    {"pace": 11},
    {"pace": True},
    {"specialists": []},
    {"specialists": ["astrology"]},
    {"specialists": "docs"},
    {"patience": -1},
    {"patience": 4000},
    {"fail": "everybody"},
]


@pytest.mark.parametrize("params", BAD_PARAMS)
async def test_bad_params_are_refused_as_the_schema_says(shop: Path, params: dict[str, Any]) -> None:
    """The schema that is announced and the agent refuse the same; nothing is emitted for it."""
    emitter = RecordingEmitter()
    with pytest.raises(msgspec.ValidationError):
        await agents["panel"].function(Context(emitter, task=str(shop), params=params))
    assert emitter.events == []
    schema = agents["panel"].input_schema
    assert schema is not None
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(params, schema)


def test_the_schema_names_the_specialists_there_are() -> None:
    """Whoever is on the panel can be named, nobody else, and the defaults are allowed."""
    assert tuple(specialist.name for specialist in SPECIALISTS) == NAMES
    jsonschema.validate({}, INPUT_SCHEMA)
    jsonschema.validate(msgspec.json.decode(msgspec.json.encode(Params())), INPUT_SCHEMA)
    assert agents["panel"].info.input_schema == INPUT_SCHEMA


async def test_a_task_without_a_directory_is_a_clear_error() -> None:
    """Nothing is emitted for a task that names no directory."""
    with pytest.raises(ValueError, match="no directory found"):
        await run("look at /no/such/place")


# --- failures --------------------------------------------------------------------------------------------------------


async def test_one_that_can_do_nothing_is_missed_and_named(tmp_path: Path) -> None:
    """Without any Python there is no structure to see: the others go on; log, text and result say who is missing."""
    root = make(tmp_path, {"index.js": "// TODO\nexport function f() {}\neval(x)\n", "README.md": "# x\n"})
    emitter, result = await run(root)
    check_sequence(emitter, NAMES, failed=["structure"])
    assert result["failed"] == ["structure"]
    assert "structure" not in result["verdicts"]
    assert "Missing, because they failed: structure." in result["summary"]
    assert "structure failed and will be missing: no Python here" in str(emitter.of("synthesis"))
    assert "## structure: missing" in emitter.text_emitted
    assert found(emitter, "docs") == {"note left behind": ["index.js:1"]}
    assert found(emitter, "security") == {"eval or exec": ["index.js:3"]}


@pytest.mark.parametrize("name", NAMES)
async def test_any_of_them_may_fail_to_show_what_happens(shop: Path, name: str) -> None:
    """The one that is told to fail fails, and nobody else does."""
    emitter, result = await run(shop, answer=CODE, fail=name)
    check_sequence(emitter, NAMES, failed=[name])
    assert result["failed"] == [name]
    assert sorted([*result["verdicts"], name]) == sorted(NAMES)


async def test_an_empty_directory_fails_all_and_so_the_panel(tmp_path: Path) -> None:
    """When nobody has anything to say, the error says why for each, and no text is written."""
    emitter = RecordingEmitter()
    with pytest.raises(NobodyLeft) as raised:
        await agents["panel"].function(Context(emitter, task=str(tmp_path), params={"pace": 0}))
    check_sequence(emitter, NAMES, failed=NAMES)
    assert sorted(failure.specialist for failure in raised.value.failures) == sorted(NAMES)
    assert all(f"{name}: no" in str(raised.value) for name in NAMES)
    assert emitter.text_emitted == ""
    assert [event.phase_id for event in emitter.of("phase:complete")] == ["read"]


# --- at the same time ------------------------------------------------------------------------------------------------

Work = Callable[[Desk], Awaitable[str]]


def nothing(root: Path) -> Code:
    return Code(root, [], [], ImportGraph({}, {}), [], [], {})


def panel_of(emitter: RecordingEmitter, *works: Work) -> Panel:
    """A panel of specialists `a`, `b`, … that do this."""
    specialists = [Specialist(name, "t", "i", work) for name, work in zip("abcdef", works, strict=False)]
    return Panel(Context(emitter, task="t"), Params(pace=0), specialists)


def specialist_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("specialist-")]


async def test_they_work_at_the_same_time(tmp_path: Path) -> None:
    """Specialists that wait for each other all get on: none has to end for another to begin."""
    emitter, meeting = RecordingEmitter(), asyncio.Barrier(3)

    async def work(desk: Desk) -> str:
        for progress in (10, 20):
            await desk.step(progress, "Waiting for the others")
            async with asyncio.timeout(5):
                await meeting.wait()
        await desk.tell({"met": True})
        return "met"

    await panel_of(emitter, work, work, work).consult(nothing(tmp_path))
    check_sequence(emitter, "abc")
    first_end = emitter.types.index("specialist:complete")
    assert emitter.types[:first_end].count("specialist:activated") == 3


async def test_what_is_looked_for_is_looked_for_off_the_loop(tmp_path: Path) -> None:
    """The work runs in a thread, while the event loop is free."""
    emitter, threads = RecordingEmitter(), []

    async def work(desk: Desk) -> str:
        free = threading.Event()
        asyncio.get_running_loop().call_later(0.01, free.set)

        def look() -> list[Finding]:
            threads.append(threading.current_thread())
            assert free.wait(5)
            return []

        await desk.tell({})
        await desk.look(50, "Looking", look)
        return "looked"

    await panel_of(emitter, work).consult(nothing(tmp_path))
    assert threads[0] is not threading.main_thread()


async def test_an_exception_nobody_expected_is_a_failure_like_another(tmp_path: Path) -> None:
    """It is said in the log of the execution by its name, in the worker's with its stack, and the others go on."""
    emitter = RecordingEmitter()

    async def fine(desk: Desk) -> str:
        await desk.tell({})
        return "fine"

    async def broken(desk: Desk) -> str:
        await desk.step(40, "Breaking")
        raise LookupError("no such thing")

    async def large(desk: Desk) -> str:
        await desk.tell({"text": "x" * 70_000})
        return "cut"

    panel = panel_of(emitter, fine, broken, large)
    with capture_logs() as logs:
        await panel.consult(nothing(tmp_path))
    check_sequence(emitter, "abc", failed="b")
    summaries = {event.specialist: event.summary for event in emitter.of("specialist:complete")}
    assert summaries["b"] == "failed: LookupError: no such thing"
    assert summaries["c"] == "cut"
    failed = [line["specialist"] for line in logs if line["event"] == "specialist_failed"]
    assert failed == ["b"]


async def test_expected_failures_are_no_news_for_the_worker(tmp_path: Path) -> None:
    """That a specialist has nothing to look at is in the execution's log and not in the worker's."""

    async def idle(desk: Desk) -> str:
        raise CannotWork("nothing")

    with capture_logs() as logs, pytest.raises(NobodyLeft):
        await panel_of(RecordingEmitter(), idle).consult(nothing(tmp_path))
    assert logs == []


async def test_cancelling_ends_all_of_them(tmp_path: Path) -> None:
    """When the panel is cancelled every specialist has ended before it lets go, also one that needs time to."""
    emitter, ended = RecordingEmitter(), []

    async def work(desk: Desk) -> str:
        try:
            await desk.step(10, "Waiting")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            ended.append(desk)
        return "never"

    consulting = asyncio.create_task(panel_of(emitter, work, work, work).consult(nothing(tmp_path)))
    while emitter.types.count("progress") < 4:
        await asyncio.sleep(0)
    assert len(specialist_tasks()) == 3
    consulting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consulting
    assert len(ended) == 3
    assert specialist_tasks() == []
    assert emitter.of("specialist:complete") == []


async def test_a_log_that_is_closed_ends_all_of_them(tmp_path: Path) -> None:
    """When the execution ends under them, what comes out is that, as it is; no specialist goes on, and none leaves an
    exception behind that nobody has seen."""
    emitter, meeting, unseen = RecordingEmitter(), asyncio.Barrier(3), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))

    async def talk(desk: Desk) -> str:
        await meeting.wait()
        while True:
            await desk.tell({})
            await asyncio.sleep(0)

    async def end(desk: Desk) -> str:
        await meeting.wait()
        await emitter.execution_cancelled(by="somebody")
        await asyncio.Event().wait()
        return "never"

    with capture_logs() as logs, pytest.raises(ExecutionEnded):
        await panel_of(emitter, talk, end, talk).consult(nothing(tmp_path))
    assert specialist_tasks() == []
    assert logs == []
    assert emitter.types[-1] == "execution:cancelled"
    gc.collect()
    assert unseen == []


# --- its pieces ------------------------------------------------------------------------------------------------------


def test_files_that_hold_secrets_are_told_by_their_names(tmp_path: Path) -> None:
    """They are listed apart, so that reading what was listed never opens one; specimens are files like others."""
    secretive = (
        ".env",
        ".env.local",
        "a/id_ed25519",
        "a/server.key",
        "b.p12",
        "credentials.json",
        "config/secrets.yml",
    )
    others = ("env.py", ".env.example", "id_ed25519.py", "key.md", "secrets.py", "keys.json")
    make(tmp_path, dict.fromkeys([*secretive, *others], "x\n"))
    listing = scan(tmp_path)
    assert [file.path for file in listing.secretive] == sorted(secretive)
    assert [file.path for file in listing.files] == sorted(set(others) - {".env.example"})
    assert listing.skipped == {"file that by its name holds secrets": len(secretive), "other kind of file": 1}
    assert len(scan(tmp_path, Limits(files=2)).secretive) == 2


def test_secrets_are_told_from_settings() -> None:
    """Keys and values that are credentials count, by their name or their shape; settings and placeholders do not."""
    lines = [
        f"PASSWORD={HIDDEN}",
        f'export api_key: "{HIDDEN}"',
        f"REGION={KEY}",
        "PASSWORD=changeme-now",
        "PASSWORD=${FROM_ELSEWHERE}",
        "COLOUR=a-nice-shade-of-red",
        "PASSWORD=short",
        f'  "client_secret": "{HIDDEN}",',
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----BEGIN CERTIFICATE-----",
    ]
    spots = smells.secrets([SourceFile(".env", "Secrets", "\n".join(lines))])
    assert [(spot.rule, spot.line) for spot in spots] == [
        ("credential in a file", 1),
        ("credential in a file", 2),
        ("credential in a file", 3),
        ("credential in a file", 8),
        ("private key in a file", 9),
    ]


def report(name: str, *found: tuple[int, str]) -> Report:
    findings = [Finding(severity, f"f{severity}", "why", [f"{path}:1"], 1) for severity, path in found]
    return Report(name, f"{name} says", findings)


def test_a_remark_is_on_who_came_last() -> None:
    """It tells the worst that is new, who failed, and who is waited for."""
    a, b, silent = report("a", (3, "x.py"), (1, "y.py")), report("b", (1, "y.py")), Report("s", "fine", [])
    assert synthesis.remark([a], ["b", "d"]) == "a is in; findings: 2, first of all f3 at x.py:1. Waiting for b and d."
    assert synthesis.remark([a, b], []) == ("b is in; findings: 1, first of all f1 at y.py:1. Nobody is waited for.")
    assert synthesis.remark([silent], ["b"]) == "s is in; it has nothing to say against it. Waiting for b."
    assert synthesis.remark([a, Failure("d", "ill")], ["b"]) == "d failed and will be missing: ill. Waiting for b."


def test_the_verdict_counts_those_who_have_looked() -> None:
    """Failed ones are not counted among them, and are named."""
    assert synthesis.verdict([report("a", (3, "x"), (1, "y")), Failure("b", "ill")]) == (
        "1 of 2 specialists have looked. Findings: 2, to deal with soon: 1. Missing, because they failed: b."
    )
    assert (
        synthesis.verdict([report("a", (1, "y"))])
        == "1 of 1 specialists have looked. Findings: 1, none of them urgent."
    )
