"""On a GPU these tests run there; elsewhere Triton's interpreter runs the kernels, which must be so when they are defined."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "ops"))

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        pytest.importorskip("triton")
        from longwave.backends.triton import fir, short  # noqa: F401  (define the kernels)
pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _as_quiet_as_a_gpu() -> Iterator[None]:
    """The interpreter computes in NumPy, which warns of infinities."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture(autouse=True)
def _nan_filled(nan_filled_memory: None) -> None:
    """Every test of the engine runs in memory filled with NaN."""


@pytest.fixture
def device() -> str:
    return DEVICE
