"""An execution as a page of Markdown, for who reads `runcast://executions/{id}`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from broker.executions.types import ExecutionState
from broker.protocols.mcp.content import CUT, as_json, is_cut, status_message

MEDIA_TYPE = "text/markdown"


def transcript(state: ExecutionState) -> str:
    return "\n\n".join(_paragraphs(state)) + "\n"


def _paragraphs(state: ExecutionState) -> Iterator[str]:
    yield f"# {state.agent or 'Execution'}: {state.status}"
    yield f"Execution `{state.execution_id}`, attempt {state.attempt}"
    if state.task:
        yield f"## Task\n\n{state.task}"
    if (message := status_message(state)) is not None and state.error is None:
        yield f"Now: {message}"
    if state.phases:
        yield "## Plan\n\n" + "\n".join(f"- {phase.name}: {phase.status}" for phase in state.phases)
    if thoughts := [each.thought for each in state.thinking if each.visible and each.thought]:
        yield "## Thoughts\n\n" + "\n\n".join(thoughts)
    if state.tools:
        yield "## Tools\n\n" + "\n".join(_tools(state))
    if said := [each.text for each in state.messages if each.parent_id is None and each.text]:
        yield "## Text\n\n" + "\n\n".join(said)
    yield from _rest(state)


def _tools(state: ExecutionState) -> Iterator[str]:
    for tool in state.tools:
        params = "" if tool.params is None else f" `{as_json(tool.params)}`"
        outcome = tool.error if tool.error is not None else "" if tool.result is None else as_json(tool.result)
        yield f"- {tool.tool_name}{params}: {tool.status}" + (f": {outcome}" if outcome else "")


def _rest(state: ExecutionState) -> Iterator[str]:
    for partial in state.partial_results:
        yield f"## Partial result\n\n{as_json(partial.result)}"
    for artifact in state.artifacts:
        yield f"## Artifact {artifact.name or artifact.artifact_id} ({artifact.media_type})\n\n{artifact.text or ''}"
    for question in state.open_inputs:
        yield f"## Waits for an answer ({question.kind}, `{question.input_id}`)\n\n{question.prompt}"
    if state.result is not None:
        result = state.result if isinstance(state.result, str) else as_json(state.result)
        yield f"## Result\n\n{result}"
    if state.error is not None:
        yield f"## Error\n\n{state.error.error}"
    if state.cancelled is not None:
        yield f"## Cancelled\n\n{state.cancelled.reason or 'without a reason'}"
    if is_cut(state) or any(thought.truncated for thought in state.thinking):
        yield CUT.replace("{id}", state.execution_id)
