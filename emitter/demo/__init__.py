"""Agents that do real work on real input, without any key: `runcast demo` runs them, and they show how agents are made.

They read whatever directory their task names, with the rights of the worker: run them where that is meant. `analyst.py`
and `panel.py` are the agents; the other modules read, measure and report.
Does not belong here: anything that the library needs. May import: `emitter` as an application does.
"""

from __future__ import annotations

from emitter.demo import analyst, panel
from emitter.worker.agents import Agents

__all__ = ["agents"]

agents = Agents()
agents.agent(
    "analyst",
    "Surveys the code in a directory and writes a report on it",
    tags=("demo", "code"),
    input_schema=analyst.INPUT_SCHEMA,
)(analyst.survey_code)
agents.agent(
    "panel",
    "Asks several specialists about the code in a directory at the same time, and puts together what they say",
    tags=("demo", "code", "multi-agent"),
    input_schema=panel.INPUT_SCHEMA,
)(panel.consult_panel)
