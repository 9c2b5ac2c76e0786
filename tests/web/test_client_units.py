from __future__ import annotations

import pytest

from tests.web.browser import NODE
from tests.web.client.viewers import node


@pytest.mark.skipif(NODE is None, reason="needs node")
@pytest.mark.parametrize("name", ["units", "faults"])
async def test_units(name: str) -> None:
    """units.test.mjs: the parts of the client; faults.test.mjs: the client with faulty edges."""
    assert "# fail 0" in await node("--test", "--test-reporter=tap", f"{name}.test.mjs")
