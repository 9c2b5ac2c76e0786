"""Runcast's publisher library and worker runtime: what an agent says becomes events in its execution's log."""

from emitter.agents import Agents, Context, SyncContext
from emitter.emitter import AgentEmitter
from emitter.errors import (
    AppendRefused,
    EmitterClosed,
    EventsLost,
    ExecutionEnded,
    InputExpired,
    InvalidEvent,
    InvalidSetting,
    PayloadTooLarge,
    QueueFull,
    RedisUnavailable,
    RuncastError,
    Superseded,
)
from emitter.lane import Options
from emitter.log import LogLimits
from emitter.publisher import Publisher
from emitter.sync import SyncAgentEmitter

__all__ = [
    "AgentEmitter",
    "Agents",
    "AppendRefused",
    "Context",
    "EmitterClosed",
    "EventsLost",
    "ExecutionEnded",
    "InputExpired",
    "InvalidEvent",
    "InvalidSetting",
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
