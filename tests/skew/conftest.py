from __future__ import annotations

from pathlib import Path

import pytest
from versions import unpacked


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the code of each version is."""
    return unpacked(tmp_path_factory.mktemp("previous"))
