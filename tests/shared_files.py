"""Finds reference data that is kept beside the project and is not part of it."""

import os
from pathlib import Path

import pytest

_BESIDE_THE_PROJECT = Path(__file__).resolve().parents[2] / "shared"


def shared(name: str) -> Path:
    """Return the file `name` of the reference data, or skip the test that asks for it.

    MOESIM_SHARED says where the data are, if not in `shared` beside the project's root.
    """
    folder = Path(os.environ.get("MOESIM_SHARED") or _BESIDE_THE_PROJECT)
    path = folder / name
    if not path.exists():
        pytest.skip(f"no reference data: {path} is missing (set MOESIM_SHARED to its folder)")
    return path
