from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _nan_filled(nan_filled_memory: None) -> None:
    """Every test of an operator runs in memory filled with NaN."""
