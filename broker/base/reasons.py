"""Why things end or are refused, and how they turn out: the closed sets behind metric labels and log fields."""

from __future__ import annotations

from enum import StrEnum


class CloseReason(StrEnum):
    """Why a stream ended: metric label, log field and the `reason` of `stream:end`."""

    FINISHED = "finished"
    """The execution has its terminal event."""
    GONE = "gone"
    """The viewer left."""
    SLOW = "slow"
    """The viewer took nothing for the write timeout."""
    EXPIRED = "expired"
    """The token's time is over."""
    REVOKED = "revoked"
    """The token or its user was revoked."""
    AGED = "aged"
    """The stream reached its age limit; the viewer resumes elsewhere."""
    DRAINING = "draining"
    """The edge is stopping; the viewer resumes elsewhere."""
    REFUSED = "refused"
    """The edge takes no such stream just now."""
    REPLACED = "replaced"
    """The stream's ticket opened another one."""
    LOST_REDIS = "lost_redis"
    """The log could not be read for too long."""
    FAILED = "failed"
    """An event could not be shown, which is a fault of ours. The viewer may resume, after a while."""


class StreamProtocol(StrEnum):
    """How a viewer is spoken to."""

    NATIVE = "native"
    FEED = "feed"
    OPS = "ops"
    AI_SDK = "ai_sdk"
    A2A = "a2a"
    AG_UI = "ag_ui"
    MCP = "mcp"
    DURABLE_STREAMS = "durable_streams"
    RESPONSES = "responses"


class RejectReason(StrEnum):
    """Why a request was turned away before it did anything."""

    CAPACITY = "capacity"
    SOCKETS = "sockets"
    USER_CONNECTIONS = "user_connections"
    EXECUTE_RATE = "execute_rate"
    CONNECT_RATE = "connect_rate"
    PUBLISH_RATE = "publish_rate"
    READ_RATE = "read_rate"
    ANSWER_RATE = "answer_rate"
    CANCEL_RATE = "cancel_rate"
    TICKET_RATE = "ticket_rate"
    REQUESTS = "requests"
    """Too many requests of one user at once."""
    DRAINING = "draining"
    REDIS = "redis"


class AuthFailure(StrEnum):
    """Why a caller was not believed or not allowed."""

    MISSING = "missing"
    INVALID = "invalid"
    EXPIRED = "expired"
    REVOKED = "revoked"
    TICKET = "ticket"
    SHARE = "share"
    ORIGIN = "origin"
    SCOPE = "scope"


class ReplayResult(StrEnum):
    """What a resume found: the log goes on at the cursor, a part was trimmed away, or it is another history."""

    OK = "ok"
    GAP = "gap"
    RESET = "reset"


class HistorySource(StrEnum):
    """Who answered a history read: Redis, the recent frames in memory, or another viewer's read in flight."""

    REDIS = "redis"
    TAIL = "tail"
    SHARED = "shared"


class ResetReason(StrEnum):
    """Why history could not be had: the `reason` of `stream:reset`."""

    TRIMMED = "trimmed"
    DIVERGED = "diverged"
    UNKNOWN = "unknown"


class PublishResult(StrEnum):
    """How a publish over HTTP ended."""

    OK = "ok"
    REPEATED = "repeated"
    INVALID = "invalid"
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    ERROR = "error"


class BudgetLimit(StrEnum):
    """A limit of a budget."""

    TOTAL_TOKENS = "totalTokens"
    COST_USD = "costUsd"
    TOOL_CALLS = "toolCalls"
    SECONDS = "seconds"


class ExecuteResult(StrEnum):
    """How a request to execute ended."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    INVALID = "invalid"
    UNKNOWN_AGENT = "unknown_agent"
    REFUSED = "refused"
    ERROR = "error"


class WebhookResult(StrEnum):
    """What became of an event for a webhook. `retried`: a try that was not taken; `failed`: its receiver was given up;
    `gone`: it wants no more; `lost`: a log was trimmed before all of it was read."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    FAILED = "failed"
    GONE = "gone"
    LOST = "lost"


class JobStep(StrEnum):
    """What became of a job of a worker over HTTP."""

    CLAIMED = "claimed"
    REPEATED = "repeated"
    """The answer to its claim was lost, and the worker asked again."""
    ENDED = "ended"
    """The worker published its end."""
    RELEASED = "released"
    RETRYING = "retrying"
    FAILED = "failed"
    """The worker gave it back for a failure, and no attempt was left."""
    LOST = "lost"
    """The worker renewed it, or gave it back, when it had it no longer."""
    CUT = "cut"
    """An edge has ended it, as it was over a limit or did not follow a cancel."""


class RedisOp(StrEnum):
    """What a Redis round trip was for."""

    APPEND = "append"
    HISTORY = "history"
    RECORD = "record"
    TAILS = "tails"
    ADMISSION = "admission"
