"""What a person would say on seeing this: short observations on the facts, and small results for the tools. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from emitter.demo import findings, outline, python_code, smells
from emitter.demo.python_code import ImportGraph, Module, Spot
from emitter.demo.survey import FoundFile, SourceFile, by_directory


def look_at(source: SourceFile) -> dict[str, Any]:
    """What a first look at a file tells."""
    seen: dict[str, Any] = {"language": source.language, "lines": source.lines}
    if source.language == "Python":
        module = python_code.parse(source)
        if isinstance(module, Module):
            names = [name for name, _ in module.classes] + [f.name for f in module.functions if "." not in f.name]
            return seen | {"defines": names[:10], "documented": module.documented}
    if source.is_code:
        return seen | {"defines": outline.definitions(source)[:10]}
    first = next((line.strip() for line in source.text.splitlines() if line.strip()), "")
    return seen | {"begins": first[:120]}


def show_spots(spots: Sequence[Spot]) -> dict[str, Any]:
    return {"matches": len(spots), "places": [f"{spot.path}:{spot.line}" for spot in spots[:5]]}


def on_listing(files: Sequence[FoundFile], skipped: dict[str, int], truncated: Sequence[str]) -> str:
    if not files:
        return "There is nothing here that I can read."
    largest = by_directory(files)[0]
    left_out = sum(skipped.values())
    where = "at the top" if largest[0] == "." else f"under {largest[0]}"
    text = f"{len(files):,} files to read, {len(largest[1]):,} of them {where}."
    if left_out:
        most = max(skipped, key=lambda reason: skipped[reason])
        text += f" I leave out {left_out:,} {'entry' if left_out == 1 else 'entries'}, mostly: {most}."
    if truncated:
        text += f" This is big, so I take a part: {'; '.join(truncated)}."
    return text


def on_languages(files: Sequence[SourceFile]) -> str | None:
    code = [file for file in files if file.is_code]
    if not code:
        return "No code in a language that I know; I can only report what lies here."
    total = sum(file.lines for file in code)
    language, count, lines = findings.lines_by_language(code)[0]
    share = lines / max(1, total)
    text = f"{total:,} lines of code; {language} has {share:.0%} of them in {count:,} files."
    return text + (
        " One language, so one set of habits." if share > 0.9 else " I will have to switch between languages."
    )


def on_graph(modules: Sequence[Module], graph: ImportGraph) -> str | None:
    product = {module.name for module in modules if not module.is_test}
    central = [(name, count) for name, count in graph.most_imported if name in product]
    if not central:
        return None
    name, count = central[0]
    importers = "one module imports" if count == 1 else f"{count} modules import"
    text = f"{name} is what most leans on: {importers} it, so its interface is the one to keep still."
    if cycles := graph.cycles():
        return f"{text} {len(cycles)} group(s) of modules import each other, such as {' and '.join(cycles[0][:3])}."
    return text + " No import cycles." if len(product) > 3 else text


def on_functions(modules: Sequence[Module]) -> str | None:
    functions = [f for module in modules if not module.is_test for f in module.functions]
    if len(functions) < 5:
        return None
    lengths = sorted(function.length for function in functions)
    long = findings.long_functions(modules)
    text = f"Half of the {len(functions):,} functions have at most {lengths[len(lengths) // 2]} lines."
    if not long:
        return text + f" None is over {python_code.LONG_FUNCTION_LINES}: somebody takes care."
    module, function = long[0]
    return (
        text + f" {len(long)} are long; the longest is {function.name} in {module.path} with {function.length} lines."
    )


def on_spots(spots: Sequence[Spot]) -> str:
    if not spots:
        return "The searches found nothing. Either this is clean or it is small."
    common = Counter(spot.rule for spot in spots).most_common(3)
    text = f"{len(spots):,} places are worth a look; most frequent: {', '.join(f'{rule} ({n})' for rule, n in common)}."
    secret = [spot for spot in spots if spot.rule == smells.CREDENTIALS]
    if secret:
        text += f" {secret[0].path}:{secret[0].line} looks like a credential. That goes to the top."
    return text


def on_tests(facts: findings.TestFacts) -> str:
    if not facts.files:
        return "I see no tests. For a change to this code that means: read all of it, or hope."
    text = f"{facts.lines:,} lines of tests against {facts.code_lines:,} of code, {facts.ratio:.2f} to 1."
    if facts.untested:
        return text + f" No test mentions {facts.untested[0]}, the largest of {len(facts.untested)} such modules."
    return text + " Every Python module is mentioned by some test." if facts.candidates else text
