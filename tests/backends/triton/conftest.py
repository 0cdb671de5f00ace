"""On a GPU these tests run there; elsewhere Triton's interpreter runs the kernels, which must be so when they are defined."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import devices
import numpy as np
import pytest
import torch
from bounds import Bounded

sys.path.append(str(Path(__file__).parents[2] / "ops"))

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        pytest.importorskip("triton")
        from longwave.backends.triton import engine, fir, short  # noqa: F401  (define the kernels)
pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreted kernel that reads or writes beside its tensors fails."""
    if DEVICE == "cpu":
        from triton.runtime import interpreter

        bounded, convert = Bounded(interpreter._interpreter), interpreter.GridExecutor._init_args_hst

        def given(executor: Any, arguments: Any, options: Any) -> Any:
            found = convert(executor, arguments, options)
            bounded.give((*found[0], *found[1].values()))
            return found

        monkeypatch.setattr(interpreter, "_interpreter", bounded)
        monkeypatch.setattr(interpreter.GridExecutor, "_init_args_hst", given)


@pytest.fixture(autouse=True)
def _where_the_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "DEVICE", DEVICE)


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


def _forget() -> None:
    from longwave import ring
    from longwave.backends.triton import layouts, plans, shapes, windows

    for cached in (ring.place, layouts.layout, plans.plan, shapes.fused_shape, shapes.split_shape, windows.length):
        cached.cache_clear()


@pytest.fixture
def by_transforms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few taps are transformed like many."""
    from longwave.backends.triton import fir_plan

    monkeypatch.setattr(fir_plan, "MOST_TAPS", {False: 0, True: 0})
    monkeypatch.setattr(fir_plan, "FEW_SAMPLES", 0)
    _forget()
    yield
    monkeypatch.undo()
    _forget()


@pytest.fixture
def short_shapes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Long transforms as splits of short ones, for the interpreter is slow."""
    from longwave.backends.triton import shapes

    for wide in (False, True):
        monkeypatch.setitem(shapes.FUSED, wide, ())
        monkeypatch.setitem(shapes.BOTH, wide, ())
        monkeypatch.setitem(shapes.INNER, wide, (shapes.Shape(16, 16),))
        monkeypatch.setitem(shapes.WINDOWS, wide, ())
    _forget()
    yield
    monkeypatch.undo()
    _forget()


@pytest.fixture
def in_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Filters shorter than their signals always go in windows, of 256 or 512 points."""
    from longwave.backends.triton import shapes, windows

    for wide in (False, True):
        monkeypatch.setitem(shapes.WINDOWS, wide, (shapes.Shape(16, 16), shapes.Shape(32, 16)))
    monkeypatch.setattr(windows, "GAIN", 1e9)
    _forget()
    yield
    monkeypatch.undo()
    _forget()


class _Idle:
    def __init__(self, grids: list[tuple[int, ...]]) -> None:
        self.grids = grids

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *_, **__: self.grids.append(grid)


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """No kernel runs: the grids that they would have been launched with. So nothing is garbled, either."""
    from longwave.backends import triton
    from longwave.backends.triton import fir_kernels, fused, split

    monkeypatch.setattr(triton, "_garbled", lambda problem: None)
    found: list[tuple[int, ...]] = []
    for module, names in (
        (fused, "convolve analyse correlate synthesise add_products round_spectra skip_gradient add_up"),
        (split, "outer_forward outer_backward row_energies row_powers_of_energies convolve_in_l2"),
        (fir_kernels, "fir_kernel fir_sums_kernel fir_gather_kernel"),
    ):
        for name in names.split():
            monkeypatch.setattr(module, name, _Idle(found))
    return found
