"""An agent of OpenAI's Agents SDK: text as it is written, tools, hand-offs, tokens.

pip install 'runcast[broker,embedded]' openai-agents
export OPENAI_API_KEY=…
runcast dev openai_agents_sdk:agents        # in this folder: a link to start it, and to watch it
"""

import json
import time

from agents import Agent, Runner, function_tool

from runcast import Agents, Context

agents = Agents()


@function_tool
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


model = Agent(name="guide", instructions="Answer with what your tools know.", model="gpt-5-mini", tools=[weather])


@agents.agent("guide", description="Answers with what its tools know", max_attempts=2)
async def guide(context: Context) -> str:
    emitter, calls = context.emitter, {}
    run = Runner.run_streamed(model, context.task)
    async for event in run.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            await emitter.text(event.data.delta)
        elif event.type == "run_item_stream_event" and event.name == "tool_called":
            call = event.item.raw_item
            calls[call.call_id] = call.name, time.monotonic()
            await emitter.tool_start(call.call_id, call.name, json.loads(call.arguments))
        elif event.type == "run_item_stream_event" and event.name == "tool_output":
            call_id = event.item.raw_item["call_id"]
            name, began = calls.pop(call_id)
            await emitter.tool_complete(call_id, name, event.item.output, time.monotonic() - began)
        elif event.type == "agent_updated_stream_event":
            await emitter.status("agent", event.new_agent.name)
    await emitter.end_text()
    await emitter.usage(add=run.context_wrapper.usage)
    return str(run.final_output)
