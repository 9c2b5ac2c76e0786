"""The written report of the analyst, in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emitter.demo import thoughts
from emitter.demo.findings import SEVERITIES, Finding, lines_by_language
from emitter.demo.python_code import Module
from emitter.demo.reading import Code

MARK = "<!-- written by runcast analyst -->"
"""First line of every report, by which a later run knows that it may overwrite the file."""
MAX_FINDINGS = 12
MAX_CHARACTERS = 40_000
"""So that the report fits into one event, whatever the paths in it are called."""


def write(code: Code, found: Sequence[Finding], untested: Sequence[Module]) -> str:
    sections = [
        [MARK, f"# {code.name}: a survey of its code"],
        [verdict(code, found)],
        _at_a_glance(code),
        _structure(code),
        ["## Tests", "", thoughts.on_tests(code.files, untested)],
        _findings(found),
        not_seen(code.limits, code.skipped),
    ]
    text = "\n\n".join("\n".join(section) for section in sections if section) + "\n"
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "\n\n[cut here]\n"


def verdict(code: Code, found: Sequence[Finding]) -> str:
    """One paragraph: how much there is, in what, and what comes first."""
    if not code.written:
        return f"There is no code here that this survey can read, only {len(code.files)} other files."
    total = sum(file.lines for file in code.written)
    language, _, lines = lines_by_language(code.written)[0]
    text = f"{total:,} lines of code in {len(code.written):,} files, {round(100 * lines / total)} % of it {language}."
    worst = [finding.title for finding in found if finding.severity == 3]
    planned = [finding.title for finding in found if finding.severity == 2]
    if worst:
        return f"{text} First of all: {listed(worst[:3])}."
    return f"{text} Nothing urgent; worth a plan: {listed(planned[:3])}." if planned else f"{text} Nothing urgent."


def _at_a_glance(code: Code) -> list[str]:
    rows = [f"| {language} | {count:,} | {lines:,} |" for language, count, lines in lines_by_language(code.files)[:8]]
    return ["## At a glance", "", "| language | files | lines |", "|---|---:|---:|", *rows] if rows else []


def _structure(code: Code) -> list[str]:
    biggest = sorted((file for file in code.written if not file.is_test), key=lambda file: -file.lines)[:5]
    if not biggest:
        return []
    lines = ["## Structure", ""]
    lines.append(f"- The biggest files, in lines: {listed([f'`{file.path}` ({file.lines:,})' for file in biggest])}.")
    if code.modules:
        lines.append(f"- {thoughts.on_graph(code.modules, code.graph)}")
    if functions := thoughts.on_functions(code.modules):
        lines.append(f"- {functions}")
    outside = sorted(code.graph.outside.items(), key=lambda item: (-item[1], item[0]))[:8]
    if outside:
        lines.append(f"- Packages from outside, by use: {listed([f'`{name}` ({count})' for name, count in outside])}.")
    return lines


def _findings(found: Sequence[Finding]) -> list[str]:
    lines = ["## Findings"]
    for finding in found[:MAX_FINDINGS]:
        title = f"### {SEVERITIES[finding.severity].capitalize()}: {finding.title} ({finding.count:,})"
        lines += ["", title, "", finding.why]
        lines += [""] * bool(finding.places) + [f"- `{place}`" for place in finding.places]
        if finding.count > len(finding.places) > 0:
            lines.append(f"- and {finding.count - len(finding.places):,} more")
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


def listed(items: Sequence[str]) -> str:
    """`a, b and c`"""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
