"""An agent of PydanticAI: text as it is written, tools, tokens.

pip install 'runcast[broker,embedded]' 'pydantic-ai-slim[openai]'
export OPENAI_API_KEY=…
runcast dev pydantic_ai_agent:agents        # in this folder: a link to start it, and to watch it
"""

import time

from pydantic_ai import Agent, AgentRunResultEvent, messages

from runcast import Agents, Context

agents = Agents()
model = Agent("openai-chat:gpt-5-mini", instructions="Answer with what your tools know.", defer_model_check=True)


@model.tool_plain
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


@agents.agent("guide", description="Answers with what its tools know", max_attempts=2)
async def guide(context: Context) -> str:
    emitter, began = context.emitter, {}
    async with model.run_stream_events(context.task) as events:
        async for event in events:
            match event:
                case messages.PartStartEvent(part=messages.TextPart(content=text)):
                    await emitter.text(text)
                case messages.PartDeltaEvent(delta=messages.TextPartDelta(content_delta=text)):
                    await emitter.text(text)
                case messages.FunctionToolCallEvent(part=call):
                    began[call.tool_call_id] = time.monotonic()
                    await emitter.tool_start(call.tool_call_id, call.tool_name, call.args_as_dict())
                case messages.FunctionToolResultEvent(part=result):
                    seconds = time.monotonic() - began.pop(result.tool_call_id)
                    await emitter.tool_complete(result.tool_call_id, result.tool_name or "?", result.content, seconds)
                case AgentRunResultEvent(result=result):
                    await emitter.usage(add=result.usage)
                    await emitter.end_text()
    return result.output
