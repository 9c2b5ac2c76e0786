"""Agents that ask people, run by real worker processes."""

from __future__ import annotations

import asyncio
from typing import Any

from emitter import Agents, Context, Declined, InputExpired

agents = Agents()

LOGIN = {
    "type": "object",
    "properties": {"email": {"type": "string", "format": "email"}, "password": {"type": "string", "minLength": 8}},
    "required": ["email", "password"],
}


@agents.agent("asker", max_attempts=3)
async def asker(context: Context) -> dict[str, Any]:
    """Asks twice, and says which attempt it was that had both answers."""
    colour = await context.ask("Which colour?", kind="text")
    approved = await context.ask(f"Paint it {colour}?")
    return {"colour": colour, "approved": approved, "attempt": context.attempt}


@agents.agent("login")
async def login(context: Context) -> dict[str, Any]:
    """Says of the password no more than it may."""
    form = await context.ask("Who are you?", kind="form", schema=LOGIN)
    return {"email": form["email"], "length": len(form["password"])}


@agents.agent("hasty")
async def hasty(context: Context) -> str:
    try:
        return str(await context.ask("Quick?", kind="text", expires_in=0.3))
    except InputExpired:
        async with asyncio.timeout(30):  # until the test has seen that it goes on
            return "went on: " + str(await context.ask("Now?", kind="text"))


@agents.agent("panel")
async def panel(context: Context) -> list[Any]:
    """Specialists who ask at the same time."""
    questions = [f"What does {name} need?" for name in ("ann", "bob", "cy")]
    return list(await asyncio.gather(*(context.ask(question, kind="text") for question in questions)))


@agents.agent("shy")
async def shy(context: Context) -> str:
    """Goes on without an answer."""
    try:
        return str(await context.ask("Who?", kind="text"))
    except Declined as declined:
        return f"declined {declined.input_id}"
