"""The public names of `emitter.integrations.models`."""

from emitter.integrations.models import *  # noqa: F403
