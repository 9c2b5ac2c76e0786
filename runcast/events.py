"""The public names of `emitter.events`."""

from emitter.events import *  # noqa: F403
