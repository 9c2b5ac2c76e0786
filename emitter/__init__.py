"""Runcast's publisher library and worker runtime: what an agent says becomes events in its execution's log."""

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
