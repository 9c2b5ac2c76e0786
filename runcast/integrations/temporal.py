"""The public names of `emitter.integrations.temporal`."""

from emitter.integrations.temporal import *  # noqa: F403
