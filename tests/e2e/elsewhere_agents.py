"""A worker without agents: it only starts those of others by the clock."""

from __future__ import annotations

from emitter import Agents

agents = Agents()
agents.schedule("elsewhere", agent="scheduled", user_id="ops", task="Report", params={"n": 1}, every=1, elsewhere=True)
