"""`openai` and `openai-agents` for Python, unmodified: `python responses_python.py <dying URL> <URL> <token>` prints
what it got as JSON, last."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import openai
from openai import AsyncOpenAI, OpenAI

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    "strict": False,
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def told(client: OpenAI) -> dict[str, Any]:
    """Answers, held and streamed, in turns."""
    first = client.responses.create(model="model", input="I am Ann.", instructions="Be brief.", metadata={"k": "v"})
    with client.responses.stream(model="model", input="Who am I?", previous_response_id=first.id) as stream:
        numbers = [event.sequence_number for event in stream]
        second = stream.get_final_response()
    image = [{"role": "user", "content": [{"type": "input_image", "image_url": PIXEL}]}]
    seen = client.responses.create(model="model", input=image)
    items = client.responses.input_items.list(second.id, order="asc").data
    return {
        "models": [model.id for model in client.models.list()],
        "text": first.output_text,
        "metadata": first.metadata,
        "usage": first.usage.total_tokens if first.usage else None,
        "numbers": numbers,
        "second": second.output_text,
        "same": client.responses.retrieve(second.id).output_text == second.output_text,
        "seen": seen.output_text,
        "items": [[item.role, item.content[0].text] for item in items],
    }


def asked(client: OpenAI) -> dict[str, Any]:
    """An approval, and a question to the user: three responses, one execution."""
    first = client.responses.create(model="worker", input="Publish it.")
    request = first.output[-1]
    approval = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}
    with client.responses.stream(model="worker", input=[approval], previous_response_id=first.id) as stream:
        second = stream.get_final_response()
    call = second.output[-1]
    answer = {"type": "function_call_output", "call_id": call.call_id, "output": "there"}
    third = client.responses.create(model="worker", input=[answer], previous_response_id=second.id)
    again = client.responses.create(
        model="worker", input=[{**answer, "output": "here"}], previous_response_id=second.id
    )
    return {
        "types": [[item.type for item in response.output] for response in (first, second, third)],
        "call": [call.name, json.loads(call.arguments)["options"]],
        "previous": [second.previous_response_id == first.id, third.previous_response_id == second.id],
        "executions": len({response.id.rpartition("_")[0] for response in (first, second, third)}),
        "text": third.output_text,
        "again": again.id == third.id and again.output_text == third.output_text,
        "given": [client.responses.input_items.list(each.id).data[0].type for each in (second, third)],
    }


def ended(client: OpenAI) -> dict[str, Any]:
    """In the background: polled, cancelled, deleted, failed; and what is refused."""
    late = client.responses.create(model="slow", input="x", background=True, extra_body={"params": {"seconds": 60}})
    while client.responses.retrieve(late.id).output_text != "begun ":
        time.sleep(0.05)
    cancelled = client.responses.cancel(late.id)
    client.responses.delete(late.id)
    failing = client.responses.create(model="failer", input="x", stream=True)
    failed = list(failing)[-1]
    return {
        "statuses": [late.status, cancelled.status, cancelled.incomplete_details.reason],
        "failed": [failed.type, failed.response.error.message],
        "refused": [
            refused(lambda: client.responses.retrieve(late.id)),
            refused(lambda: client.responses.retrieve("resp_nope")),
            refused(lambda: client.responses.create(model="nope", input="x")),
            refused(lambda: client.responses.create(model="model", input="x", previous_response_id="resp_ex_0")),
            refused(lambda: client.responses.create(model="model", input=[{"role": "user", "content": 3}])),
            refused(lambda: client.with_options(api_key="nope").responses.create(model="model", input="x")),
        ],
    }


def refused(doing: Any) -> list[Any]:
    try:
        doing()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.code, error.param]
    raise AssertionError("it was not refused")


def steered(client: OpenAI) -> list[str]:
    """A message to the agent at work, whose answer is a response of its own."""
    first = client.responses.create(model="listener", input="x", background=True)
    while not client.responses.retrieve(first.id).output_text:
        time.sleep(0.05)
    second = client.responses.create(model="listener", input="Hurry", previous_response_id=first.id)
    return [second.output_text, client.responses.retrieve(first.id).output_text]


def cut(client: OpenAI, other: OpenAI) -> dict[str, Any]:
    """A stream whose edge dies, and its rest from another one."""
    seen: list[Any] = []
    try:
        stream = client.responses.create(
            model="slow", input="x", background=True, stream=True, extra_body={"params": {"seconds": 4}}
        )
        for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                print("cut", flush=True)
    except openai.APIError as error:
        how = type(error).__name__
    except Exception as error:  # httpx's own, which the client lets through in the middle of a stream
        how = type(error).__name__
    first = len(seen)
    id_ = seen[0].response.id
    seen += other.responses.retrieve(id_, stream=True, starting_after=seen[-1].sequence_number)
    whole = list(other.responses.retrieve(id_, stream=True))
    return {
        "how": how,
        "first": first,
        "rest": len(seen) - first,
        "same": dumped(seen) == dumped(whole),
        "text": seen[-1].response.output_text,
        "after": [len(list(other.responses.retrieve(id_, stream=True, starting_after=n))) for n in (0, 10**6)],
        "count": len(whole),
    }


def dumped(seen: Iterable[Any]) -> list[Any]:
    return [event.to_dict() for event in seen]


async def agents(url: str, token: str) -> dict[str, Any]:
    """`openai-agents` runs the function that the agent calls, and an agent without functions in a stream."""
    from agents import Agent, OpenAIResponsesModel, RunConfig, Runner, function_tool

    @function_tool
    def get_weather(location: str) -> str:
        """The weather."""
        return f"fog in {location}"

    model = OpenAIResponsesModel(model="model", openai_client=AsyncOpenAI(base_url=url, api_key=token))
    config = RunConfig(tracing_disabled=True)
    caller = Agent(name="caller", instructions="Be brief.", model=model, tools=[get_weather])
    found = await Runner.run(caller, "The weather?", run_config=config)
    plain = Agent(name="plain", instructions="Be brief.", model=model)
    streamed = Runner.run_streamed(plain, "Hi.", run_config=config)
    async for _ in streamed.stream_events():
        pass
    return {"called": found.final_output, "plain": streamed.final_output}


def main(dying: str, url: str, token: str) -> dict[str, Any]:
    """All at once. The edge at `dying` is to be killed when this has printed `cut`."""
    client, cut_off = (OpenAI(base_url=each, api_key=token, max_retries=0) for each in (url, dying))
    parts = {each.__name__: partial(each, client) for each in (told, asked, ended, steered)}
    parts["cut"] = partial(cut, cut_off, client)
    parts["agents"] = partial(asyncio.run, agents(url, token))
    with ThreadPoolExecutor() as pool:
        running = {name: pool.submit(part) for name, part in parts.items()}
        return {name: part.result() for name, part in running.items()}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
