"""An agent that says what it was given."""

from __future__ import annotations

import base64
import json

from emitter import Agents, Context

agents = Agents()


@agents.agent("echo")
async def echo(context: Context) -> str:
    """What it was given, in base 64: as a result it would be without credentials."""
    await context.emitter.text("Seen.")
    return base64.b64encode(json.dumps({"task": context.task, "params": context.params}).encode()).decode()


@agents.agent("asker")
async def asker(context: Context) -> str:
    return str(await context.ask("Which?", kind="text", expires_in=60))
