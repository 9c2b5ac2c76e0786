"""What of the browser is given made-up input, in Node, and what must hold whatever that is."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.abuse.fuzzing import Fuzzer, fuzzer

_HERE = Path(__file__).parent
_LINE_ENDS = re.compile("\r\n|\n|\r")
_TAGS = {"div", "p", "h3", "h4", "h5", "h6", "hr", "blockquote", "ol", "ul", "li", "figure", "figcaption", "pre",
         "code", "table", "thead", "tbody", "tr", "th", "td", "strong", "em", "s", "a", "span", "br"}  # fmt: skip
_ATTRIBUTES = {"class", "dir", "tabindex", "start", "scope", "role", "aria-label", "href", "target", "rel", "title"}
_UNSEEN = re.compile("[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b\u202a-\u202e\u2060-\u206f\ufeff]")


@contextlib.contextmanager
def _browser() -> Iterator[Callable[[dict[str, Any]], Any]]:
    node = shutil.which("node")
    assert node is not None, "no node"
    with subprocess.Popen(
        [node, _HERE / "fuzz_browser.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_HERE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(given: dict[str, Any]) -> Any:
            process.stdin.write(json.dumps(given).encode() + b"\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        try:
            yield ask
        finally:
            process.stdin.close()
            process.wait(10)


def _frames(data: bytes) -> tuple[list[list[str | None]], str]:
    """WHATWG HTML, section 9.2.6, for a stream that is there as a whole: (id, event, data) of each event, and the last
    event id."""
    *lines, _ = _LINE_ENDS.split(data.decode("utf-8", "replace").removeprefix("\ufeff"))
    frames: list[list[str | None]] = []
    last, id_, event, told = "", None, "", []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            last = last if id_ is None else id_
            if told:
                frames.append([id_, event or "message", "\n".join(told)])
            id_, event, told = None, "", []
        elif name == "data":
            told.append(value)
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            id_ = value
    return frames, last


@fuzzer
def browser_parser() -> Iterator[Fuzzer]:
    """However a stream is cut, the client reads of it what the specification says."""
    part = st.sampled_from([b"data: a", b"data:b", b"data", b"id: 1-1", b"id", b"event: e", b"retry: 5", b": c", b":",
                            b"\n", b"\r", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"\xc3", b"\xa9", b"\0", b" ",
                            b"id: a\0"])  # fmt: skip
    with _browser() as ask:

        def check(pieces: list[bytes]) -> None:
            told = ask({"parser": [base64.b64encode(piece).decode() for piece in pieces]})
            assert (told["frames"], told["lastEventId"]) == _frames(b"".join(pieces))

        yield Fuzzer(st.lists(st.lists(part | st.binary(max_size=3), max_size=6).map(b"".join), max_size=8), check)


def _check_tree(node: Any) -> None:
    """Only elements and attributes that show text, links to the web alone, and nothing invisible."""
    if isinstance(node, str):
        assert not _UNSEEN.search(node)
        return
    tag, attributes, *children = node
    assert tag in _TAGS
    assert set(attributes) <= _ATTRIBUTES
    assert attributes.get("href", "https:").startswith(("http:", "https:"))
    assert tag != "a" or "noopener" in attributes["rel"]
    for child in children:
        _check_tree(child)


def _joined(node: Any) -> Any:
    """Neighbouring texts as one."""
    if isinstance(node, str):
        return node
    tag, attributes, *children = node
    made: list[Any] = []
    for child in map(_joined, children):
        if isinstance(child, str) and made and isinstance(made[-1], str):
            made[-1] += child
        else:
            made.append(child)
    return [tag, attributes, *(child for child in made if child != "")]


@fuzzer
def browser_markdown() -> Iterator[Fuzzer]:
    """Markdown that comes in pieces is shown as if it came at once, as text and links to the web."""
    part = st.sampled_from(["# ", "- ", "1. ", "> ", "```", "~~~", "`", "**", "_", "~~", "|", "|---|", "[a](",
                            "https://a.example/", "javascript:x", ")", "[", "](", "<https://b.example>", "![", "\n",
                            "\n\n", "  ", "\\", "text", "\u202e", "\ufeff", "\r\n", "---", "data:text/html,x",
                            "HTTP://C.EXAMPLE", '"t"', "\0"])  # fmt: skip
    with _browser() as ask:

        def check(pieces: list[str]) -> None:
            told = ask({"markdown": pieces})
            _check_tree(told["whole"])
            assert _joined(told["pieces"]) == _joined(told["whole"])

        yield Fuzzer(st.lists(st.lists(part | st.text(max_size=4), max_size=6).map("".join), max_size=6), check)
