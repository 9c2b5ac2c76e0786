"""The version of the installed distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version


def version() -> str:
    try:
        return distribution_version("runcast")
    except PackageNotFoundError:
        return "0"
