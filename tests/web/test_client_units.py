from __future__ import annotations

import pytest

from tests.web.browser import NODE
from tests.web.client.viewers import node


@pytest.mark.skipif(NODE is None, reason="needs node")
async def test_units() -> None:
    """What the client's parts promise, each in units.test.mjs."""
    assert "# fail 0" in await node("--test", "--test-reporter=tap", "units.test.mjs")
