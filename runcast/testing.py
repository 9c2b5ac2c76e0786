"""The public names of `emitter.testing`."""

from emitter.testing import *  # noqa: F403
