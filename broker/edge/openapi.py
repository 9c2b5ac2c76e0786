"""The description of the HTTP interface (OpenAPI 3.1), generated from the types that the code itself uses.

The module is long because it is one table: what the native interface answers, in one place. What the endpoints of other
protocols answer is beside them, in their packages.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from broker.base.settings import Scope
from broker.edge.openapi_schemas import schemas
from broker.edge.openapi_webhooks import list_webhooks
from broker.executions import types as api
from broker.executions.control_types import CONTROL_EVENTS
from broker.executions.search import MAX_QUERY
from broker.http import jobs_openapi as jobs
from broker.http import message_openapi as messages
from broker.http import share_openapi as shares
from broker.http.openapi_parts import (
    ID,
    JSON,
    LIMIT,
    NDJSON,
    OWNER,
    PARENT,
    SSE,
    TRACE,
    TREE,
    Json,
    header,
    header_refs,
    headers,
    key,
    ok,
    operation,
    optional,
    parameter_refs,
    problems,
    query,
    ref,
)
from broker.protocols import openapi as protocols
from broker.streams import request
from emitter.events import CATALOGUE, State


def build_openapi(version: str) -> Json:
    """The whole description, as what JSON makes of it."""
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {
            "title": "Runcast",
            "version": version,
            "summary": "Stream what AI agents are doing to the people who wait for them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name} for name in ("executions", "streams", jobs.TAG, "operations", *protocols.TAGS)],
        "paths": _execution_paths() | _stream_paths() | jobs.paths() | _operations_paths() | protocols.paths(),
        "components": {
            "schemas": schemas(),
            "parameters": {parameter["name"]: parameter for parameter in (*OWNER, *STREAM, *TRACE)},
            "headers": headers(),
            "responses": problems(),
            "securitySchemes": _security_schemes(),
        },
    }


# --- parameters, security --------------------------------------------------------------------------------------------

_CURSOR: Json = {"type": "string", "pattern": optional(api.EVENT_ID)}
_NAMED = r"([a-z0-9_.:-]{1,80}\*?|\*)"
STREAM = (
    header("Last-Event-ID", "resume after this event; wins over `lastEventId`", **_CURSOR),
    query("lastEventId", "resume after this event", **_CURSOR),
    query("from", "where to begin without a cursor", type="string", enum=["start", "now"]),
    query("types", "only these types: `tool:*,execution:*`", type="string", pattern=f"^{_NAMED}(,{_NAMED}){{0,31}}$"),
    query(
        "compact",
        "`true`: until `stream:live`, neighbouring deltas of one text are one event with the id of the last",
        type="string",
        enum=["true", "false"],
    ),
    query("named", "`false`: every event as the default `message`", type="string", enum=["true", "false"]),
    query(
        "heartbeat",
        "`event`: heartbeats as events, not comments; seconds, 1 to 60: no further apart than this; or `event,5`",
        type="string",
        pattern=request.HEARTBEAT,
    ),
)


def _security_schemes() -> Json:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "Claims `sub`, `org`?, `exp`, `iat` and `scope` (or `scp`): "
            + ", ".join(f"`{scope}`" for scope in get_args(Scope))
            + ". A token without a claim about scopes may do `executions:read`.",
        },
        "cookie": {"type": "apiKey", "in": "cookie", "name": "runcast_token", "description": "The same token."},
        "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "Single use, for 30 s."},
    }


# --- operations ------------------------------------------------------------------------------------------------------


def _stream_answers(*, of_execution: bool) -> Json:
    """The answer of a stream; `x-sse-events` has, for each `event:` field, the schema of its `data:`."""
    control: Json = {name: ref(struct.__name__) for name, struct in CONTROL_EVENTS.items()}
    logged: Json = {event.type: ref(event.__name__ + "Event") for event in CATALOGUE}
    answers: Json = {
        "200": {
            "description": "Server-sent events. Logged events carry an `id`; of control events (`stream:*`) only"
            " `stream:cursor` does.",
            "headers": header_refs(),
            "content": {
                SSE: {
                    "schema": {"type": "string"},
                    "x-sse-events": {**logged, "custom:*": ref("CustomEvent"), **control},
                }
            },
        }
    }
    if of_execution:
        answers["204"] = {
            "description": "The execution has ended and nothing follows the cursor.",
            "headers": header_refs(),
        }
    return answers


def _execution_paths() -> Json:
    execution = "/api/agent/executions/{id}"
    return {
        "/api/agent/execute": {"post": _execute()},
        "/api/agent/executions": {"get": _list_executions()},
        execution: {
            "get": operation(
                "getExecution",
                "The folded state; the stack trace of an error with scope `executions:debug`",
                "executions:read",
                ok(200, "The state, or the tree.", {JSON: {"anyOf": [ref("ExecutionState"), ref("ExecutionNode")]}}),
                parameters=(ID, TREE),
                errors=(400, 404),
            )
        },
        execution + "/request": {
            "get": operation(
                "getRequest",
                "What the execution was started with: task, `params`, budget, and by whom",
                "executions:read",
                ok(200, "The request, without credentials.", {JSON: "AcceptedRequest"}),
                parameters=(ID,),
                errors=(400, 404),
            )
        },
        execution + "/events": {"get": _list_events(), "post": _publish()},
        execution + "/webhooks": {"get": list_webhooks()},
        execution + "/cancel": {
            "post": operation(
                "cancelExecution",
                "Ask the execution to stop; asking again changes nothing",
                "executions:write",
                ok(202, "It will end, or has ended, as cancelled.", {JSON: "CancelResponse"}),
                parameters=(ID,),
                body={JSON: "CancelRequest"},
                body_required=False,
                errors=(404, 409),
            )
        },
        **messages.paths(execution),
        **shares.paths(execution),
        execution + "/input": {
            "post": operation(
                "answerInput",
                "Answer an `input:required`; the first answer counts",
                "executions:write",
                ok(202, "The agent has the answer.", {JSON: "InputResponse"}),
                parameters=(ID,),
                body={JSON: "InputRequest"},
                errors=(404, 409),
            )
        },
    }


def _execute() -> Json:
    return operation(
        "execute",
        "Start an execution",
        "executions:write",
        ok(202, "It is queued.", {JSON: "ExecuteResponse"}),
        parameters=(key("a repeat with the same key gets the first answer"), *parameter_refs(TRACE)),
        body={JSON: "ExecuteRequest"},
        errors=(404, 409),
    )


def _list_executions() -> Json:
    return operation(
        "listExecutions",
        "The caller's executions, newest first; a page may be short, or empty, and still continue",
        "executions:read",
        ok(200, "One page.", {JSON: "ExecutionList"}),
        parameters=(
            query(
                "q",
                "only those with each of these words, or parts of words, in their task, result, error, agent or id",
                type="string",
                maxLength=MAX_QUERY,
            ),
            query("agent", "only those of this agent", type="string"),
            query("state", "only those in this state", **msgspec.json.schema(State)),
            query("since", "only those created then or later, milliseconds since the epoch", type="integer", minimum=0),
            query("until", "only those created before, milliseconds since the epoch", type="integer", minimum=0),
            PARENT,
            LIMIT,
            query("cursor", "`nextCursor` of the page before", type="string", pattern=api.LISTED),
        ),
        errors=(400, 404),
    )


def _list_events() -> Json:
    return operation(
        "listEvents",
        "The log as JSON; as NDJSON all of it (the audit export)",
        "executions:read",
        ok(200, "Events after the cursor.", {JSON: "EventPage", NDJSON: "LoggedEvent"}),
        parameters=(
            ID,
            query("after", "only events after this one", type="string", pattern=api.EVENT_ID),
            LIMIT,
            query(
                "compact",
                "`true`: neighbouring deltas of one text are one event with the id of the last; not in NDJSON",
                type="string",
                enum=["true", "false"],
            ),
        ),
        errors=(400, 404),
    )


def _publish() -> Json:
    return operation(
        "publishEvents",
        "Append one event, or many as NDJSON; an empty NDJSON body renews the lease of the execution",
        "events:publish",
        ok(202, "They are in the log, except those that a hook dropped.", {JSON: "PublishResponse"}),
        parameters=(
            ID,
            header(
                "Producer-Id",
                "with `Producer-Seq`: a repeat appends nothing twice",
                type="string",
                pattern="^[A-Za-z0-9_.-]{1,64}$",
            ),
            header("Producer-Seq", "the first event's number: from 1, without gaps", type="integer", minimum=1),
            *jobs.ATTEMPT_HEADERS,
            *parameter_refs(TRACE),
        ),
        body={JSON: "PublishRequest", NDJSON: "PublishRequest"},
        errors=(404, 409, 500),
    )


def _stream_paths() -> Json:
    return {
        "/api/agent/executions/{id}/stream": {
            "get": operation(
                "streamExecution",
                "Follow one execution",
                "executions:read",
                _stream_answers(of_execution=True),
                tag="streams",
                parameters=(ID, *parameter_refs(STREAM)),
                errors=(400, 404),
                ticket=True,
            )
        },
        "/api/agent/stream": {
            "get": operation(
                "streamFeed",
                "Follow all executions of the caller; the feed has its own ids",
                "executions:read",
                _stream_answers(of_execution=False),
                tag="streams",
                parameters=parameter_refs(STREAM),
                errors=(400,),
                ticket=True,
            )
        },
        "/api/agent/stream-tickets": {
            "post": operation(
                "createStreamTicket",
                "A ticket that opens one stream, for `EventSource`",
                "executions:read",
                ok(201, "Valid once, for 30 s.", {JSON: "TicketResponse"}),
                tag="streams",
                body={JSON: "TicketRequest"},
                body_required=False,
            )
        },
    }


def _stream_ops() -> Json:
    names = ("stream:open", "stream:token_expiring", "stream:end")
    sent = {"ops": ref("OpsSnapshot"), **{name: ref(CONTROL_EVENTS[name].__name__) for name in names}}
    return operation(
        "streamOperations",
        "The state of edges, workers and Redis, every two seconds",
        "ops:read",
        {
            "200": {
                "description": "Server-sent events without an `id`: each snapshot is complete.",
                "headers": header_refs(),
                "content": {SSE: {"schema": {"type": "string"}, "x-sse-events": sent}},
            }
        },
        tag="operations",
        ticket=True,
    )


def _operations_paths() -> Json:
    return {
        "/api/agent/agents": {
            "get": operation(
                "listAgents",
                "The agents that live workers announce",
                "executions:read",
                ok(200, "By name.", {JSON: "AgentList"}),
                tag="operations",
            )
        },
        "/api/ops/stream": {"get": _stream_ops()},
        "/api/admin/revocations": {
            "post": operation(
                "revoke",
                "Refuse a token, or all tokens issued to a user until now, on every edge and on open streams",
                "admin",
                ok(202, "In effect within a second.", {JSON: "RevocationResponse"}),
                tag="operations",
                body={JSON: "RevocationRequest"},
            ),
            "delete": operation(
                "takeBackRevocation",
                "Undo a revocation, named by the body or by the query `jti`, or `user` and `org`",
                "admin",
                {"204": {"description": "In effect within a second.", "headers": header_refs()}},
                tag="operations",
                body={JSON: "RevocationRequest"},
                body_required=False,
                parameters=(query("jti", "the token, if there is no body", type="string"),),
            ),
        },
        "/openapi.json": {
            "get": operation(
                "getOpenapi",
                "This description",
                None,
                ok(200, "OpenAPI 3.1.", {JSON: {"type": "object"}}),
                tag="operations",
            )
        },
    }
