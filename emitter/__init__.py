"""Runcast's publisher library and worker runtime: what an agent says becomes events in its execution's log.

What is public is loaded when it is first used: `import emitter.wire` loads neither redis-py nor the worker.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emitter.agents import Agents, Context, SyncContext
    from emitter.emitter import AgentEmitter
    from emitter.errors import (
        AppendRefused,
        EmitterClosed,
        EventsLost,
        ExecutionEnded,
        HookFailed,
        InputExpired,
        InvalidEvent,
        InvalidSetting,
        PayloadTooLarge,
        QueueFull,
        RedisUnavailable,
        RuncastError,
        Superseded,
        TooManyInputs,
        WrongLoop,
    )
    from emitter.hooks import Hook, Origin
    from emitter.lane import Options
    from emitter.log import LogLimits
    from emitter.publisher import Publisher
    from emitter.retries import Fatal, Retry
    from emitter.sync import SyncAgentEmitter

__all__ = [
    "AgentEmitter",
    "Agents",
    "AppendRefused",
    "Context",
    "EmitterClosed",
    "EventsLost",
    "ExecutionEnded",
    "Fatal",
    "Hook",
    "HookFailed",
    "InputExpired",
    "InvalidEvent",
    "InvalidSetting",
    "LogLimits",
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
    "SyncContext",
    "TooManyInputs",
    "WrongLoop",
]

_MODULES = {
    "AgentEmitter": "emitter.emitter",
    "Agents": "emitter.agents",
    "AppendRefused": "emitter.errors",
    "Context": "emitter.agents",
    "EmitterClosed": "emitter.errors",
    "EventsLost": "emitter.errors",
    "ExecutionEnded": "emitter.errors",
    "Fatal": "emitter.retries",
    "Hook": "emitter.hooks",
    "HookFailed": "emitter.errors",
    "InputExpired": "emitter.errors",
    "InvalidEvent": "emitter.errors",
    "InvalidSetting": "emitter.errors",
    "LogLimits": "emitter.log",
    "Options": "emitter.lane",
    "Origin": "emitter.hooks",
    "PayloadTooLarge": "emitter.errors",
    "Publisher": "emitter.publisher",
    "QueueFull": "emitter.errors",
    "RedisUnavailable": "emitter.errors",
    "Retry": "emitter.retries",
    "RuncastError": "emitter.errors",
    "Superseded": "emitter.errors",
    "SyncAgentEmitter": "emitter.sync",
    "SyncContext": "emitter.agents",
    "TooManyInputs": "emitter.errors",
    "WrongLoop": "emitter.errors",
}
"""Public name → the module that has it."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
