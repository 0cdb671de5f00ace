"""The operator's cases serve every backend: their module is found beside the operator's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("numba")
from longwave.backends.cpu import direct, engine, ring, tables

sys.path.append(str(Path(__file__).parents[2] / "ops"))


@pytest.fixture(autouse=True)
def _nan_filled(nan_filled_memory: None) -> None:
    """Every test of the engine runs in memory filled with NaN."""


@pytest.fixture
def by_six_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Transforms of any length go by six steps, which are otherwise for long rows."""
    monkeypatch.setattr(tables, "SIX_STEP_FROM", 1)
    monkeypatch.setattr(engine, "WINDOWS_GAIN", 0.0)
    monkeypatch.setattr(direct, "MOST_TAPS", ((0, 0),))
    _forget_plans()
    yield
    monkeypatch.undo()
    _forget_plans()


@pytest.fixture
def by_transforms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few taps are transformed like many."""
    monkeypatch.setattr(direct, "MOST_TAPS", ((0, 0),))
    _forget_plans()
    yield
    monkeypatch.undo()
    _forget_plans()


@pytest.fixture
def by_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Filters that are shorter than their signal go in windows, however short those are."""
    monkeypatch.setattr(engine, "WINDOWS_GAIN", 1e9)
    monkeypatch.setattr(engine, "SHORTEST_WINDOW", 1)
    monkeypatch.setattr(engine, "LONGEST_WINDOW", 64)
    monkeypatch.setattr(direct, "MOST_TAPS", ((0, 0),))
    _forget_plans()
    yield
    monkeypatch.undo()
    _forget_plans()


@pytest.fixture
def whole_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every thread takes rows of its own, and their matrices may be of any size."""
    monkeypatch.setattr(engine, "WHOLE_ROWS_BYTES", 2**40)
    _forget_plans()
    yield
    monkeypatch.undo()
    _forget_plans()


def _forget_plans() -> None:
    for module in (engine, ring, tables):
        for kept in vars(module).values():
            if hasattr(kept, "cache_clear"):
                kept.cache_clear()
