"""The operator's cases serve every backend: their module is found beside the operator's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")
sys.path.append(str(Path(__file__).parents[2] / "ops"))


@pytest.fixture(autouse=True)
def _nan_filled(nan_filled_memory: None) -> None:
    """Every test of the engine runs in memory filled with NaN."""
