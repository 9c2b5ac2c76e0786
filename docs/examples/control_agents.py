"""Agents that people control while they run."""

import asyncio

from emitter import Agents, Budget, Context, Declined, InputExpired, Interrupted

agents = Agents()


@agents.agent("asker", description="Asks in every way")
async def asker(context: Context) -> dict[str, object]:
    publish = await context.ask("Publish it?", expires_in=600)  # kind="approval": true or false
    where = await context.ask("Where?", kind="choice", options=["blog", "shop"])
    title = await context.ask("Which title?", kind="text")
    schema = {"type": "object", "properties": {"copies": {"type": "integer"}}, "required": ["copies"]}
    form = await context.ask("How many?", kind="form", schema=schema)
    return {"publish": publish, "where": where, "title": title, **form}


@agents.agent("patient")
async def patient(context: Context) -> str:
    try:
        return await context.ask("Your name?", kind="text", expires_in=0.2)
    except InputExpired:
        return "nobody answered in time"
    except Declined:
        return "somebody would rather not say"


@agents.agent("writer", accepts_messages=True)
async def writer(context: Context) -> str:
    draft = f"A text about {context.task}."
    message = await context.next_message(timeout=30)
    if message is not None:
        draft = await revise(draft, message.text)
    for message in await context.waiting_messages():  # what came meanwhile, now taken
        draft = await revise(draft, message.text)
    try:
        async with context.interruptible():
            return await polish(draft)  # may take long
    except Interrupted as interrupted:  # somebody sent one with mode `interrupt`
        return await revise(draft, interrupted.message.text)


async def revise(draft: str, wish: str | None) -> str:
    return f"{draft} ({wish})"


async def polish(draft: str) -> str:
    await asyncio.sleep(20)
    return draft


@agents.agent("spender", budget=Budget(total_tokens=200_000, cost_usd=2.0, tool_calls=50, seconds=900))
async def spender(context: Context) -> int:
    calls = 0
    while (left := context.budget.remaining.tool_calls) is None or left > 1:
        async with context.emitter.tool("look", {"number": calls}) as call:
            call.result = "nothing new"
        calls += 1
    return calls


@agents.agent("parent", description="Has the work done by others")
async def parent(context: Context) -> list[object]:
    child = await context.start("counter", "Count for me", key="first")
    first = await child.result(timeout=600)  # what it returned; or ChildFailed, TimeoutError
    return [first, await context.call("counter", "Once more")]  # both in one


agents.schedule("morning", agent="spender", user_id="ops", task="Look", cron="0 7 * * *", timezone="Europe/Vienna")
agents.schedule("pulse", agent="spender", user_id="ops", task="Look", every=300)
