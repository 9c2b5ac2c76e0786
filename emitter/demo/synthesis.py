"""The specialists' reports, put together: a remark for each that comes in, and the text at the end. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from emitter.demo.findings import Finding
from emitter.demo.report import listed, not_seen

MAX_FINDINGS = 4
"""That one specialist is quoted with."""


class Report(msgspec.Struct, frozen=True):
    """What a specialist has to say, the worst finding first."""

    specialist: str
    verdict: str
    findings: list[Finding]


class Failure(msgspec.Struct, frozen=True):
    """A specialist has nothing to say, because of this."""

    specialist: str
    reason: str


Outcome = Report | Failure


def reports(outcomes: Sequence[Outcome]) -> list[Report]:
    return [outcome for outcome in outcomes if isinstance(outcome, Report)]


def failures(outcomes: Sequence[Outcome]) -> list[Failure]:
    return [outcome for outcome in outcomes if isinstance(outcome, Failure)]


def remark(outcomes: Sequence[Outcome], pending: Sequence[str]) -> str:
    """On the last of the outcomes, what it means together with the others, and who is still waited for."""
    newest = outcomes[-1]
    if isinstance(newest, Failure):
        parts = [f"{newest.specialist} failed and will be missing: {newest.reason}."]
    else:
        parts = [f"{newest.specialist} is in; {_first_of(newest)}."]
    parts.append(f"Waiting for {listed(pending)}." if pending else "Nobody is waited for.")
    return " ".join(parts)


def _first_of(report: Report) -> str:
    if not report.findings:
        return "it has nothing to say against it"
    first = report.findings[0]
    where = f" at {first.places[0]}" if first.places else ""
    return f"findings: {len(report.findings)}, first of all {first.title}{where}"


def verdict(outcomes: Sequence[Outcome]) -> str:
    """One paragraph: how many have looked, what they have found, and who is missing."""
    found = [finding for report in reports(outcomes) for finding in report.findings]
    soon = sum(finding.severity == 3 for finding in found)
    text = f"{len(reports(outcomes))} of {len(outcomes)} specialists have looked. Findings: {len(found)}"
    text += f", to deal with soon: {soon}." if soon else ", none of them urgent."
    if missing := failures(outcomes):
        text += f" Missing, because they failed: {listed([failure.specialist for failure in missing])}."
    return text


def write(name: str, outcomes: Sequence[Outcome], limits: Sequence[str], skipped: dict[str, int]) -> str:
    sections = [
        [f"# {name}: what the panel says", "", verdict(outcomes)],
        *(_one(outcome) for outcome in outcomes),
        not_seen(limits, skipped),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _one(outcome: Outcome) -> list[str]:
    if isinstance(outcome, Failure):
        return [f"## {outcome.specialist}: missing", "", f"It failed: {outcome.reason}. The others went on without it."]
    lines = [f"## {outcome.specialist}", "", outcome.verdict]
    for finding in outcome.findings[:MAX_FINDINGS]:
        lines += ["", f"- {finding.title} ({finding.count:,}): {finding.why}"]
        lines += [f"  - `{place}`" for place in finding.places[:3]]
    if len(outcome.findings) > MAX_FINDINGS:
        lines += ["", f"- and {len(outcome.findings) - MAX_FINDINGS} smaller findings"]
    return lines
