"""The analyst on a small tree made for it, on broken and hostile trees, and on this repository."""

from __future__ import annotations

import ast
import asyncio
import gc
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from emitter.demo import agents
from emitter.demo.analyst import read_pace
from emitter.demo.findings import untested
from emitter.demo.output import report_path, write_report
from emitter.demo.python_code import Module, import_graph, parse
from emitter.demo.report import MARK
from emitter.demo.smells import CREDENTIALS, RULES, credentials, grep
from emitter.demo.survey import Limits, Reader, SourceFile, find_directory, package_of, scan
from emitter.testing import RecordingEmitter
from emitter.worker.agents import Context
from tests import test_layers

ROOT = Path(__file__).parents[2]
KEY = "AKIA" + "ABCDEFGHIJKLMNOP"
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
    "README.md": "# Shop\n\nA shop that sells things to people who want to have them, quickly.\n",
    "shop/__init__.py": "",
    "shop/core.py": CORE,
    "shop/prices.py": "from shop import core\n\ndef of(item):\n    return 1\n" + "# …\n" * 40,
    "shop/cli.py": "from shop.core import total\n\ndef main():\n    print(total([]))\n",
    "tests/test_core.py": "import shop.core\n\ndef test_a():\n    assert shop\n\ndef test_b():\n    run()\n",
    "node_modules/left/index.js": "eval('1')\n",
    ".git/config": "[core]\n",
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = tmp_path / "shop app"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


async def run(task: str, answer: Any = None, **params: Any) -> tuple[RecordingEmitter, dict[str, Any]]:
    emitter = RecordingEmitter(answers={} if answer is None else lambda question: answer)
    context = Context(emitter, task=task, params={"pace": 0, **params})
    result = await agents["analyst"].function(context)
    return emitter, result


# --- the agent -------------------------------------------------------------------------------------------------------


async def test_it_tells_what_it_does_from_plan_to_report(shop: Path) -> None:
    """A survey plans, runs every planned phase in order with tools, thoughts and progress, and streams its report."""
    emitter, result = await run(f"survey {shop}", answer=False)
    plan = emitter.of("plan:created")[0].plan
    assert emitter.types[0] == "plan:created"
    planned = [phase.id for phase in plan.phases]
    assert [event.phase_id for event in emitter.of("phase:start")] == planned
    assert [event.phase_id for event in emitter.of("phase:complete")] == planned
    progress = [event.progress for event in emitter.of("progress")]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0, 100)
    started = [event.call_id for event in emitter.of("tool:start")]
    assert started == [event.call_id for event in emitter.of("tool:complete")]
    tools = {event.tool_name for event in emitter.of("tool:start")}
    assert tools >= {"list_files", "read_files", "read_file", "parse_python", "import_graph", "grep", "match_tests"}
    assert len(emitter.of("thinking")) == 4
    assert len(emitter.of("partial:result")) == 4
    assert emitter.of("usage")[-1].model == "none: static analysis"
    assert emitter.of("usage")[-1].output_tokens * 4 >= len(emitter.text_emitted)
    assert emitter.text_emitted.startswith("# shop app: a survey of its code")
    assert result["summary"] in emitter.text_emitted


async def test_a_credential_s_text_is_in_no_event(shop: Path) -> None:
    """Places travel, the credentials found there do not."""
    emitter, _ = await run(str(shop), answer=True)
    assert KEY not in str(emitter.events)
    assert KEY not in (shop / "RUNCAST_REPORT.md").read_text()


async def test_the_report_is_written_only_with_approval(shop: Path) -> None:
    """Approval writes the file and gives the artifact; a refusal and silence write nothing and still complete."""
    for answer in (False, None):
        emitter, result = await run(str(shop), answer=answer)
        assert not (shop / "RUNCAST_REPORT.md").exists()
        assert result["report"] is None
        assert emitter.of("status")[-1].status == "not_written"
        assert emitter.of("artifact") == []
    emitter, result = await run(str(shop), answer=True)
    written = (shop / "RUNCAST_REPORT.md").read_text()
    assert result["report"] == str(shop / "RUNCAST_REPORT.md")
    assert written.startswith(MARK)
    assert written == emitter.of("artifact")[0].text
    assert emitter.of("input:required")[0].kind == "approval"
    await run(str(shop), answer=True)  # its own report may be replaced


async def test_a_directory_that_takes_no_file_is_no_failure(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that cannot be written is said, and the survey still completes."""

    def refuse(path: Path, text: str) -> int:
        raise PermissionError("read-only")

    monkeypatch.setattr("emitter.demo.analyst.write_report", refuse)
    emitter, result = await run(str(shop), answer=True)
    assert result["report"] is None
    assert "read-only" in emitter.of("status")[-1].message
    assert emitter.of("tool:error")[0].tool_name == "write_file"


async def test_a_task_without_a_directory_is_a_clear_error(tmp_path: Path) -> None:
    """Nothing is emitted for a task that names no directory; the error says what is wanted."""
    for task in ("", "survey /no/such/place", f"survey {tmp_path}/file\0name"):
        with pytest.raises(ValueError, match="no directory found"):
            await run(task)


async def test_cancelling_stops_it(shop: Path) -> None:
    """A cancelled survey ends at once, with its phase unfinished."""
    emitter = RecordingEmitter()
    survey = asyncio.create_task(agents["analyst"].function(Context(emitter, task=str(shop), params={"pace": 10})))
    while "thinking" not in emitter.types:
        await asyncio.sleep(0.005)
    survey.cancel()
    with pytest.raises(asyncio.CancelledError):
        await survey
    assert emitter.of("phase:complete") == []


async def test_it_surveys_an_empty_directory(tmp_path: Path) -> None:
    """There is a report even when there is nothing to report."""
    emitter, _ = await run(str(tmp_path), answer=False)
    assert "no code here" in emitter.text_emitted


def imports_of(package: str) -> set[tuple[str, str]]:
    """Which module of this repository's package imports which, by statements that stand at the top level."""
    known, found = test_layers.modules(), set()
    for name in (name for name in known if name.split(".")[0] == package):
        for node in ast.parse(known[name].read_text()).body:
            if isinstance(node, ast.ImportFrom):
                full = (f"{node.module}.{alias.name}" for alias in node.names)
                found |= {(name, target if target in known else node.module) for target in full}
    return {(name, target) for name, target in found if target in known and target.startswith(package)}


async def test_it_finds_the_imports_of_a_package() -> None:
    """Of the directory of a package, which imports itself by its own name, the survey counts all imports, and no cycle
    since there is none."""
    emitter, _ = await run(str(ROOT / "emitter"), answer=False, output="NO_REPORT.md")
    (counted,) = [event.result for event in emitter.of("tool:complete") if event.tool_name == "import_graph"]
    assert counted["cycle"] == []
    assert counted["imports"] == len(imports_of("emitter")) > 300
    assert "emitter.errors, the most used. No import cycles." in emitter.text_emitted


async def test_the_report_names_what_is_there(shop: Path) -> None:
    """What was planted is found, with its place; what lies in dependencies is not looked at."""
    emitter, _ = await run(str(shop), answer=False)
    for expected in (
        "`shop/core.py:5`",
        "Soon: credential in the code",
        "Soon: unsafe deserialisation",
        "broad except that hides the error",
        "mutable default argument",
        "import cycle",
    ):
        assert expected in emitter.text_emitted
    assert "eval or exec" not in emitter.text_emitted
    assert "node_modules" not in emitter.text_emitted


# --- its pieces ------------------------------------------------------------------------------------------------------


def test_the_directory_is_found_among_words(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path stands alone, in quotes, in a sentence, relative, or has blanks in it."""
    monkeypatch.chdir(shop)
    monkeypatch.setenv("HOME", str(shop))
    assert find_directory(f"  {shop}  ") == shop
    assert find_directory(f"look at {shop}") == shop
    assert find_directory(f'the code in "{shop}" please') == shop
    assert find_directory("Survey ./shop, then stop.") == shop / "shop"
    assert find_directory("survey shop") == shop / "shop"
    assert find_directory("survey ~/tests.") == shop / "tests"


def test_links_and_special_files_are_never_followed(tmp_path: Path) -> None:
    """What a link leads to is not read, neither at the scan nor when a file became a link after it."""
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "secret.py").write_text("x = 1\n")
    (root / "real.py").write_text("y = 1\n")
    (root / "file.py").symlink_to(outside / "secret.py")
    (root / "directory").symlink_to(outside)
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.py")
    listing = scan(root)
    assert [file.path for file in listing.files] == ["real.py"]
    assert listing.skipped == {"symbolic link or directory of dependencies": 2, "symbolic link or special file": 2}
    for replace in (lambda path: path.symlink_to(outside / "secret.py"), os.mkfifo):
        (root / "real.py").unlink()
        replace(root / "real.py")
        assert Reader(root).read(listing.files) == []


def test_a_survey_is_bounded_and_says_so(tmp_path: Path) -> None:
    """Entries, files, bytes and line shapes have limits, and meeting one is recorded."""
    for number in range(20):
        (tmp_path / f"m{number:02}.py").write_text("x = 1\n")
    (tmp_path / "huge.py").write_text("x" * 5000)
    (tmp_path / "binary.py").write_bytes(b"\0\1\2")
    assert len(scan(tmp_path, Limits(files=5)).files) == 5
    assert "5 of 22 files were read" in scan(tmp_path, Limits(files=5)).truncated
    assert scan(tmp_path, Limits(entries=3)).truncated != []
    listing = scan(tmp_path, Limits(file_bytes=1000))
    assert listing.skipped == {"huge file": 1}
    reader = Reader(tmp_path, Limits(total_bytes=30))
    assert len(reader.read(listing.files)) == 5
    assert reader.full
    assert dict(reader.skipped) == {"binary file": 1}


def test_the_report_goes_nowhere_else(tmp_path: Path) -> None:
    """Only a Markdown file inside the directory, and never over a file or through a link that is not the report's."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "README.md").write_text("mine")
    (root / "link.md").symlink_to(tmp_path / "elsewhere.md")
    (root / "up").symlink_to(tmp_path)
    for bad in ("x.txt", "../x.md", "/etc/x.md", "README.md", "link.md", "up/x.md", "no/such/x.md", 7, "a\0.md"):
        with pytest.raises(ValueError, match="output"):
            report_path(root, bad)
    path = report_path(root, "NEW.md")
    write_report(path, MARK + "\nhello")
    assert report_path(root, "NEW.md") == path
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.md")  # while somebody thought about the approval
    with pytest.raises(ValueError, match="output"):
        write_report(path, "text")
    assert not (tmp_path / "elsewhere.md").exists()


@pytest.mark.parametrize("bad", [-1, 11, "1", True, None, float("nan")])
def test_a_pace_is_a_number_in_its_range(bad: object) -> None:
    """A pace outside 0 to 10 is refused; the bounds are allowed."""
    assert (read_pace(0), read_pace(10)) == (0, 10)
    with pytest.raises(ValueError, match="pace"):
        read_pace(bad)


def python(path: str, text: str) -> Module:
    module = parse(SourceFile(path, "Python", text))
    assert isinstance(module, Module)
    return module


async def test_what_does_not_parse_is_counted(tmp_path: Path) -> None:
    """The report says how many files no parser took."""
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_text("def (\n")
    emitter, _ = await run(str(tmp_path), answer=False)
    assert "- 1 Python files do not parse." in emitter.text_emitted


def test_code_that_does_not_parse_is_no_failure(recwarn: pytest.WarningsRecorder) -> None:
    """Nor is code that is too deep or has NUL in it. Odd escapes pass without a warning."""
    for text in ("def (", "a\0b", "(" * 5000):
        assert parse(SourceFile("x.py", "Python", text)) is None
    assert python("x.py", "a = '\\d'").lines == 1
    assert not recwarn.list


def test_surveys_parse_side_by_side() -> None:
    """Threads that parse at the same time, at different depths, do not disturb each other, even where a garbage
    collection lets another thread in."""
    source = SourceFile("m.py", "Python", "def f(a, b):\n    return [a + b, (a, {b: a})]\n" * 300)

    def deeper(levels: int) -> int:
        return deeper(levels - 1) if levels else sum(parse(source) is not None for _ in range(3))

    def let_others_in(_phase: str, _about: dict[str, int]) -> None:
        time.sleep(0)

    gc.callbacks.append(let_others_in)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(deeper, (0, 10, 20, 30))) == [3] * 4
    finally:
        gc.callbacks.remove(let_others_in)


def test_credentials_are_told_from_placeholders() -> None:
    """Known shapes and secret literals count; placeholders, names, variables and tests do not. An address with a
    password counts unless it shows how one is written."""
    lines = [
        f'k = "{KEY}"',
        'password = "hunter2hunter2"',
        'password = "changeme-please"',
        'password = "name_of_the_setting"',
        "password = get(x)",
        'url = "redis://a:b@host"',
        'url = "redis://user:password@host"',
        'url = "redis://app:9f8g7h6j5k4l@host"',
    ]
    files = [SourceFile("a.py", "Python", "\n".join(lines)), SourceFile("tests/a.py", "Python", "\n".join(lines))]
    assert [(spot.rule, spot.path, spot.line) for spot in credentials(files)] == [
        (CREDENTIALS, "a.py", 1),
        (CREDENTIALS, "a.py", 2),
        (CREDENTIALS, "a.py", 8),
    ]


def edges(modules: list[Module]) -> dict[str, set[str]]:
    return {name: set(targets) for name, targets in import_graph(modules, frozenset()).lines.items() if targets}


def test_imports_are_those_that_run_and_resolve_as_python_does() -> None:
    """Typing-only and late imports are no edges; relative imports and packages below a folder are."""
    modules = [
        python("backend/app/__init__.py", "from . import models"),
        python("backend/app/models.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import app.views\n"),
        python("backend/app/views.py", "from app.models import User\nimport flask\ndef f():\n    import app.late\n"),
        python("backend/app/late.py", "from .views import f\n"),
        python("scripts/run.py", "import tools\nimport json\n"),
        python("scripts/tools.py", ""),
    ]
    assert edges(modules) == {
        "backend.app": {"backend.app.models"},
        "backend.app.views": {"backend.app.models"},
        "backend.app.late": {"backend.app.views"},
        "scripts.run": {"scripts.tools"},
    }
    graph = import_graph(modules, frozenset(["typing", "json"]))
    assert graph.outside == {"flask": 1}
    assert (graph.cycle, graph.most_imported[0]) == ([], ("backend.app.models", 2))


def test_a_package_may_be_where_the_survey_begins(tmp_path: Path) -> None:
    """Its modules import each other by the package's name, and relatively; a library of the same name as a module
    beside it is a library."""
    (tmp_path / "shop" / "sub").mkdir(parents=True)
    for folder in ("shop", "shop/sub"):
        (tmp_path / folder / "__init__.py").touch()
    assert [package_of(tmp_path / each) for each in (".", "shop", "shop/sub")] == ["", "shop", "shop.sub"]
    texts = {
        "__init__.py": "",
        "core.py": "from shop import prices\nimport redis\nfrom .sub import deep\n",
        "prices.py": "import shop.core",
        "redis.py": "",
        "sub/__init__.py": "",
        "sub/deep.py": "from .. import prices\nfrom ..... import lost\n",
    }
    modules = [parse(SourceFile(path, "Python", text), "shop") for path, text in texts.items()]
    found = [module for module in modules if isinstance(module, Module)]
    assert edges(found) == {
        "shop.core": {"shop.prices", "shop.sub.deep"},
        "shop.prices": {"shop.core"},
        "shop.sub.deep": {"shop.prices"},
    }
    assert sorted(import_graph(found, frozenset()).cycle) == ["shop.core", "shop.prices"]


def test_a_cycle_goes_the_way_of_the_imports() -> None:
    """Each module of it imports the next, and the last the first; importers of the ring are not in it."""
    ring = [python(f"p/{a}.py", f"import p.{b}\n") for a, b in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"))]
    found = import_graph(ring, frozenset()).cycle
    assert "".join(name[-1] for name in found) in ("abc", "bca", "cab")
    assert import_graph(ring[1:], frozenset()).cycle == []


def test_searches_give_places_and_look_at_code_only() -> None:
    """A search gives each line once, in the languages of its rule."""
    files = [
        SourceFile("a.ts", "TypeScript", "x\n// TODO TODO\neval(x)\nrevaluate(x)\n"),
        SourceFile("b.md", "Markdown", "TODO\n"),
        SourceFile("c.go", "Go", "eval(x)\n"),
    ]
    assert [(spot.path, spot.line) for spot in grep(files, RULES[0])] == [("a.ts", 2)]
    assert [(spot.path, spot.line) for spot in grep(files, RULES[1])] == [("a.ts", 3)]


def test_modules_count_as_tested_by_name_or_import() -> None:
    """A module that no test names or imports is listed; small ones and tests are not."""
    body = "def f():\n    pass\n" * 20
    texts = {"a.py": body, "b.py": body, "c.py": body, "tests/test_a.py": "import b\n\ndef test_x():\n    assert 1\n"}
    modules = [python(path, text) for path, text in texts.items()]
    assert [module.path for module in untested(modules, import_graph(modules, frozenset()))] == ["c.py"]
