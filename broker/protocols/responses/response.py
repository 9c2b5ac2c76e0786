"""The response object: what is known of it before its execution has done anything, and how it stands. Pure.

All fields are there, null where there is nothing to say: clients rely on it (Open Responses, `ResponseResource`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from broker.protocols.responses.ids import ResponseId
from emitter.events import Usage

Json = dict[str, Any]
ABOUT = "responses"
"""The member of an execution's metadata that has what is said here and the execution does not need: `previous`, and
`echo`, the members of the request that its response repeats."""
TRUNCATED = "runcast_truncated"
LOST_BEFORE = "runcast_lost_before"
"""Members of a response's metadata: its oldest output was left out for want of room; its log had lost its head."""

ECHOED: Mapping[str, Any] = {
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "reasoning": None,
    "user": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": True,
    "background": False,
    "service_tier": "default",
    "safety_identifier": None,
    "prompt_cache_key": None,
}
"""What a response repeats of its request, and what it is where the request has none. Agents decide what they do with
it: they have it as `params.responses`."""
_FUNCTION: Json = {"type": "function", "description": None, "parameters": None, "strict": None}


class About(msgspec.Struct, frozen=True, kw_only=True):
    """A response, as it was asked for. `tools` are the client's own functions, and whatever else it named."""

    id: ResponseId
    model: str = ""
    previous: str | None = None
    instructions: str | None = None
    tools: Sequence[Json] = ()
    metadata: Mapping[str, str] = {}
    echo: Mapping[str, Any] = {}

    @property
    def functions(self) -> frozenset[str]:
        """Names of the client's functions."""
        return frozenset(str(tool.get("name")) for tool in self.tools if tool.get("type") == "function")

    def base(self) -> Json:
        return {
            "id": str(self.id),
            "object": "response",
            "created_at": 0,
            "completed_at": None,
            "status": "in_progress",
            "incomplete_details": None,
            "model": self.model,
            "previous_response_id": self.previous,
            "instructions": self.instructions,
            "output": [],
            "error": None,
            "tools": [{**_FUNCTION, **tool} if tool.get("type") == "function" else tool for tool in self.tools],
            "usage": None,
            "metadata": dict(self.metadata),
            **ECHOED,
            **{name: value for name, value in self.echo.items() if name in ECHOED and value is not None},
        }


def usage(total: Usage | None, before: Usage | None) -> Json | None:
    """What was used since `before`, of running totals."""
    if total is None:
        return None
    since = [
        max(0, now - (0 if before is None else getattr(before, name)))
        for name, now in (
            ("input_tokens", total.input_tokens),
            ("output_tokens", total.output_tokens),
            ("total_tokens", total.total_tokens),
        )
    ]
    return {
        "input_tokens": since[0],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": since[1],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": since[2],
    }
