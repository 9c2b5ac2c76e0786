"""An OpenAI-style loop: the model asks for tools until it has an answer."""

import json

from openai import AsyncOpenAI

from emitter import Agents, Context
from emitter.integrations.models import Answer, relay

agents = Agents()
MODEL = "gpt-5-mini"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@agents.agent("assistant", description="Answers with the help of tools")
async def assistant(context: Context) -> str:
    client = AsyncOpenAI()
    messages = [{"role": "user", "content": context.task}]
    for _ in range(8):
        stream = await client.chat.completions.create(
            model=MODEL, messages=messages, tools=TOOLS, stream=True, stream_options={"include_usage": True}
        )
        answer = await relay(context.emitter, stream)  # its text and usage are events as they come
        if not answer.tool_calls:
            return answer.text
        messages.append(as_message(answer))
        for call in answer.tool_calls:
            async with context.emitter.tool(call.name, call.arguments, call_id=call.id) as tool:
                tool.result = await weather(**call.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(tool.result)})
    raise RuntimeError("no answer after eight calls of the model")


def as_message(answer: Answer) -> dict[str, object]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call in answer.tool_calls
    ]
    return {"role": "assistant", "content": answer.text, "tool_calls": calls}


async def weather(city: str) -> dict[str, object]:
    return {"city": city, "degrees": 21}
