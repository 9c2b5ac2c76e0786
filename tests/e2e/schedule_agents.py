"""Agents with a schedule, run by real worker processes."""

from __future__ import annotations

from typing import Any

from emitter import Agents, Context

agents = Agents()


@agents.agent("reporter")
async def reporter(context: Context) -> dict[str, Any]:
    await context.emitter.thinking(f"{context.task} for {context.user_id}")
    return {**context.metadata, **context.params}


agents.schedule("pulse", agent="reporter", user_id="ops", task="Report", params={"n": 1}, every=1)
agents.schedule(
    "nightly", agent="reporter", user_id="night", task="Tidy up", cron="0 3 * * *", timezone="Europe/Vienna"
)
