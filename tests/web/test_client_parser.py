"""The client's parser of event streams: on what the format's specification says, and beside eventsource-parser, on a
corpus of streams cut at random places."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

from tests.web.browser import needs_npm
from tests.web.client.viewers import HERE, node

pytestmark = needs_npm(HERE)

# Stream → (id of the frame itself, event, data) of each dispatched event. WHATWG HTML, section 9.2.6, and its examples.
KNOWN: dict[bytes, list[list[str | None]]] = {
    b"data: YHOO\ndata: +2\ndata: 10\n\n": [[None, "message", "YHOO\n+2\n10"]],
    b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n": [
        ["1", "message", "first event"],
        ["", "message", "second event"],
        [None, "message", " third event"],
    ],
    b"data\n\ndata\ndata\n\ndata:": [[None, "message", ""], [None, "message", "\n"]],
    b"data:test\n\ndata: test\n\n": [[None, "message", "test"], [None, "message", "test"]],
    b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n": [
        [None, "add", "73857293"],
        [None, "remove", "2153"],
    ],
    b"\xef\xbb\xbfdata: after a byte order mark\n\n": [[None, "message", "after a byte order mark"]],
    b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n": [],
    b"data: one\r\rdata: two\r\n\r\ndata: three\n\r\n": [
        [None, "message", "one"],
        [None, "message", "two"],
        [None, "message", "three"],
    ],
    b"id: a\0b\ndata: x\n\n": [[None, "message", "x"]],
    b"event: nothing\n\ndata: x\n\n": [[None, "message", "x"]],
    b"id: 7\n\ndata: x\n\n": [[None, "message", "x"]],
    b"data: not ended": [],
    b"Data: x\n data: y\ndata : z\nunknown: 1\ndata:w\n\n": [[None, "message", "w"]],
    b"data: broken \xff\xc3\x28 utf-8\n\n": [[None, "message", "broken \ufffd\ufffd( utf-8"]],
    "data: é \u2013 \U0001f600\u2028x\u0085y\n\n".encode(): [[None, "message", "é \u2013 \U0001f600\u2028x\u0085y"]],
}


async def read(streams: list[list[bytes]]) -> list[dict[str, Any]]:
    lines = [json.dumps([base64.b64encode(piece).decode() for piece in pieces]) for pieces in streams]
    printed = await node("parser.mjs", given="\n".join(lines).encode())
    return [json.loads(line) for line in printed.rstrip("\n").split("\n")]  # not at every separator that Unicode has


def bytewise(stream: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in stream]


def cut(dice: random.Random, stream: bytes) -> list[bytes]:
    """The stream in pieces, some of them empty."""
    places = sorted(dice.randint(0, len(stream)) for _ in range(dice.randint(0, 12)))
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


def made_up(dice: random.Random) -> bytes:
    """A stream of sensible and senseless lines, with line ends of all kinds."""
    ends = dice.choice([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n", "\r"]])
    values = [
        "",
        " ",
        "x",
        " x",
        "  two",
        "é\U0001f600",
        "a:b",
        '{"k":"v"}',
        "\u2028",
        "0",
        "12",
        "1.5",
        "-1",
    ]  # no NUL: an id with one unsets that parser's
    names = ["data", "data", "data", "event", "id", "retry", "", "other", "Data", "da ta"]
    lines = []
    for _ in range(dice.randint(1, 30)):
        shape = dice.randint(0, 5)
        name, value = dice.choice(names), dice.choice(values)
        lines.append("" if shape < 2 else name if shape == 2 else f"{name}:{value}")
    text = "".join(line + dice.choice(ends) for line in lines)
    # A comment at the end: the other parser keeps a last CR back, in case it is half of a CRLF.
    return ("\ufeff" if dice.random() < 0.1 else "").encode() + text.encode() + b":\n"


async def test_known_streams() -> None:
    """Each stream gives its events, however it is cut: whole, byte by byte, or anywhere."""
    dice = random.Random(1)
    streams = list(KNOWN)
    shapes = [[[each] for each in streams], [bytewise(each) for each in streams], [cut(dice, each) for each in streams]]
    found = await read([pieces for shape in shapes for pieces in shape])
    for stream, each in zip(streams * len(shapes), found, strict=True):
        assert each["ours"] == KNOWN[stream], stream


async def test_what_is_no_event() -> None:
    """`retry` is taken if it is digits only, comments are told, a frame with nothing but an id moves the last id."""
    stream = b": hb\nretry: 1500\nretry: 1.5\nretry:-1\nretry\nretry: 7x\n:\nid: 4-4\n\nid: 5\0\n\nid\n\nid: 9-9\n\n"
    for found in await read([[stream], bytewise(stream)]):
        assert found["retries"] == [1500]
        assert found["comments"] == [" hb", ""]
        assert (found["ours"], found["ids"], found["lastEventId"]) == ([], ["4-4", "", "9-9"], "9-9")


async def test_beside_another_parser() -> None:
    """On made-up streams, cut anywhere, it finds the same events as eventsource-parser does in the whole stream; and
    where both get the same pieces."""
    dice = random.Random(2)
    streams = [made_up(dice) for _ in range(1500)]
    found = await read([[stream] for stream in streams] + [cut(dice, stream) for stream in streams])
    for stream, one, many in zip(streams, found, found[len(streams) :], strict=False):
        assert one["ours"] == one["theirs"], stream
        assert many["ours"] == many["theirs"] == one["ours"], stream


async def test_a_frame_without_an_end() -> None:
    """A frame that never ends is an error before it fills the memory."""
    script = """
        import { EventStreamParser, MAX_FRAME } from "../../../broker/web/client/parser.js";
        for (const line of ["x".repeat(65536), "data: x\\n".repeat(8192)]) {
            const parser = new EventStreamParser({});
            const bytes = new TextEncoder().encode(line);
            let fed = 0;
            try {
                for (; fed < 10 * MAX_FRAME; fed += bytes.length) parser.feed(bytes);
            } catch (error) {
                console.log(error.type, fed <= 5 * MAX_FRAME);
            }
        }
    """
    assert (await node("--input-type=module", "-e", script)).split() == [
        "urn:runcast:problem:frame-too-large",
        "true",
    ] * 2
