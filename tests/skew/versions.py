"""The code of the previous release and of this one."""

from __future__ import annotations

import tarfile
from pathlib import Path

from tests.edges import ROOT

HERE = Path(__file__).parent
PREVIOUS = HERE / "runcast-0.2.0.tar.xz"
CLIENT = "tests/web/client"
"""Where the scripts are that run the browser's client of the code around them."""


def unpacked(folder: Path) -> dict[str, Path]:
    """Where the code of each version is: the old one in `folder`, with today's scripts for its client."""
    with tarfile.open(PREVIOUS) as archive:
        archive.extractall(folder, filter="data")
    (folder / CLIENT).mkdir(parents=True)
    (folder / CLIENT / "follow.mjs").write_bytes((ROOT / CLIENT / "follow.mjs").read_bytes())
    return {"old": folder, "new": ROOT}
