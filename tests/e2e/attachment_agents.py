"""An agent that says what it was given."""

from __future__ import annotations

import base64
import json

from emitter import Agents, Context

agents = Agents()
TAKEN = ("text/plain", "application/json", "application/pdf", "image/*")


@agents.agent("echo", input_modes=TAKEN)
async def echo(context: Context) -> str:
    """What it was given, in base 64: as a result it would be without credentials."""
    await context.emitter.text("Seen.")
    return base64.b64encode(json.dumps({"task": context.task, "params": context.params}).encode()).decode()


@agents.agent("asker", input_modes=TAKEN)
async def asker(context: Context) -> str:
    return str(await context.ask("Which?", kind="text", expires_in=60))
