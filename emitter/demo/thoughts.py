"""What the agents say about the facts: short observations, and small results for the tools. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from emitter.demo import findings, python_code
from emitter.demo.python_code import ImportGraph, Module
from emitter.demo.smells import CREDENTIALS, Spot
from emitter.demo.survey import Listing, SourceFile


def look_at(source: SourceFile) -> dict[str, Any]:
    """What a first look at a file tells."""
    seen: dict[str, Any] = {"language": source.language, "lines": source.lines}
    module = python_code.parse(source) if source.language == "Python" else None
    if module is not None:
        return seen | {"defines": [function.name for function in module.functions if "." not in function.name][:10]}
    return seen | {"begins": next((line.strip() for line in source.text.splitlines() if line.strip()), "")[:120]}


def show_spots(spots: Sequence[Spot]) -> dict[str, Any]:
    return {"matches": len(spots), "places": [f"{spot.path}:{spot.line}" for spot in spots[:5]]}


def on_listing(listing: Listing) -> str:
    if not listing.files:
        return "There is nothing here that I can read."
    text = f"{len(listing.files):,} files to read in {listing.directories:,} directories."
    if listing.skipped:
        left_out = sum(listing.skipped.values())
        most = max(listing.skipped, key=lambda reason: listing.skipped[reason])
        text += f" I leave out {left_out:,} {'entry' if left_out == 1 else 'entries'}, mostly: {most}."
    return text + (f" I take only a part: {'; '.join(listing.truncated)}." if listing.truncated else "")


def on_graph(modules: Sequence[Module], graph: ImportGraph) -> str:
    product = {module.name for module in modules if not module.is_test}
    central = [(name, count) for name, count in graph.most_imported if name in product]
    if not central:
        return f"Python modules: {len(modules):,}. None imports another."
    name, count = central[0]
    importers = "one module imports" if count == 1 else f"{count} modules import"
    text = f"{graph.count:,} imports among {len(modules):,} modules; {importers} {name}, the most used."
    if ring := graph.cycle:
        return f"{text} There is an import cycle through {' and '.join(ring[:3])}."
    return text + " No import cycles."


def on_functions(modules: Sequence[Module]) -> str | None:
    lengths = sorted(f.length for module in modules if not module.is_test for f in module.functions)
    if len(lengths) < 5:
        return None
    text = f"Half of the {len(lengths):,} functions have at most {lengths[len(lengths) // 2]} lines."
    if not (long := findings.long_functions(modules)):
        return f"{text} None is over {python_code.LONG_FUNCTION_LINES}."
    module, function = long[0]
    return f"{text} {len(long)} are long; the longest is {function.name} in {module.path} with {function.length} lines."


def on_spots(spots: Sequence[Spot]) -> str:
    if not spots:
        return "The searches found nothing. Either this is clean or it is small."
    common = Counter(spot.rule for spot in spots).most_common(3)
    text = f"Places worth a look: {len(spots):,}; most frequent: {', '.join(f'{rule} ({n})' for rule, n in common)}."
    secret = next((spot for spot in spots if spot.rule == CREDENTIALS), None)
    return text + (f" {secret.path}:{secret.line} looks like a credential. That goes to the top." if secret else "")


def on_tests(files: Sequence[SourceFile], untested: Sequence[Module]) -> str:
    tests = sum(file.lines for file in files if file.is_code and file.is_test)
    code = sum(file.lines for file in files if file.is_code and not file.is_test)
    if not tests:
        return "I see no tests."
    text = f"{tests:,} lines of tests against {code:,} of code, {tests / max(1, code):.2f} to 1."
    if untested:
        return text + f" No test mentions {untested[0].path}, the largest of {len(untested)} such modules."
    return text
