"""Agents that do real work on real input, without any key: `runcast demo` runs them, and they show how agents are made.

They read whatever directory their task names, with the rights of the worker: run them where that is meant.
"""

from __future__ import annotations

from emitter.agents import Agents
from emitter.demo.analyst import INPUT_SCHEMA, survey_code

__all__ = ["agents"]

agents = Agents()
agents.agent(
    "analyst",
    "Surveys the code in a directory and writes a report on it",
    tags=("demo", "code"),
    input_schema=INPUT_SCHEMA,
)(survey_code)
