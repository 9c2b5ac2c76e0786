"""The agents of `docs/examples`, for one worker."""

import asyncio_agents
import control_agents
import openai_agents
import sync_agents

from emitter import Agents

agents = Agents()
for module in (asyncio_agents, control_agents, openai_agents, sync_agents):
    for agent in module.agents:
        agents.add(agent)
