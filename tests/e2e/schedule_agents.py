"""Agents with a schedule, run by real worker processes."""

from __future__ import annotations

import os
from typing import Any

from emitter import Agents, Context

agents = Agents()
HOUR = int(os.environ["NIGHTLY_HOUR"])
"""Which is not now."""


@agents.agent("reporter")
async def reporter(context: Context) -> dict[str, Any]:
    await context.emitter.thinking(f"{context.task} for {context.user_id}")
    return {**context.metadata, **context.params}


agents.schedule("pulse", agent="reporter", user_id="ops", task="Report", params={"n": 1}, every=1)
agents.schedule(
    "nightly", agent="reporter", user_id="night", task="Tidy up", cron=f"0 {HOUR} * * *", timezone="Europe/Vienna"
)
