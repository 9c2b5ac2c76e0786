"""What comes and goes leaves nothing: the benches of it, in short."""

from __future__ import annotations

import asyncio
import shutil
import sys

import pytest

from tests.edges import ROOT

pytestmark = [pytest.mark.abuse_long, pytest.mark.timeout(600)]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("name", ["churn", "attempts", "day"])
async def test_nothing_is_left(name: str) -> None:
    """An edge after rounds of viewers, a worker after many executions, and a page after many events are as large as
    they were near the beginning: within 10 %."""
    command = [sys.executable, ROOT / "tests" / "bench" / "run.py", "--quick", name]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(540):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, told.decode()
