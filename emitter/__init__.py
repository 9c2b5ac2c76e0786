"""Runcast's publisher library and worker runtime: agents publish events into the logs of their executions.

Public names are loaded when they are first used: `import emitter.wire` loads neither redis-py nor the worker.
"""

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emitter.budgets import Budget
    from emitter.errors import (
        AppendRefused,
        ChildFailed,
        Declined,
        EmitterClosed,
        EventsLost,
        ExecutionEnded,
        HookFailed,
        InputExpired,
        Interrupted,
        InvalidEvent,
        InvalidSetting,
        PayloadTooLarge,
        QueueFull,
        RedisUnavailable,
        RuncastError,
        Superseded,
        TooManyChildren,
        TooManyInputs,
        TooManyQueued,
        UnknownAgent,
        WrongLoop,
    )
    from emitter.publishing.agent_emitter import AgentEmitter
    from emitter.publishing.children import Child, SyncChild
    from emitter.publishing.hooks import Hook, Origin
    from emitter.publishing.outbox import Options
    from emitter.publishing.publisher import Publisher
    from emitter.publishing.sync_emitter import SyncAgentEmitter
    from emitter.store.append import LogLimits
    from emitter.wire.user_messages import Message
    from emitter.worker.agents import Agents, Context, SyncContext
    from emitter.worker.retries import Fatal, Retry

__all__ = [
    "AgentEmitter",
    "Agents",
    "AppendRefused",
    "Budget",
    "Child",
    "ChildFailed",
    "Context",
    "Declined",
    "EmitterClosed",
    "EventsLost",
    "ExecutionEnded",
    "Fatal",
    "Hook",
    "HookFailed",
    "InputExpired",
    "Interrupted",
    "InvalidEvent",
    "InvalidSetting",
    "LogLimits",
    "Message",
    "Options",
    "Origin",
    "PayloadTooLarge",
    "Publisher",
    "QueueFull",
    "RedisUnavailable",
    "Retry",
    "RuncastError",
    "Superseded",
    "SyncAgentEmitter",
    "SyncChild",
    "SyncContext",
    "TooManyChildren",
    "TooManyInputs",
    "TooManyQueued",
    "UnknownAgent",
    "WrongLoop",
]

_MODULES = {
    "AgentEmitter": "emitter.publishing.agent_emitter",
    "Agents": "emitter.worker.agents",
    "AppendRefused": "emitter.errors",
    "Budget": "emitter.budgets",
    "Child": "emitter.publishing.children",
    "ChildFailed": "emitter.errors",
    "Context": "emitter.worker.agents",
    "EmitterClosed": "emitter.errors",
    "EventsLost": "emitter.errors",
    "ExecutionEnded": "emitter.errors",
    "Fatal": "emitter.worker.retries",
    "Hook": "emitter.publishing.hooks",
    "HookFailed": "emitter.errors",
    "Declined": "emitter.errors",
    "InputExpired": "emitter.errors",
    "Interrupted": "emitter.errors",
    "InvalidEvent": "emitter.errors",
    "InvalidSetting": "emitter.errors",
    "LogLimits": "emitter.store.append",
    "Message": "emitter.wire.user_messages",
    "Options": "emitter.publishing.outbox",
    "Origin": "emitter.publishing.hooks",
    "PayloadTooLarge": "emitter.errors",
    "Publisher": "emitter.publishing.publisher",
    "QueueFull": "emitter.errors",
    "RedisUnavailable": "emitter.errors",
    "Retry": "emitter.worker.retries",
    "RuncastError": "emitter.errors",
    "Superseded": "emitter.errors",
    "SyncAgentEmitter": "emitter.publishing.sync_emitter",
    "SyncChild": "emitter.publishing.children",
    "SyncContext": "emitter.worker.agents",
    "TooManyChildren": "emitter.errors",
    "TooManyInputs": "emitter.errors",
    "TooManyQueued": "emitter.errors",
    "UnknownAgent": "emitter.errors",
    "WrongLoop": "emitter.errors",
}
"""Public name → the module that has it."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _outside_of_workflows():
        module = __import__(_MODULES[name], fromlist=[name])
    value = globals()[name] = getattr(module, name)
    return value


def _outside_of_workflows() -> Any:
    """The file of a Temporal workflow may name what its activities use: the sandbox, which runs such files again, would
    load all of it a second time, and refuse what that needs."""
    temporal = sys.modules.get("temporalio.workflow")
    return temporal.unsafe.imports_passed_through() if temporal else nullcontext()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
