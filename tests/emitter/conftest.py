"""What is collected here: the tests with a real Temporal server only where there is one. And what several files use."""

import gc
from collections.abc import Iterator

import pytest

from tests.emitter.temporal_server import is_wanted

collect_ignore = [] if is_wanted() else ["test_temporal_server.py"]


@pytest.fixture
def garbage_kept() -> Iterator[None]:
    """Temporal's sandbox imports modules for every worker and run, in which CPython 3.11 loses count of its locks if
    garbage is collected meanwhile (gh-106176)."""
    gc.disable()
    yield
    gc.enable()
