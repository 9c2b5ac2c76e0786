"""An agent with OpenAI's API, or one that speaks like it: text as it is written, tools, tokens and cost.

pip install 'runcast[broker,embedded]' openai
export OPENAI_API_KEY=…                     # OPENAI_BASE_URL for another vendor, or a model of your own
runcast dev openai_agent:agents             # in this folder: a link to start it, and to watch it
"""

import json
from typing import Any

from openai import AsyncOpenAI

from runcast import Agents, Context
from runcast.integrations.models import relay

agents = Agents()
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "The weather in a city.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}},
]  # fmt: skip


async def weather(city: str) -> str:
    return f"It is sunny in {city}."


@agents.agent("guide", description="Answers with what its tools know", max_attempts=2)
async def guide(context: Context) -> str:
    client = AsyncOpenAI()
    said: list[Any] = [{"role": "user", "content": context.task}]
    while True:
        stream = await client.chat.completions.create(
            model="gpt-5-mini", messages=said, tools=TOOLS, stream=True, stream_options={"include_usage": True}
        )
        answer = await relay(context.emitter, stream, provider="openai")
        if not answer.tool_calls:
            return answer.text
        for call in answer.tool_calls:
            async with context.emitter.tool(call.name, call.arguments, call_id=call.id) as tool:
                tool.result = await weather(**call.arguments)
            function = {"name": call.name, "arguments": json.dumps(call.arguments)}
            said.append(
                {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": function}]}
            )
            said.append({"role": "tool", "tool_call_id": call.id, "content": tool.result})
