"""The public names of `emitter.errors`."""

from emitter.errors import *  # noqa: F403
