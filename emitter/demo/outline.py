"""What a project says about itself, and what its files define, without a parser for each language. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence

import msgspec

from emitter.demo.survey import SourceFile

# Blanks within a line only, and bounded runs: these patterns meet whatever lies in a stranger's directory.
_ECMA = (
    r"^[ \t]*(?:export[ ]+)?(?:default[ ]+)?(?:abstract[ ]+)?(?:async[ ]+)?"
    r"(?:function\*?|class|interface|enum)[ ]+(\w+)"
    r"|^[ \t]*(?:export[ ]+)?const[ ]+(\w+)[ ]*=[ ]*(?:async[ ]*)?\("
)
_JAVA = (
    r"^[ \t]*(?:(?:public|private|protected|abstract|static|final|sealed)[ ]+)*(?:class|interface|enum|record)[ ]+(\w+)"
)
_C = r"^[A-Za-z_][\w \t*]{0,100}?\b(\w{1,80})[ \t]*\([^;{}\n]{0,400}\)\s{0,8}\{"
_DEFINITIONS: dict[str, str] = {
    "JavaScript": _ECMA,
    "TypeScript": _ECMA,
    "Vue": _ECMA,
    "Svelte": _ECMA,
    "Go": r"^func[ ]+(?:\([^)\n]*\)[ ]*)?(\w+)|^type[ ]+(\w+)[ ]+(?:struct|interface)",
    "Rust": r"^[ \t]*(?:pub(?:\([^)\n]*\))?[ ]+)?(?:async[ ]+)?(?:fn|struct|enum|trait)[ ]+(\w+)",
    "Java": _JAVA,
    "C#": _JAVA,
    "Kotlin": r"^[ \t]*(?:\w{1,20}[ ]+){0,4}(?:fun|class|object|interface)[ ]+(\w+)",
    "Swift": r"^[ \t]*(?:\w{1,20}[ ]+){0,4}(?:func|class|struct|protocol|enum)[ ]+(\w+)",
    "Ruby": r"^[ \t]*(?:def|class|module)[ ]+([\w.?!]+)",
    "PHP": r"^[ \t]*(?:(?:public|private|protected|static|abstract|final)[ ]+)*(?:function|class|interface)[ ]+(\w+)",
    "Shell": r"^[ \t]*(?:function[ ]+)?(\w+)[ ]*\(\)[ ]*\{",
    "Lua": r"^[ \t]*(?:local[ ]+)?function[ ]+([\w.:]+)",
    "C": _C,
    "C++": _C,
}
_MANIFESTS = (
    "pyproject.toml",
    "package.json",
    "Cargo.toml",
    "go.mod",
    "pom.xml",
    "Gemfile",
    "composer.json",
    "setup.py",
)
_ENTRIES = re.compile(
    r"(^|/)(__main__\.py|main\.(py|go|rs|ts|js|c|cpp)|cli\.(py|ts|js)|app\.(py|ts|js)|server\.(py|ts|js)|manage\.py"
    r"|index\.(ts|js|tsx|jsx)|wsgi\.py|asgi\.py)$"
)


class About(msgspec.Struct, frozen=True):
    """What the manifest and the README say: name, one paragraph, commands it installs, packages it depends on."""

    name: str | None = None
    summary: str | None = None
    commands: list[str] = []
    dependencies: list[str] = []


def definitions(source: SourceFile) -> list[str]:
    """Names of functions and types that a file defines, as far as a regular expression can tell."""
    pattern = _DEFINITIONS.get(source.language)
    if pattern is None:
        return []
    found = re.finditer(pattern, source.text, re.MULTILINE)
    return [next(name for name in match.groups() if name) for match in found]


def key_files(files: Sequence[SourceFile], count: int) -> list[SourceFile]:
    """What a newcomer would open first: README, manifests, entry points, then the biggest modules that are no tests."""
    shallow = sorted(files, key=lambda file: (file.path.count("/"), file.path))
    readme = [file for file in shallow if file.name.lower().startswith("readme")][:1]
    manifests = [file for file in shallow if file.name in _MANIFESTS][:2]
    entries = [file for file in shallow if _ENTRIES.search(file.path) and not file.is_test][:3]
    code = sorted((file for file in files if file.is_code and not file.is_test), key=lambda file: -file.lines)
    unique = {file.path: file for file in [*readme, *manifests, *entries, *code]}
    return list(unique.values())[:count]


def entry_points(files: Iterable[SourceFile]) -> list[str]:
    return sorted(file.path for file in files if _ENTRIES.search(file.path) and not file.is_test)


def about(files: Sequence[SourceFile]) -> About:
    shallow = sorted(files, key=lambda file: (file.path.count("/"), file.path))
    readme = next((file for file in shallow if file.name.lower().startswith("readme")), None)
    summary = None if readme is None else _first_paragraph(readme.text)
    for file in shallow:
        if file.name == "pyproject.toml":
            return _from_pyproject(file.text, summary)
        if file.name == "package.json":
            return _from_package_json(file.text, summary)
    return About(summary=summary)


def _first_paragraph(text: str) -> str | None:
    for block in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in block.splitlines()]
        plain = " ".join(line for line in lines if line and not re.match(r"[#>|<!\[=`*-]", line))
        if len(plain) > 40:
            return plain if len(plain) <= 400 else plain[:400].rsplit(" ", 1)[0] + "…"
    return None


def _from_pyproject(text: str, summary: str | None) -> About:
    try:
        project = tomllib.loads(text).get("project", {})
        requirements = [re.split(r"[^\w.-]", item, maxsplit=1)[0] for item in project.get("dependencies", [])]
        return About(
            name=project.get("name"),
            summary=summary or project.get("description"),
            commands=sorted(project.get("scripts", {})),
            dependencies=requirements,
        )
    except (tomllib.TOMLDecodeError, AttributeError, TypeError):
        return About(summary=summary)


class _PackageJson(msgspec.Struct):
    name: str | None = None
    description: str | None = None
    bin: dict[str, str] | str | None = None
    dependencies: dict[str, str] = {}


def _from_package_json(text: str, summary: str | None) -> About:
    try:
        package = msgspec.json.decode(text, type=_PackageJson)
    except msgspec.MsgspecError:
        return About(summary=summary)
    commands = sorted(package.bin) if isinstance(package.bin, dict) else []
    return About(package.name, summary or package.description, commands, list(package.dependencies))
