"""What lies in a directory of code: files, languages, lines. Reads only, and only inside the directory.

Everything is bounded, and what was left out is counted and said. Symbolic links are never followed.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import msgspec

SKIPPED_DIRECTORIES = frozenset({
    ".git", ".hg", ".svn", "node_modules", "venv", ".venv", "__pycache__", "site-packages", "dist", "build", "target",
    "vendor", "third_party", ".tox", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".idea", ".vscode", ".next",
    ".cache", "coverage", "htmlcov",
})  # fmt: skip
LANGUAGES: dict[str, str] = {
    ".py": "Python", ".js": "JavaScript", ".mjs": "JavaScript", ".jsx": "JavaScript", ".ts": "TypeScript",
    ".tsx": "TypeScript", ".go": "Go", ".rs": "Rust", ".java": "Java", ".kt": "Kotlin", ".c": "C", ".h": "C",
    ".cpp": "C++", ".cs": "C#", ".rb": "Ruby", ".php": "PHP", ".swift": "Swift", ".lua": "Lua", ".sh": "Shell",
    ".sql": "SQL",
}  # fmt: skip
OTHERS = {
    ".md": "Markdown", ".rst": "reStructuredText", ".html": "HTML", ".css": "CSS", ".json": "JSON", ".yaml": "YAML",
    ".yml": "YAML", ".toml": "TOML",
}  # fmt: skip
SECRETIVE = "Secrets"
"""The language, so to speak, of files that by their names hold secrets."""
_SECRETIVE_NAME = re.compile(
    r"\.env(\..+)?|id_(rsa|dsa|ecdsa|ed25519)|\.(netrc|pypirc|npmrc|htpasswd|pgpass)|.+\.(pem|key|p12|pfx|jks|kdbx)"
    r"|(secrets?|credentials|service[-_]?account.*)\.(json|ya?ml|toml|ini)",
    re.IGNORECASE,
)
_SPECIMEN_NAME = re.compile(r"\.(example|sample|template|dist)$", re.IGNORECASE)
_TEST_PATH = re.compile(
    r"(^|/)(tests?|specs?|__tests__|testdata)/|(^|/)(test_[^/]*|[^/]*_test|[^/]*[.-](test|spec)|conftest)\.[a-z]+$"
)


class Limits(msgspec.Struct, frozen=True):
    """How much one survey reads. Beyond it, the survey goes on with what it has and says so."""

    entries: int = 100_000
    files: int = 5_000
    file_bytes: int = 1_000_000
    total_bytes: int = 32_000_000


class FoundFile(msgspec.Struct, frozen=True):
    """A file's path below the root (with `/`), language and size in bytes."""

    path: str
    language: str
    size: int


class SourceFile(msgspec.Struct, frozen=True):
    path: str
    language: str
    text: str

    @property
    def lines(self) -> int:
        return self.text.count("\n") + (not self.text.endswith("\n") and self.text != "")

    @property
    def is_code(self) -> bool:
        return self.language in _CODE

    @property
    def is_test(self) -> bool:
        return is_test(self.path)

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


class Listing(msgspec.Struct, frozen=True):
    """What a scan found. `skipped` counts by reason what was left out; `truncated` names the limits that were met.
    `secretive` files are no part of `files`: nobody reads them without being allowed to."""

    files: list[FoundFile]
    directories: int
    skipped: dict[str, int]
    truncated: list[str]
    secretive: list[FoundFile] = []


_CODE = frozenset(LANGUAGES.values())


def is_test(path: str) -> bool:
    return _TEST_PATH.search(path) is not None


def language_of(name: str) -> str | None:
    """The language of a file by its name; `None` for what is not read."""
    if _SECRETIVE_NAME.fullmatch(name) and not _SPECIMEN_NAME.search(name):
        return SECRETIVE
    suffix = PurePosixPath(name).suffix.lower()
    return LANGUAGES.get(suffix) or OTHERS.get(suffix)


def package_of(root: Path) -> str:
    """The dotted name of a directory that is a Python package; empty for others."""
    parts: list[str] = []
    while (root / "__init__.py").is_file() and root.name.isidentifier():
        parts.insert(0, root.name)
        root = root.parent
    return ".".join(parts)


def find_directory(task: str) -> Path:
    """The directory that a task names, with or without words around it. `ValueError` if it names none that exists."""
    for text in filter(None, _candidates(task.strip())):  # an empty path would be the worker's own directory
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
        try:
            if path.is_dir():
                return path.resolve()
        except (OSError, ValueError, RuntimeError):  # too long, NUL, a loop of links, no such home
            continue
    raise ValueError(
        f"no directory found in the task {task.strip()[:200]!r}: name one, as in 'survey /path/to/project'"
    )


def _candidates(task: str) -> Iterator[str]:
    """What in a task may be a path, the likeliest first: all of it, what is quoted, words with a slash, other words."""
    yield task
    for quoted in re.finditer(r"([\"'`])(.+?)\1", task):
        yield quoted[2]
    words = task.split()
    for word in sorted(words, key=lambda word: not _looks_like_path(word)):
        yield word
        yield word.strip("\"'`,;:!?()").rstrip(".") or word
    for word in filter(_looks_like_path, words):  # a path with blanks in it, up to the end
        yield task[task.index(word) :]


def _looks_like_path(word: str) -> bool:
    return "/" in word or word.startswith(("~", "."))


# --- scanning --------------------------------------------------------------------------------------------------------


def scan(root: Path, limits: Limits = Limits()) -> Listing:  # noqa: B008 - frozen
    """List the files worth reading, sorted by path, without opening any. What is left out is counted by reason."""
    found: list[FoundFile] = []
    skipped: Counter[str] = Counter()
    truncated: list[str] = []
    directories = entries = 0

    def unreadable(_: OSError) -> None:
        skipped["unreadable directory"] += 1

    for folder, inside, names in os.walk(root, onerror=unreadable):
        directories += 1
        entries += len(inside) + len(names)
        if entries > limits.entries:
            truncated.append(f"reading stopped after {limits.entries:,} directory entries")
            break
        kept = [name for name in inside if not _skips_directory(Path(folder, name))]
        skipped["symbolic link or directory of dependencies"] += len(inside) - len(kept)
        inside[:] = sorted(kept)
        for name in names:
            file = _found(root, Path(folder, name), limits)
            if isinstance(file, str):
                skipped[file] += 1
            else:
                found.append(file)
    found.sort(key=lambda file: file.path)
    secretive = [file for file in found if file.language == SECRETIVE][: limits.files]
    files = [file for file in found if file.language != SECRETIVE]
    skipped["file that by its name holds secrets"] += len(secretive)
    if len(files) > limits.files:
        truncated.append(f"{limits.files:,} of {len(files):,} files were read")
    return Listing(files[: limits.files], directories, dict(+skipped), truncated, secretive)


def _skips_directory(path: Path) -> bool:
    return path.is_symlink() or path.name in SKIPPED_DIRECTORIES or (path / "pyvenv.cfg").exists()


def _found(root: Path, path: Path, limits: Limits) -> FoundFile | str:
    """A file that is worth reading, or the reason why not."""
    try:
        name = path.relative_to(root).as_posix()
        name.encode()
        status = path.lstat()
    except (OSError, UnicodeEncodeError):
        return "unreadable"
    if not stat.S_ISREG(status.st_mode):
        return "symbolic link or special file"
    if status.st_size > limits.file_bytes:
        return "huge file"
    language = language_of(path.name)
    return FoundFile(name, language, status.st_size) if language else "other kind of file"


# --- reading ---------------------------------------------------------------------------------------------------------


class Reader:
    """Reads the files of a listing, up to the limits, and counts what it could not use."""

    def __init__(self, root: Path, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self._root = root
        self._limits = limits
        self.characters = 0
        self.skipped: Counter[str] = Counter()
        self.full = False

    def read(self, files: Sequence[FoundFile]) -> list[SourceFile]:
        return [source for file in files if (source := self._read(file)) is not None]

    def _read(self, file: FoundFile) -> SourceFile | None:
        if self.characters + file.size > self._limits.total_bytes:
            self.full = True
            return None
        data = self._bytes(file.path)
        if data is None or b"\0" in data[:8192]:
            self.skipped["unreadable" if data is None else "binary file"] += 1
            return None
        text = data.decode("utf-8", "replace")
        if file.language in _CODE and len(text) > 20_000 and len(text) > 400 * (text.count("\n") + 1):
            self.skipped["minified or generated file"] += 1
            return None
        self.characters += len(text)
        return SourceFile(file.path, file.language, text)

    def _bytes(self, path: str) -> bytes | None:
        """The file's content; `None` if it is gone or is no plain file any more."""
        try:
            # The scan saw a plain file; it may have become a link or a pipe since, and neither may lead us elsewhere.
            fd = os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(fd, "rb") as stream:  # noqa: PTH123 - a descriptor
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return None
                return stream.read(self._limits.file_bytes)
        except OSError:
            return None
