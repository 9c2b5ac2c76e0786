"""Runcast's publisher library and worker runtime: what an agent says becomes events in its execution's log."""

from emitter.agents import Agents, Context, SyncContext
from emitter.emitter import AgentEmitter
from emitter.errors import (
    AppendRefused,
    EventsLost,
    ExecutionEnded,
    InputExpired,
    InvalidEvent,
    PayloadTooLarge,
    QueueFull,
    RedisUnavailable,
    RuncastError,
    Superseded,
)
from emitter.publisher import LogLimits, Options, Publisher
from emitter.sync import SyncAgentEmitter

__all__ = [
    "AgentEmitter",
    "Agents",
    "AppendRefused",
    "Context",
    "EventsLost",
    "ExecutionEnded",
    "InputExpired",
    "InvalidEvent",
    "LogLimits",
    "Options",
    "PayloadTooLarge",
    "Publisher",
    "QueueFull",
    "RedisUnavailable",
    "RuncastError",
    "Superseded",
    "SyncAgentEmitter",
    "SyncContext",
]
