"""The public names of `emitter.integrations.langgraph`."""

from emitter.integrations.langgraph import *  # noqa: F403
