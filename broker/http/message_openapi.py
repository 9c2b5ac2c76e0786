"""The description of the interface to people's messages."""

from __future__ import annotations

import msgspec

from broker.executions import message_types as api
from broker.http.openapi_parts import ID, JSON, Json, header, ok, operation, parameter

BODIES: tuple[type[msgspec.Struct], ...] = (
    api.MessageRequest, api.MessageResponse, api.MessageList, api.TakeRequest, api.TakeResponse,
)  # fmt: skip
_MESSAGE_ID = parameter("messageId", "path", "id of the message", type="string", pattern=api.MESSAGE_ID)


def paths(execution: str) -> Json:
    """The paths below that of an execution."""
    return {
        execution + "/messages": {"post": _send(), "get": _list()},
        execution + "/messages/{messageId}": {"delete": _withdraw()},
        execution + "/messages/take": {"post": _take()},
    }


def _send() -> Json:
    return operation(
        "sendMessage",
        "Say something to the running agent; a repeat with the same `messageId` gets the first answer",
        "executions:write",
        ok(202, "It waits for the agent.", {JSON: "MessageResponse"}),
        parameters=(ID,),
        body={JSON: "MessageRequest"},
        errors=(404, 409),
    )


def _list() -> Json:
    return operation(
        "listMessages",
        "What people have said to the agent, and whether it has taken it",
        "executions:read",
        ok(200, "All messages, in order.", {JSON: "MessageList"}),
        parameters=(ID,),
        errors=(404,),
    )


def _withdraw() -> Json:
    return operation(
        "withdrawMessage",
        "Withdraw a message that the agent has not taken; a repeat changes nothing",
        "executions:write",
        ok(200, "Nobody will take it.", {JSON: "MessageResponse"}),
        parameters=(ID, _MESSAGE_ID),
        errors=(404, 409),
    )


def _take() -> Json:
    return operation(
        "takeMessages",
        "For what runs the execution: take the messages that wait. From the first take on it accepts messages",
        "events:publish",
        ok(200, "The messages, in order; none if none came in time.", {JSON: "TakeResponse"}),
        parameters=(
            ID,
            header(
                "Attempt",
                "the attempt that takes them; required if a worker has the execution, else the newest",
                type="integer",
                minimum=1,
            ),
            header(
                "Fence",
                "the job's `fence`: take them as the worker that has claimed this attempt. Needs scope `jobs:run`"
                " instead of `events:publish`, for an execution of any user",
                type="string",
                maxLength=2048,
            ),
        ),
        body={JSON: "TakeRequest"},
        body_required=False,
        errors=(404, 409),
    )
