"""An agent with Anthropic's API: text and thoughts as they are written, tools, tokens.

pip install 'runcast[broker,embedded]' anthropic
export ANTHROPIC_API_KEY=…
runcast dev anthropic_agent:agents          # in this folder: a link to start it, and to watch it
"""

from typing import Any

from anthropic import AsyncAnthropic

from runcast import Agents, Context
from runcast.integrations.models import relay

agents = Agents()
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [{"name": "weather", "description": "The weather in a city.", "input_schema": CITY}]


async def weather(city: str) -> str:
    return f"It is sunny in {city}."


@agents.agent("guide", description="Answers with what its tools know", max_attempts=2)
async def guide(context: Context) -> str:
    client = AsyncAnthropic()
    said: list[Any] = [{"role": "user", "content": context.task}]
    while True:
        stream = await client.messages.create(
            model="claude-sonnet-4-5", max_tokens=4096, messages=said, tools=TOOLS, stream=True
        )
        answer = await relay(context.emitter, stream, provider="anthropic")
        if not answer.tool_calls:
            return answer.text
        asked, results = [], []
        for call in answer.tool_calls:
            async with context.emitter.tool(call.name, call.arguments, call_id=call.id) as tool:
                tool.result = await weather(**call.arguments)
            asked.append({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments})
            results.append({"type": "tool_result", "tool_use_id": call.id, "content": tool.result})
        said += [{"role": "assistant", "content": asked}, {"role": "user", "content": results}]
