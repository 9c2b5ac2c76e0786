"""`panel`: several specialists look at the code in a directory at the same time, and what they say is put together.

A failed one is listed in the result; the others go on. One that asks a person waits alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec
import structlog

from emitter import tasks
from emitter.demo import findings, synthesis
from emitter.demo.reading import Code, Reading
from emitter.demo.specialists import SPECIALISTS, CannotWork, Desk, Name, Specialist
from emitter.demo.steps import MAX_PACE, Steps
from emitter.demo.survey import find_directory
from emitter.demo.synthesis import Failure, Outcome, Report
from emitter.errors import AppendRefused, describe
from emitter.worker.agents import Context

PHASES = (("read", "Read"), ("consult", "Consult"), ("conclude", "Conclude"))
MAX_PATIENCE_SECONDS = 3600.0
REASON_CHARS = 300
NAMES: tuple[Name, ...] = get_args(Name)

log = structlog.get_logger("emitter.demo.panel")


class Params(msgspec.Struct, frozen=True):
    """What may be said besides the directory. Whatever else comes is left alone: a chat sends its messages along."""

    pace: Annotated[float, msgspec.Meta(ge=0, le=MAX_PACE, description="how slowly it goes; 0: as fast as it can")] = (
        1.0
    )
    specialists: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, description="who is asked")] = NAMES
    patience: Annotated[
        float,
        msgspec.Meta(
            ge=0, le=MAX_PATIENCE_SECONDS, description="seconds that a question waits for a person; 0: none is asked"
        ),
    ] = 120.0
    fail: Annotated[Name | None, msgspec.Meta(description="who shall fail, to show what happens then")] = None


INPUT_SCHEMA: dict[str, Any] = msgspec.json.schema_components((Params,))[1]["Params"]


class NobodyLeft(Exception):
    """Every specialist has failed."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__("; ".join(f"{failure.specialist}: {failure.reason}" for failure in failures))
        self.failures = failures


async def consult_panel(context: Context) -> dict[str, Any]:
    """The agent. `context.task` names a directory; the parameters are `Params`.

    Raises `ValueError` for a task without a directory, `msgspec.ValidationError` for parameters that are not what they
    should be, and `NobodyLeft`.
    """
    params = msgspec.convert(context.params, Params)
    root = await asyncio.to_thread(find_directory, context.task)
    asked = [specialist for specialist in SPECIALISTS if specialist.name in params.specialists]
    panel = Panel(context, params, asked)
    await context.emitter.plan_created(f"Ask {len(asked)} specialists about the code in {root}", PHASES)
    code = await panel.read(root)
    await panel.consult(code)
    return await panel.conclude(code)


class Panel:
    """One consultation under way."""

    def __init__(self, context: Context, params: Params, specialists: Sequence[Specialist]) -> None:
        self._context = context
        self._emitter = context.emitter
        self._params = params
        self._specialists = specialists
        self._steps = Steps(context.emitter, params.pace)
        self._outcomes: list[Outcome] = []
        self._characters = 0

    async def read(self, root: Path) -> Code:
        """The code, read and parsed once for all of them."""
        async with self._emitter.phase("read", "Read", index=0):
            reading = Reading(self._context, self._steps, root)
            await self._steps.step(0, "Listing files")
            listing = await reading.list_files()
            files = await reading.read_files(listing, 2)
            code = await reading.parse(listing, files, 14)
            self._characters = reading.characters
            await self._steps.usage(self._characters)
        return code

    # --- at the same time ---

    async def consult(self, code: Code) -> None:
        """Have all of them look at once, and take in what each says when it says it."""
        async with self._emitter.phase("consult", "Consult", index=1):
            await self._steps.step(20, "All of them look")
            working = [
                asyncio.create_task(self._work(specialist, code), name=f"specialist-{specialist.name}")
                for specialist in self._specialists
            ]
            try:
                for outcome in asyncio.as_completed(working):
                    await self._take_in(await outcome)
            finally:
                await tasks.end(working)
                await asyncio.gather(*working, return_exceptions=True)  # what one raised, the others raise as well
            if not synthesis.reports(self._outcomes):
                raise NobodyLeft(synthesis.failures(self._outcomes))

    async def _work(self, specialist: Specialist, code: Code) -> Outcome:
        """One specialist, from its activation to its end. Raises only what ends the whole panel."""
        name = specialist.name
        await self._emitter.specialist_activated(name, task=specialist.task, icon=specialist.icon)
        outcome = await self._outcome(specialist, Desk(self._context, self._steps, name, code, self._params.patience))
        if isinstance(outcome, Failure):
            summary = f"failed: {outcome.reason}"
        else:
            await self._steps.step(100, "Done", specialist=name)
            summary = outcome.verdict
        await self._emitter.specialist_complete(name, summary=summary)
        return outcome

    async def _outcome(self, specialist: Specialist, desk: Desk) -> Outcome:
        try:
            if specialist.name == self._params.fail:
                await desk.step(10, "Failing, as it was told to")
                raise CannotWork("it was told to fail")
            verdict = await specialist.work(desk)
        except AppendRefused:  # the log takes nothing more: there is nobody to tell
            raise
        except CannotWork as error:
            return Failure(specialist.name, str(error))
        except Exception as error:
            log.warning("specialist_failed", specialist=specialist.name, exc_info=True)
            return Failure(specialist.name, describe(error, REASON_CHARS))
        return Report(specialist.name, verdict, sorted(desk.findings, key=findings.rank))

    async def _take_in(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        complete = [known.specialist for known in self._outcomes]
        pending = [specialist.name for specialist in self._specialists if specialist.name not in complete]
        await self._emitter.synthesis(
            synthesis.remark(self._outcomes, pending), specialists_complete=complete, specialists_pending=pending
        )
        share = len(complete) / len(self._specialists)
        await self._steps.step(20 + 60 * share, f"{len(complete)} of {len(self._specialists)} specialists are in")

    # --- afterwards ---

    async def conclude(self, code: Code) -> dict[str, Any]:
        async with self._emitter.phase("conclude", "Conclude", index=2):
            await self._steps.step(80, "Putting it together")
            order = [specialist.name for specialist in self._specialists]
            outcomes = sorted(self._outcomes, key=lambda outcome: order.index(outcome.specialist))
            text = await asyncio.to_thread(synthesis.write, code.name, outcomes, code.limits, code.skipped)
            await self._steps.stream(text, 80, 98)
            await self._steps.usage(self._characters)
            await self._steps.step(100, "Done")
        reports = synthesis.reports(outcomes)
        return {
            "summary": synthesis.verdict(outcomes),
            "findings": sum(len(report.findings) for report in reports),
            "verdicts": {report.specialist: report.verdict for report in reports},
            "failed": [failure.specialist for failure in synthesis.failures(outcomes)],
        }
