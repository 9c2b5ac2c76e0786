"""A text in pieces never shows a credential whole, wherever it is cut, and prose does not wait."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path

import pytest

from emitter.wire.redact import REDACTED, Redactor
from emitter.wire.redact.stream import HELD_MAX, RECENT_MAX, STREAMS_MAX, Stream, Streams
from emitter.wire.redact.texts import WINDOW_CHARS
from tests.emitter.credentials import LOOKALIKES, Item, by_file, by_form, by_shape

REDACT = Redactor()
CORPUS = [*by_shape(), *by_form(), *by_file()]
KEY = "ghp_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"


def pieces(text: str, cuts: list[int]) -> list[str]:
    return [text[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(text)])]


def shown(parts: list[str], *, paused: bool = False) -> str:
    """What a reader sees of a text; `paused`: after every piece so much time passes that what waits is shown."""
    stream = Stream()
    out = []
    for part in parts:
        out.append(stream.feed(part))
        if paused:
            out.append(stream.release())
    return "".join([*out, stream.release()])


def some_cuts(item: Item, chance: random.Random) -> list[list[int]]:
    places = range(1, len(item.text))
    two = [[place] for place in (places if len(places) < 120 else chance.sample(places, 30))]
    more = [sorted(chance.sample(places, min(len(places), chance.randrange(2, 12)))) for _ in range(5)]
    return [*two, *more, *([list(places)] if len(places) < 120 else [])]


def is_told_by_its_end(item: Item) -> bool:
    """Whether a credential is one as soon as it is there: what only the next word tells, a pause before it shows."""
    end = item.text.index(item.secret) + len(item.secret)
    return REDACT.text(item.text[:end]).endswith(REDACTED)


@pytest.mark.parametrize("at", range(0, len(CORPUS), 10))
def test_no_cut_lets_a_credential_pass(at: int) -> None:
    """Into two at every place, into more at random places, and letter by letter; with pauses or without."""
    chance = random.Random(at)
    for item in CORPUS[at : at + 10]:
        for cuts in some_cuts(item, chance):
            parts = pieces(item.text, cuts)
            assert item.secret not in shown(parts), cuts
            assert shown(parts).endswith(REDACT.text(item.text)[-3:]), cuts
            if is_told_by_its_end(item):
                assert item.secret not in shown(parts, paused=True), cuts


def test_what_is_shown_of_a_key_is_its_prefix() -> None:
    """What names a credential is no secret and need not wait; what follows does."""
    text = f"use {KEY} from now on"
    for cut in range(1, len(text)):
        out = shown(pieces(text, [cut]))
        assert out in {f"use {prefix}{REDACTED} from now on" for prefix in ("", "g", "gh", "ghp")}


def test_a_pause_shows_no_more_than_a_part() -> None:
    """The rest is redacted when it comes, though what came before is out."""
    stream = Stream()
    assert stream.feed("use " + KEY[:12]) == "use "
    assert stream.release() == KEY[:12]
    assert stream.feed(KEY[12:]) + stream.feed(" now") == REDACTED + " now"


@pytest.mark.parametrize("text", LOOKALIKES)
def test_other_text_passes_as_it_is(text: str) -> None:
    """However it is cut."""
    for cuts in [[place] for place in range(1, len(text))] + [list(range(1, len(text)))]:
        assert shown(pieces(text, cuts)) == text


@pytest.mark.parametrize("size", [1, 4, 25])
def test_prose_hardly_waits(size: int) -> None:
    """After fewer than one piece in fifty anything waits, and then it is a few characters."""
    text = Path(__file__, "../../../../README.md").resolve().read_text().partition("## Settings")[0][:10_000]
    stream = Stream()
    out, waits, held = [], 0, 0
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    for part in parts:
        out.append(stream.feed(part))
        waits += stream.is_waiting
        held += sum(map(len, parts[: len(out)])) - sum(map(len, out)) if stream.is_waiting else 0
    assert "".join([*out, stream.release()]) == REDACT.text(text)
    assert waits < len(parts) / 50
    assert held < len(parts) / 5


@pytest.mark.parametrize("body", ["A1b2C3d4" * 5000, "A1b2C3d4\n" * 5000, "eyJhbGciOi" * 5000, "://a:b" * 5000])
def test_what_is_held_is_bounded(body: str) -> None:
    """A secret without end is marked once, and no more of it is kept than tells that it goes on."""
    stream = Stream()
    out = [stream.feed("-----BEGIN PRIVATE KEY-----\n")]
    for at in range(0, len(body), 50):
        out.append(stream.feed(body[at : at + 50]))
        assert len(stream._recent) <= RECENT_MAX + HELD_MAX
    if "://" not in body:
        assert "".join(out) == REDACTED


@pytest.mark.parametrize(
    "start", ["", "-----BEGIN PRIVATE KEY-----\n", "eyJ", "eyJhbGciOi", "token=", 'password="', "://a:"]
)
@pytest.mark.parametrize("piece", ["A1b2", "A1b\n", "a: b", "://a", "sk-a"])
def test_the_cost_of_a_piece_does_not_grow(start: str, piece: str) -> None:
    """However long the text is, and whatever it may become."""

    def seconds(count: int) -> float:
        stream = Stream()
        stream.feed(start)
        began = time.process_time()
        for _ in range(count):
            stream.feed(piece)
        return time.process_time() - began

    assert seconds(2000) / max(seconds(500), 0.002) < 12


def test_texts_do_not_mix() -> None:
    """Two messages that arrive by turns are two texts."""
    streams = Streams()
    names = [("message:delta", "a"), ("message:delta", "b"), ("thinking:delta", "a")]
    out = dict.fromkeys(names, "")
    for at in range(0, len(KEY), 5):
        for name in names:
            out[name] += streams.feed(name, KEY[at : at + 5])
    assert dict(streams.release()) == dict.fromkeys(names, REDACTED)
    assert set(out.values()) == {""}


def test_the_number_of_texts_is_bounded() -> None:
    """Those of which nothing waits are forgotten first; where all wait, a new one is not looked at as a whole."""
    streams = Streams()
    for number in range(STREAMS_MAX + 10):
        assert streams.feed(("message:delta", f"m{number}"), "text") == "text"
    assert len(streams._streams) == STREAMS_MAX
    for number in range(STREAMS_MAX):
        streams.feed(("message:delta", f"w{number}"), KEY[:10])
    assert streams.feed(("message:delta", "one more"), KEY[:10]) == KEY[:10]
    assert len(streams.release()) == STREAMS_MAX


def test_pieces_that_are_all_there_are_redacted_in_place() -> None:
    """As many pieces as before, each with what is left of it; the mark stands where the credential began."""
    assert list(REDACT.pieces(["use gh", "p_A1b2C3d4E5f6", KEY[16:], "", " now"])) == [
        "use " + REDACTED,
        "",
        "",
        "",
        " now",
    ]
    assert list(REDACT.pieces(["a", "b"])) == ["a", "b"]
    chance = random.Random(5)
    for item in CORPUS:
        for cuts in some_cuts(item, chance):
            assert "".join(REDACT.pieces(pieces(item.text, cuts))) == REDACT.text(item.text)


@pytest.mark.parametrize("length", [WINDOW_CHARS, 3 * WINDOW_CHARS + 5])
def test_pieces_of_a_long_text_are_redacted_over_the_ends_of_its_windows(length: int) -> None:
    """Wherever a credential stands, it is marked once, as in the text as a whole."""
    chance = random.Random(length)
    filler = "so it was said. " * (length // 16 + 1)
    for item in chance.sample(CORPUS, 60):
        near = WINDOW_CHARS * chance.randrange(1, 1 + length // WINDOW_CHARS) - chance.randrange(len(item.text) + 1)
        text = filler[:near] + " " + item.text + "\n" + filler[near:length]
        cuts = sorted({*chance.sample(range(1, len(text)), 20), near + 2})
        assert "".join(REDACT.pieces(pieces(text, cuts))) == REDACT.text(text)


def test_pieces_cost_in_proportion_to_the_text() -> None:
    """Many chunks that are full of names of credentials: the first come after as little work as of a short text, and
    all together cost no more than their number says."""
    chunk = "password: hunter2!x " * 350

    def seconds(count: int) -> float:
        began = time.process_time()
        assert "hunter2" not in "".join(itertools.islice(REDACT.pieces([chunk] * 100), count))
        return time.process_time() - began

    first, most = seconds(2), seconds(100)
    assert first < most / 5
    assert most < 150 * first
