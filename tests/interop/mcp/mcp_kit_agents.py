"""What the MCP conformance kit calls, as agents that know nothing of the protocol but for two marks in schemas."""

from __future__ import annotations

import asyncio
from typing import Any

from emitter import Agents, Context
from emitter.store.announcements import Example, ExampleFile

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA=="
TASKS = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
LATE = 3.0
"""Seconds after which a call has become a task, for clients that take such, also at an edge that is busy for two."""

agents = Agents()


def fields(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


TEXT = {"type": "string"}
SAMPLING = {
    "method": "sampling/createMessage",
    "params": {"messages": [{"role": "user", "content": {"type": "text", "text": "Hello?"}}], "maxTokens": 100},
}
ROOTS = {"method": "roots/list", "params": {}}


def request(wanted: dict[str, Any]) -> dict[str, Any]:
    """The schema of a question that is the client's own to answer."""
    return {"type": "object", "x-mcp-request": wanted}


async def ask_form(context: Context, prompt: str, input_id: str, schema: dict[str, Any]) -> Any:
    return await context.ask(prompt, kind="form", schema=schema, input_id=input_id)


# --- content ---------------------------------------------------------------------------------------------------------


@agents.agent(
    "test_simple_text",
    description="Text",
    examples=[
        Example(task="This is a simple prompt for testing.", name="test_simple_prompt"),
        Example(task="arg1='{arg1}', arg2='{arg2}'", name="test_prompt_with_arguments"),
        Example(
            task="Please process the embedded resource above.",
            name="test_prompt_with_embedded_resource",
            files=(ExampleFile(media_type="text/plain", text="Embedded resource content.", uri="{resourceUri}"),),
        ),
        Example(
            task="Please analyze the image above.",
            name="test_prompt_with_image",
            files=(ExampleFile(media_type="image/png", data=PNG),),
        ),
        Example(task="Use {context}", name="test_input_required_result_prompt"),
    ],
)
async def simple_text(context: Context) -> str:
    return "This is a simple text response for testing."


@agents.agent("test_image_content")
async def image_content(context: Context) -> None:
    await context.emitter.artifact("image", "image/png", url=f"data:image/png;base64,{PNG}", last=True)


@agents.agent("test_audio_content")
async def audio_content(context: Context) -> None:
    await context.emitter.artifact("audio", "audio/wav", url=f"data:audio/wav;base64,{WAV}", last=True)


@agents.agent("test_embedded_resource")
async def embedded_resource(context: Context) -> None:
    await context.emitter.artifact("text", "text/plain", text="This is an embedded resource content.", last=True)


@agents.agent("test_multiple_content_types")
async def multiple_content_types(context: Context) -> str:
    await context.emitter.artifact("image", "image/png", url=f"data:image/png;base64,{PNG}", last=True)
    await context.emitter.artifact("data", "application/json", data={"test": "data", "value": 123}, last=True)
    return "Multiple content types test:"


@agents.agent("test_resources")
async def resources(context: Context) -> None:
    text = "This is the content of the static text resource."
    await context.emitter.artifact("static-text", "text/plain", text=text, last=True)
    await context.emitter.artifact("static-binary", "image/png", url=f"data:image/png;base64,{PNG}", last=True)


@agents.agent("test_error_handling", max_attempts=1)
async def error_handling(context: Context) -> None:
    raise RuntimeError("This tool intentionally returns an error for testing")


@agents.agent("test_tool_with_progress")
async def tool_with_progress(context: Context) -> str:
    for percent in (0, 50, 100):
        await context.emitter.progress(percent)
        await asyncio.sleep(0.05)
    return "done"


async def _say(context: Context) -> str:
    for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.emitter.status("working", said)
        await asyncio.sleep(0.05)
    return "done"


agents.agent("test_tool_with_logging")(_say)
agents.agent("test_logging_tool")(_say)


@agents.agent("test_missing_capability", input_schema={"type": "object", "x-mcp-requires": {"sampling": {}}})
async def missing_capability(context: Context) -> Any:
    return await ask_form(context, "Sample", "sample", request(SAMPLING))


@agents.agent(
    "json_schema_2020_12_tool",
    input_schema={
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
)
async def json_schema(context: Context) -> str:
    return str(context.params)


REGION = {"type": "string", "x-mcp-header": "Region"}


@agents.agent("test_header", input_schema={"type": "object", "properties": {"region": REGION}})
async def header(context: Context) -> str:
    return str(context.params)


# --- questions -------------------------------------------------------------------------------------------------------


@agents.agent("test_streaming_elicitation")
async def streaming_elicitation(context: Context) -> Any:
    return await context.ask("Go on?")


@agents.agent("test_elicitation")
async def elicitation(context: Context) -> str:
    schema = fields("username", "email", username=TEXT, email=TEXT)
    prompt = str(context.params.get("message", "Who are you?"))
    return f"User response: {await ask_form(context, prompt, 'who', schema)}"


@agents.agent("test_sampling")
async def sampling(context: Context) -> str:
    prompt = {"type": "text", "text": str(context.params.get("prompt", "?"))}
    wanted = {**SAMPLING, "params": {"messages": [{"role": "user", "content": prompt}], "maxTokens": 100}}
    return f"LLM response: {await ask_form(context, 'Sample', 'sample', request(wanted))}"


@agents.agent("test_elicitation_sep1034_defaults")
async def defaults(context: Context) -> str:
    schema = fields(
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )
    return f"Elicitation completed: {await ask_form(context, 'Who?', 'defaults', schema)}"


@agents.agent("test_elicitation_sep1330_enums")
async def enums(context: Context) -> str:
    titled = [{"const": f"value{number}", "title": f"Option {number}"} for number in (1, 2, 3)]
    plain = ["option1", "option2", "option3"]
    schema = fields(
        untitledSingle={"type": "string", "enum": plain},
        titledSingle={"type": "string", "oneOf": titled},
        legacyEnum={"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]},
        untitledMulti={"type": "array", "items": {"type": "string", "enum": plain}},
        titledMulti={"type": "array", "items": {"anyOf": titled}},
    )
    return f"Elicitation completed: {await ask_form(context, 'Which?', 'enums', schema)}"


NAMED = fields("name", name=TEXT)
CONFIRMED = fields("ok", ok={"type": "boolean"})


@agents.agent("test_input_required_result_elicitation")
async def asks_name(context: Context) -> str:
    name = (await ask_form(context, "What is your name?", "user_name", NAMED))["name"]
    return f"Hello, {name}!"


@agents.agent("test_input_required_result_sampling")
async def asks_model(context: Context) -> Any:
    return await ask_form(context, "Sample", "capital_question", request(SAMPLING))


@agents.agent("test_input_required_result_list_roots")
async def asks_roots(context: Context) -> Any:
    return await ask_form(context, "Roots", "client_roots", request(ROOTS))


async def _confirm(context: Context) -> str:
    await ask_form(context, "Please confirm", "confirm", CONFIRMED)
    return "state-ok"


agents.agent("test_input_required_result_request_state")(_confirm)
agents.agent("test_input_required_result_tampered_state")(_confirm)


@agents.agent("test_input_required_result_multiple_inputs")
async def asks_all(context: Context) -> str:
    found = await asyncio.gather(
        ask_form(context, "What is your name?", "user_name", NAMED),
        ask_form(context, "Sample", "greeting", request(SAMPLING)),
        ask_form(context, "Roots", "client_roots", request(ROOTS)),
    )
    return str(found)


@agents.agent("test_input_required_result_multi_round")
async def asks_twice(context: Context) -> str:
    name = (await ask_form(context, "Step 1: What is your name?", "step1", NAMED))["name"]
    color = await ask_form(context, "Step 2: What is your favorite color?", "step2", fields("color", color=TEXT))
    return f"{name}: {color['color']}"


@agents.agent("test_input_required_result_capabilities")
async def asks_what_it_can(context: Context) -> str:
    found = await asyncio.gather(
        ask_form(context, "What is your name?", "user_name", NAMED),
        ask_form(context, "Sample", "greeting", request(SAMPLING)),
    )
    return str(found)


# --- tasks -----------------------------------------------------------------------------------------------------------


@agents.agent("greet")
async def greet(context: Context) -> str:
    return f"Hello, {context.params.get('name')}!"


@agents.agent("slow_compute")
async def slow_compute(context: Context) -> str:
    seconds = float(context.params.get("seconds", 0))
    await asyncio.sleep(max(seconds, LATE) if seconds else 0)
    return f"computed {context.params.get('label')}"


@agents.agent("failing_job", max_attempts=1, input_schema={"type": "object", "x-mcp-requires": TASKS})
async def failing_job(context: Context) -> None:
    await asyncio.sleep(LATE)
    raise RuntimeError("the job failed")


@agents.agent("protocol_error_job", max_attempts=1)
async def protocol_error_job(context: Context) -> None:
    """As if its worker had been lost, which is nobody's result."""
    await asyncio.sleep(LATE)
    await context.emitter.execution_error("its worker was lost", code="worker_lost")


@agents.agent("confirm_delete")
async def confirm_delete(context: Context) -> str:
    await asyncio.sleep(LATE)
    return f"deleted: {await context.ask('Delete it?')}"


@agents.agent("multi_input")
async def multi_input(context: Context) -> str:
    await asyncio.sleep(LATE)
    found = await asyncio.gather(context.ask("One?", input_id="one"), context.ask("Two?", input_id="two"))
    return str(found)


@agents.agent("test_tool_with_task")
async def with_task(context: Context) -> str:
    name = (await ask_form(context, "What is your name?", "user_name", NAMED))["name"]
    await asyncio.sleep(LATE)
    return f"Hello, {name}"


@agents.agent("late")
async def late(context: Context) -> str:
    await context.emitter.status("working", "Once")
    await asyncio.sleep(2 * LATE)
    await context.emitter.status("working", "Twice")
    return "late"
