"""What every route of an edge wants of its callers: a row each, also for the methods of JSON-RPC endpoints.

To add a route, add a row. `ask` is the method and the path of the route table; names in braces, here and in `query`,
`headers` and `body`, are filled in by `test_access_matrix.Target`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

READ = ("executions:read",)
WRITE = ("executions:write",)
BOTH = ("executions:write", "executions:read")
PUBLISH = ("events:publish",)
JOBS = ("jobs:run",)
OPS = ("ops:read",)
ADMIN = ("admin",)

MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
MISSING_TASK = "-32001"


class Row(NamedTuple):
    """A request of the owner's, and what it is answered."""

    ask: str
    needs: tuple[str, ...] = ()
    """The scopes; none: everybody may."""
    owner: int = 200
    """The status for the owner, and for an admin who acts for them, unless `admin` is another."""
    shows: bool = False
    """Whether that answer has the execution's task or id in it."""
    foreign: int = 404
    """The status for anybody else with all scopes but admin."""
    says: str = ""
    """A text in that answer."""
    ticket: bool = False
    """Whether `?ticket=` opens it; `is_for_one`: also a ticket of one execution."""
    is_for_one: bool = False
    shared: bool = False
    """Whether a share link to the execution opens it."""
    query: str = ""
    headers: Mapping[str, str] = {}
    body: Any = None
    prepare: str = ""
    """What the execution has besides a task and an open input (`Target`)."""
    rpc: str = ""
    """The method of a JSON-RPC endpoint."""
    names: Mapping[str, str] = {}
    """What names in braces stand for in the path, if for something else than usual."""
    admin: int = 0
    about: int = -1
    """The status, if the execution's record is of a format that this version does not know; 0: the request is about
    no execution, -1: 503 if others get 404, otherwise 0."""

    @property
    def newer(self) -> int:
        return self.about if self.about >= 0 else 503 if self.foreign == 404 else 0

    @property
    def name(self) -> str:
        return f"{self.ask} {self.rpc}".strip()

    @property
    def method(self) -> str:
        return self.ask.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.ask.partition(" ")[2]


def public(ask: str, **more: Any) -> Row:
    """For everybody."""
    return Row(ask, (), **{"foreign": more.get("owner", 200), **more})


# --- the native interface --------------------------------------------------------------------------------------------

_ONE = "/api/agent/executions/{id}"
_ATTEMPT: Any = {
    "about": 503,
    "headers": {"Attempt": "{attempt}", "Fence": "{fence}"},
    "names": {"id": "{job}"},
}
_JOB = {"executionId": "{job}", "attempt": 1, "fence": "{fence}"}
_STATUS = {"type": "status", "data": {"status": "on", "message": "m"}}

NATIVE = [
    Row(f"GET {_ONE}/stream", READ, shows=True, ticket=True, is_for_one=True, shared=True),
    Row("GET /api/agent/stream", READ, shows=True, ticket=True, foreign=200, query="lastEventId=0-0"),
    Row("GET /api/ops/stream", OPS, ticket=True, foreign=200),
    Row("POST /api/agent/execute", WRITE, 202, foreign=202, body={"task": "t", "agent": "matrix"}),
    Row("GET /api/agent/executions", READ, shows=True, foreign=200),
    Row(f"GET {_ONE}", READ, shows=True, shared=True),
    Row(f"GET {_ONE}/request", READ, shared=True),
    Row(f"GET {_ONE}/events", READ, shows=True, shared=True),
    Row(f"POST {_ONE}/events", PUBLISH, 202, body=_STATUS),
    Row(f"GET {_ONE}/webhooks", READ, prepare="push"),
    Row(f"GET {_ONE}/shares", READ, about=0),
    Row(f"POST {_ONE}/shares", WRITE, 201, body={}, about=0),
    Row(f"DELETE {_ONE}/shares/{{share}}", WRITE, 404, about=0),
    Row(f"POST {_ONE}/cancel", WRITE, 202, body={}),
    Row(f"POST {_ONE}/input", WRITE, 202, body={"inputId": "q", "value": "yes"}),
    Row(f"POST {_ONE}/messages", WRITE, 202, body={"text": "hi"}, prepare="message"),
    Row(f"GET {_ONE}/messages", READ, prepare="message"),
    Row(f"POST {_ONE}/messages/take", PUBLISH, body={}, prepare="message"),
    Row(f"DELETE {_ONE}/messages/{{messageId}}", WRITE, prepare="message"),
    Row("POST /api/agent/stream-tickets", READ, 201, foreign=201, body={"executionId": "{id}"}),
    Row("GET /api/agent/agents", READ, foreign=200),
    Row("POST /api/admin/revocations", ADMIN, 202, foreign=403, body={"user": "nobody-{id}"}),
    Row("DELETE /api/admin/revocations", ADMIN, 204, foreign=403, query="user=nobody-{id}"),
    public("GET /openapi.json"),
    Row("POST /api/agent/jobs/claim", JOBS, 204, foreign=204,
        body={"agents": ["unasked"], "worker": "w", "waitSeconds": 0}),
    Row("POST /api/agent/jobs/renew", JOBS, foreign=200, says='"lost"', prepare="job", about=200,
        body={"worker": "w", "jobs": [_JOB]}),
    Row("POST /api/agent/jobs/release", JOBS, foreign=200, says='"lost"', prepare="job", about=503,
        body={"worker": "w", "jobs": [_JOB]}),
]  # fmt: skip
WORKERS = [
    Row(f"POST {_ONE}/events", JOBS, 202, foreign=403, admin=403, prepare="job", **_ATTEMPT,
        body={"type": "execution:started", "data": {"task": "t", "startedAt": 1, "attempt": 1}}),
    Row(f"POST {_ONE}/messages/take", JOBS, foreign=403, admin=403, prepare="job", **_ATTEMPT,
        body={}),
]  # fmt: skip
"""Routes that take a worker's fence in the place of a scope."""

# --- AI SDK, Durable Streams and AG-UI -------------------------------------------------------------------------------

_SAID = {"id": "u-{id}", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
_RUN = {"threadId": "t-{id}", "runId": "r-{id}", "messages": [{"id": "u-{id}", "role": "user", "content": "hi"}],
        "state": {}, "tools": [], "context": [], "forwardedProps": {}}  # fmt: skip

CHATS = [
    Row("POST /api/agent/chat", BOTH, foreign=200, body={"id": "new-{id}", "messages": [_SAID], "agent": "matrix"}),
    Row("GET /api/agent/chat/{chatId}", READ, shows=True, foreign=200, about=503),
    Row("GET /api/agent/chat/{chatId}/stream", READ, foreign=204, about=503),
    Row("POST /api/agent/chat/{chatId}/stop", WRITE, 202, foreign=202, body={}, about=503),
    Row("GET /ds/executions/{id}", READ, shows=True, ticket=True, is_for_one=True),
    Row("POST /ds/chat", BOTH, 201, foreign=201, body={"id": "new-{id}", "messages": [_SAID], "agent": "matrix"}),
    Row("GET /ds/chat/{chatId}/stream", READ, shows=True, foreign=204, about=503),
    Row(
        "POST /ag-ui", BOTH, shows=True, foreign=422, about=503, body={**_RUN, "threadId": "{chatId}", "runId": "{id}"}
    ),
    Row("POST /ag-ui/{name}", BOTH, foreign=200, body=_RUN, names={"name": "{agent}"}),
    Row("GET /ag-ui/{name}", READ, names={"name": "{id}"}),
]

# --- the Responses API ------------------------------------------------------------------------------------------------

_RESPONSE = {"id": "resp_{id}_0"}
_MADE = {"model": "matrix", "input": "hi", "background": True}
_AFTER = {**_MADE, "previous_response_id": "resp_{id}_0"}
RESPONSES = [
    Row("POST /v1/responses", BOTH, foreign=200, body=_MADE),
    Row("POST /v1/responses", BOTH, shows=True, foreign=400, says="not_found", about=503, body=_AFTER),
    Row("GET /v1/responses/{id}", READ, shows=True, names=_RESPONSE),
    Row("DELETE /v1/responses/{id}", WRITE, names=_RESPONSE, prepare="ended"),
    Row("POST /v1/responses/{id}/cancel", BOTH, shows=True, names=_RESPONSE, body={}),
    Row("GET /v1/responses/{id}/input_items", READ, shows=True, names=_RESPONSE),
    Row("GET /v1/models", READ, foreign=200),
    Row("GET /v1/models/{model}", READ, foreign=200, names={"model": "matrix"}),
]

# --- A2A -------------------------------------------------------------------------------------------------------------

_NEW = {"A2A-Version": "1.0"}
_A2A_SAID = {"messageId": "m-{id}", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
_A2A_START = {"message": _A2A_SAID, "metadata": {"agent": "matrix"}, "configuration": {"returnImmediately": True}}
_A2A_OLD_SAID = {"kind": "message", "messageId": "m-{id}", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
_A2A_OLD_START = {"message": _A2A_OLD_SAID, "metadata": {"agent": "matrix"}, "configuration": {"blocking": False}}
_A2A_PROTO_SAID = {"messageId": "m-{id}", "role": "ROLE_USER", "content": [{"text": "hi"}]}
_A2A_PROTO_START = {"request": _A2A_PROTO_SAID, "metadata": {"agent": "matrix"}, "configuration": {"blocking": False}}
_HOOK = {"url": "http://127.0.0.1:9/"}


def _a2a_rest(base: str) -> list[Row]:
    """One of the REST bindings."""
    is_old = base == "/a2a/v1"
    headers = {} if is_old else _NEW
    start = _A2A_PROTO_START if is_old else _A2A_START
    hook: Any = {"configId": "c", "config": {"pushNotificationConfig": _HOOK}} if is_old else {"id": "c", **_HOOK}
    task, configs = f"{base}/tasks/{{id}}", f"{base}/tasks/{{id}}/pushNotificationConfigs"
    listing = (404, "-32601") if is_old else (200, "")  # listed since 1.0
    return [
        Row(f"POST {base}/message:send", BOTH, foreign=200, body=start, headers=headers),
        Row(f"POST {base}/message:stream", BOTH, foreign=200, body=start, headers=headers),
        Row(f"GET {base}/tasks", READ, listing[0], not is_old, *listing, about=0, headers=headers),
        Row(f"GET {task}", READ, shows=True, headers=headers),
        Row(f"POST {task}:cancel", BOTH, headers=headers, body={}),
        Row(f"GET {task}:subscribe", READ, shows=True, headers=headers),
        Row(f"POST {task}:subscribe", READ, shows=True, headers=headers, body={}),
        Row(f"POST {configs}", BOTH, headers=headers, body=hook),
        Row(f"GET {configs}", READ, headers=headers, prepare="push"),
        Row(f"GET {configs}/{{config}}", READ, headers=headers, prepare="push"),
        Row(f"DELETE {configs}/{{config}}", BOTH, headers=headers, prepare="push"),
        Row(f"GET {base}/{'card' if is_old else 'extendedAgentCard'}", READ, foreign=200, headers=headers),
    ]


_CARDS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
A2A = [
    *(public(f"GET {path}") for path in _CARDS),
    *(public(f"GET /a2a/{{agent}}{path}") for path in _CARDS),
    Row("GET /a2a/stream", READ, shows=True, ticket=True, is_for_one=True, query="taskId={id}"),
    *(row for base in ("/a2a/v1", "/a2a", "/a2a/{agent}") for row in _a2a_rest(base)),
    Row("GET /agent/authenticatedExtendedCard", READ, foreign=200),
]


def _a2a(
    method: str, needs: tuple[str, ...], params: Any, *, old: bool = False, ask: str = "POST /a2a", **more: Any
) -> Row:
    headers = {} if old else _NEW
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    about = 0 if more.get("says") == "" else 503
    return Row(
        ask,
        needs,
        **{"foreign": 200, "says": MISSING_TASK, "about": about, **more},
        headers=headers,
        body=body,
        rpc=method,
    )


_TASK, _CONFIG = {"id": "{id}"}, {"taskId": "{id}", "id": "c"}
_OLD_CONFIG = {"id": "{id}", "pushNotificationConfigId": "c"}
A2A_RPC = [
    _a2a("message/send", BOTH, _A2A_OLD_START, old=True, says=""),
    _a2a("message/stream", BOTH, _A2A_OLD_START, old=True, says=""),
    _a2a("tasks/get", READ, _TASK, old=True, shows=True),
    _a2a("tasks/cancel", BOTH, _TASK, old=True),
    _a2a("tasks/resubscribe", READ, _TASK, old=True, shows=True),
    _a2a("tasks/pushNotificationConfig/set", BOTH, {"taskId": "{id}", "pushNotificationConfig": {"id": "c", **_HOOK}},
         old=True),
    _a2a("tasks/pushNotificationConfig/get", READ, _OLD_CONFIG, old=True, prepare="push"),
    _a2a("tasks/pushNotificationConfig/list", READ, _TASK, old=True, prepare="push"),
    _a2a("tasks/pushNotificationConfig/delete", BOTH, _OLD_CONFIG, old=True, prepare="push"),
    _a2a("agent/getAuthenticatedExtendedCard", READ, {}, old=True, says=""),
    _a2a("SendMessage", BOTH, _A2A_START, says=""),
    _a2a("SendStreamingMessage", BOTH, _A2A_START, says=""),
    _a2a("GetTask", READ, _TASK, shows=True),
    _a2a("ListTasks", READ, {}, shows=True, says=""),
    _a2a("CancelTask", BOTH, _TASK),
    _a2a("SubscribeToTask", READ, _TASK, shows=True),
    _a2a("CreateTaskPushNotificationConfig", BOTH, {"taskId": "{id}", "id": "c", **_HOOK}),
    _a2a("GetTaskPushNotificationConfig", READ, _CONFIG, prepare="push"),
    _a2a("ListTaskPushNotificationConfigs", READ, {"taskId": "{id}"}, prepare="push"),
    _a2a("DeleteTaskPushNotificationConfig", BOTH, _CONFIG, prepare="push"),
    _a2a("GetExtendedAgentCard", READ, {}, says=""),
    *(_a2a("GetTask", READ, _TASK, shows=True, ask=f"POST /a2a/{path}") for path in ("", "{agent}", "{agent}/")),
]  # fmt: skip

# --- MCP -------------------------------------------------------------------------------------------------------------


def _mcp(method: str, needs: tuple[str, ...], params: Any, *, named: str = "", old: bool = False, **more: Any) -> Row:
    about = {META + "protocolVersion": MODERN, META + "clientCapabilities": {"extensions": {META + "tasks": {}}}}
    given = params if old else {**params, "_meta": about}
    modern = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, **({"Mcp-Name": named} if named else {})}
    headers = {"MCP-Protocol-Version": "2025-11-25"} if old else modern
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": given}
    return Row("POST /mcp", needs, **{"foreign": 200, **more}, headers=headers, body=body,
               rpc=f"{method} ({'2025' if old else '2026'})")  # fmt: skip


def _mcp_shared(*, old: bool) -> Sequence[Row]:
    uri = "runcast://executions/{id}"
    missing = {"says": "not found", "about": 503, **({} if old else {"foreign": 400})}
    call = {"name": "run_matrix", "arguments": {"task": "hi"}}
    return [
        _mcp("tools/list", READ, {}, old=old),
        _mcp("resources/list", READ, {}, old=old, shows=True),
        _mcp("resources/templates/list", READ, {}, old=old),
        _mcp("resources/read", READ, {"uri": uri}, named=uri, old=old, shows=True, **missing),
        _mcp("prompts/list", READ, {}, old=old),
        _mcp("prompts/get", READ, {"name": "matrix_1", "arguments": {}}, named="matrix_1", old=old),
        _mcp("completion/complete", READ, {"ref": {"type": "ref/resource", "uri": "runcast://executions/{executionId}"},
             "argument": {"name": "executionId", "value": ""}}, old=old),
        _mcp("tools/call", BOTH, call, named="run_matrix", old=old),
    ]  # fmt: skip


_MISSING = {"foreign": 400, "says": "no such execution", "about": 503}
MCP = [
    public("GET /.well-known/oauth-protected-resource"),
    public("GET /.well-known/oauth-protected-resource/mcp"),
    Row("GET /mcp", READ, 405, foreign=405),
    *_mcp_shared(old=False),
    *_mcp_shared(old=True),
    _mcp("server/discover", READ, {}),
    _mcp("tasks/get", READ, {"taskId": "{id}"}, named="{id}", **_MISSING),
    _mcp("tasks/update", BOTH, {"taskId": "{id}", "inputResponses": {}}, named="{id}", **_MISSING),
    _mcp("tasks/cancel", BOTH, {"taskId": "{id}"}, named="{id}", **_MISSING),
    _mcp("subscriptions/listen", READ, {"notifications": {"taskIds": ["{id}"]}}, shows=True, **_MISSING),
    _mcp("initialize", READ, {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}, old=True),
    _mcp("ping", READ, {}, old=True),
    _mcp("logging/setLevel", READ, {"level": "info"}, old=True),
    _mcp("resources/subscribe", READ, {"uri": "runcast://executions/{id}"}, old=True),
    _mcp("resources/unsubscribe", READ, {"uri": "runcast://executions/{id}"}, old=True),
]

# --- pages and the admin port ----------------------------------------------------------------------------------------

PAGES = [
    public("GET /"),
    public("GET /console/sign-in.json"),
    public("GET /{name}", names={"name": "console/index.html"}),
]
ADMIN_PORT = [public("GET /metrics"), public("GET /healthz"), public("GET /readyz")]

ROWS: Sequence[Row] = [*NATIVE, *WORKERS, *CHATS, *RESPONSES, *A2A, *A2A_RPC, *MCP, *PAGES]
