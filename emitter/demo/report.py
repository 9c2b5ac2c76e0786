"""The written report, in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from emitter.demo.findings import SEVERITIES, Facts, Finding, documented, findings, lines_by_language, long_functions

MARK = "<!-- written by runcast analyst -->"
"""First line of every report, by which a later run knows that it may overwrite the file."""
_MAX_FINDINGS = 12
MAX_CHARACTERS = 40_000
"""So that the report fits into one event, whatever the paths in it are called."""


def write(facts: Facts) -> str:
    found = findings(facts)
    sections = [
        [MARK, f"# {facts.name}: a survey of its code"],
        _verdict(facts, found),
        _at_a_glance(facts),
        _structure(facts),
        _tests(facts),
        _findings(found),
        _first_steps(found),
        not_seen(facts.limits, facts.skipped),
    ]
    text = "\n\n".join("\n".join(section) for section in sections if section) + "\n"
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "\n\n[cut here]\n"


def verdict(facts: Facts, found: list[Finding]) -> str:
    """One paragraph: how big, how well kept, where it hurts."""
    code = facts.code
    total = sum(file.lines for file in code)
    if not code:
        return f"There is no code here that this survey can read, only {len(facts.files)} other files."
    language = lines_by_language(code)[0]
    parts = [f"{total:,} lines of code in {len(code):,} files, {_share(language[2], total)} of it {language[0]}."]
    parts.append(_judge_tests(facts))
    worst = [finding.title for finding in found if finding.severity == 3]
    planned = [finding.title for finding in found if finding.severity == 2]
    if worst:
        parts.append(f"First of all: {listed(worst[:3])}.")
    elif planned:
        parts.append(f"Nothing alarming; what would pay off is {listed(planned[:3])}.")
    else:
        parts.append("Nothing found that needs a plan.")
    return " ".join(parts)


def _judge_tests(facts: Facts) -> str:
    ratio = facts.tests.ratio
    if facts.tests.files == 0:
        return "It has no tests that are recognisable as such."
    if ratio >= 0.8:
        return f"It is tested in earnest: {ratio:.2f} lines of tests for each line of code."
    if ratio >= 0.3:
        return f"It is tested, with {ratio:.2f} lines of tests for each line of code."
    return f"It is thinly tested: {ratio:.2f} lines of tests for each line of code."


def _verdict(facts: Facts, found: list[Finding]) -> list[str]:
    lines = [verdict(facts, found)]
    if facts.about.summary:
        lines += ["", f"> {facts.about.summary}"]
    return lines


def _at_a_glance(facts: Facts) -> list[str]:
    rows = ["## At a glance", "", "| language | files | lines |", "|---|---:|---:|"]
    by_language = lines_by_language(facts.files)
    rows += [f"| {language} | {count:,} | {lines:,} |" for language, count, lines in by_language[:8]]
    if len(by_language) > 8:
        rest = by_language[8:]
        rows.append(f"| {len(rest)} others | {sum(r[1] for r in rest):,} | {sum(r[2] for r in rest):,} |")
    return rows


def _structure(facts: Facts) -> list[str]:
    lines = ["## Structure", ""]
    if facts.about.commands:
        lines.append(f"- It installs the command {listed([f'`{name}`' for name in facts.about.commands[:5]])}.")
    if facts.entries:
        lines.append(f"- Where it starts: {listed([f'`{path}`' for path in facts.entries[:5]])}.")
    biggest = sorted((file for file in facts.code if not file.is_test), key=lambda file: -file.lines)[:5]
    if biggest:
        named = [f"`{file.path}` ({file.lines:,})" for file in biggest]
        lines.append(f"- The biggest files, in lines: {listed(named)}.")
    lines += _python(facts)
    defined = [f"{count:,} in {language}" for language, count in list(facts.definitions.items())[:4] if count]
    if defined:
        lines.append(f"- Functions and types by name, besides Python: {listed(defined)}.")
    return lines if len(lines) > 2 else []


def _python(facts: Facts) -> Iterator[str]:
    modules = facts.product
    if not modules:
        return
    functions = [function for module in modules for function in module.functions]
    classes = sum(len(module.classes) for module in modules)
    yield f"- Python: {len(modules):,} modules, {classes:,} classes, {len(functions):,} functions."
    if functions:
        lengths = sorted(function.length for function in functions)
        median, ninth = lengths[len(lengths) // 2], lengths[len(lengths) * 9 // 10]
        small = "They are kept small" if ninth <= 25 else "Most are small" if median <= 15 else "They are long"
        yield f"- {small}: half of the functions have at most {median} lines, nine in ten at most {ninth}."
    if long := long_functions(facts.modules):
        module, function = long[0]
        yield f"- The longest function is `{function.name}` in `{module.path}` with {function.length} lines."
    product = {module.name for module in modules}
    central = [(name, count) for name, count in facts.graph.most_imported if name in product and count > 1][:4]
    if central:
        yield f"- What the rest leans on: {listed([f'`{name}` (imported by {count})' for name, count in central])}."
    if not facts.graph.cycles() and len(modules) > 5:
        yield "- No two modules import each other in a circle: the layers hold."
    has, all_ = documented(modules)
    if all_:
        yield f"- Documentation: {_share(has, all_)} of public modules, classes and functions have a docstring."
    outside = sorted(facts.graph.outside.items(), key=lambda item: (-item[1], item[0]))[:8]
    if outside:
        yield f"- Packages from outside, by use: {listed([f'`{name}` ({count})' for name, count in outside])}."


def _tests(facts: Facts) -> list[str]:
    tests = facts.tests
    if not facts.code:
        return []
    lines = ["## Tests", "", _judge_tests(facts)]
    if tests.functions:
        lines[-1] += f" {tests.functions:,} test functions in {tests.files:,} files."
    if tests.candidates:
        covered = tests.candidates - len(tests.untested)
        lines[-1] += f" Tests name or import {covered} of the {tests.candidates} Python modules that have functions."
    if tests.untested:
        lines += ["", f"Mentioned by no test: {listed([f'`{path}`' for path in tests.untested[:6]])}."]
    return lines


def _findings(found: list[Finding]) -> list[str]:
    if not found:
        return []
    lines = ["## Findings"]
    for finding in found[:_MAX_FINDINGS]:
        lines += [
            "",
            f"### {SEVERITIES[finding.severity].capitalize()}: {finding.title} ({finding.count:,})",
            "",
            finding.why,
        ]
        lines += [""] * bool(finding.places) + [f"- `{place}`" for place in finding.places]
        if finding.count > len(finding.places) > 0:
            lines.append(f"- and {finding.count - len(finding.places):,} more")
    return lines


def _first_steps(found: list[Finding]) -> list[str]:
    lines = ["## What to do first", ""]
    for number, finding in enumerate(found[:3], 1):
        where = f", beginning with `{finding.places[0]}`" if finding.places else ""
        lines.append(f"{number}. {finding.title[0].upper()}{finding.title[1:]}{where}.")
    return lines if found else []


def not_seen(limits: Sequence[str], skipped: Mapping[str, int]) -> list[str]:
    """The section on what was left out: sentences on limits, and entries counted by reason."""
    lines = ["## What this survey did not see", ""]
    lines += [f"- {limit[0].upper()}{limit[1:]}." for limit in limits]
    left_out = [f"{reason} ({count:,})" for reason, count in sorted(skipped.items(), key=lambda item: -item[1])]
    if left_out:
        lines.append(f"- Left out: {', '.join(left_out)}.")
    lines.append("- Nothing was run, and no model was asked: it is a parser, searches and counting. Every finding is a")
    lines.append("  place to look at, not a proof.")
    return lines


def _share(part: int, whole: int) -> str:
    return f"{round(100 * part / whole)} %"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`"""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
