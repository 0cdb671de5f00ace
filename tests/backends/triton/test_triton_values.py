"""Values and gradients of the engine against direct sums, in every regime."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from arguments import Case, compare

from longwave.backends.triton import blocks, configurations, launches, shapes
from longwave.masks import FrequencyMask

HALF = FrequencyMask.lowpass(0.5, leaks_future=True)
pytestmark = pytest.mark.usefixtures("by_transforms")

F16, F32 = torch.float16, torch.float32
ALL: dict[str, Any] = {"D": True, "pregate": True, "postgate": True}

FUSED = [
    *[Case(mode=m, H=3, L=29, K=60, **ALL) for m in ("causal", "circular", "same", "full")],
    Case(mode="circular", H=2, L=29, K=9),
    Case(mode="same", H=2, L=29, K=8, dtype=F16),
    *[Case(mode=m, H=2, L=29, K=K, K_rev=R) for m in ("causal", "circular") for K, R in ((29, 29), (5, 70))],
    *[Case(L=20, H=2, K=K, P=P, **ALL) for K, P in ((7, 33), (64, 20))],
    Case(L=20, H=2, K=12, P=9, K_rev=6, history_dtype=F32, dtype=F16, filter_dtype=F32, **ALL),
    *[
        Case(mode=m, H=4, filters=f, L=17, K=11, **ALL)
        for m, f in (("causal", "shared"), ("full", "group"), ("causal", "sample"))
    ],
    Case(layout="BLH", H=5, L=19, K=8, D=True, postgate=True),
    *[Case(layout="BLH", H=3, strides=s, L=19, K=19, P=4, **ALL) for s in ("cut", "any")],
    *[Case(strides=s, H=2, L=19, K=19, P=4, **ALL) for s in ("expanded", "reversed_axes", "any")],
    Case(batched=False, H=2, layout="BLH", L=19, K=19, P=4, **ALL),
    *[Case(frozen=f, H=2, L=12, K=12, P=3, **ALL) for f in (("u",), ("k", "D"), ("u", "pregate", "history"))],
    Case(H=1, B=6, L=50, K=50, pregate=True),  # samples side by side in a tile
    Case(H=1, B=18, L=10, K=10, D=True, dtype=F32),  # two chains of products
    Case(L=1, H=2, K=1, **ALL),
    Case(L=20, H=2, K=12, mode="full", K_rev=0, precision="high", dtype=F16, D=True),
    Case(B=1, H=1, L=700, K=700, D=True, dtype=F32),  # blocks of frequencies, one row a tile
    Case(B=1, H=2, L=301, K=301, P=150, K_rev=33, dtype=F16, **ALL),
    Case(B=1, H=1, L=600, K=600, P=600, dtype=F32),  # both planes, in another shape than one
    Case(B=1, H=1, L=1030, K=1030, mode="full", dtype=F16, D=True),
    *[Case(mode=m, B=1, H=3, L=40, K=15, documents=(0, 1, 2, 17, 17, 40), **ALL) for m in ("causal", "circular", "same")],
    Case(B=1, H=3, L=40, K=15, documents=(0, 9, 40), P=11, K_rev=5, **ALL),
    Case(B=1, H=2, L=24, K=24, mask=HALF, D=True),
    Case(B=1, H=2, L=24, K=24, mode="circular", mask=FrequencyMask.lowpass(0.5), postgate=True),
]


def _typed(case: Case, dtype: torch.dtype) -> Case:
    return replace(case, dtype=dtype) if case.dtype == torch.float64 else case


@pytest.mark.parametrize("case", [_typed(c, (F32, F16)[i % 2]) for i, c in enumerate(FUSED)], ids=str)
def test_value_and_gradients_equal_the_direct_sum(case: Case, device: str) -> None:
    compare(case, "triton", device)


SPLIT = [
    Case(H=1, B=1, L=500, K=500, dtype=F32, **ALL),
    Case(H=2, B=1, L=600, K=600, P=30, dtype=F16, **ALL),
    Case(H=2, B=1, L=300, K=200, mode="circular", filters="group", dtype=F32),
    Case(H=1, B=2, L=290, K=200, mode="same", filters="sample", layout="BLH", dtype=F32, D=True),
    Case(H=1, B=1, L=280, K=20, K_rev=280, dtype=F16),
]


@pytest.mark.parametrize("case", SPLIT, ids=str)
@pytest.mark.usefixtures("short_shapes")
def test_value_and_gradients_of_split_rows(case: Case, device: str) -> None:
    compare(case, "triton", device)


@pytest.mark.parametrize(("filters", "B", "H"), [("sample", 2, 1), ("group", 1, 4)])
@pytest.mark.usefixtures("short_shapes")
def test_value_and_gradients_of_split_rows_one_at_a_time(
    filters: str, B: int, H: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row in a block of its own: filters are found, and their gradients added up, wherever a block begins."""
    monkeypatch.setattr(blocks, "SCRATCH_BYTES", 1)
    compare(Case(H=H, B=B, L=270, K=260, filters=filters, dtype=F32), "triton", device)


WINDOWS = [
    Case(H=2, B=1, L=1500, K=20, dtype=F32),
    Case(H=1, B=2, L=1300, K=60, P=30, dtype=F16, **ALL),
    Case(H=2, B=1, L=1300, K=30, mode="full", dtype=F32, **ALL),
    Case(H=1, B=2, L=1300, K=200, mode="same", filters="sample", layout="BLH", dtype=F32, **ALL),
    Case(H=1, B=1, L=1300, K=20, K_rev=40, P=700, dtype=F32, strides="cut", **ALL),
]


@pytest.mark.parametrize("case", WINDOWS, ids=str)
@pytest.mark.usefixtures("in_windows")
def test_value_and_gradients_in_windows(case: Case, device: str) -> None:
    compare(case, "triton", device)


@pytest.mark.usefixtures("in_windows")
def test_filters_gradients_of_samples_wait_in_parts(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The products of one channel at a time are added to the sums of two."""
    L, K, N, B = 16_500, 20, 256, 2
    monkeypatch.setattr(blocks, "SCRATCH_BYTES", 2 * 16 * N * B)
    compare(Case(H=2, B=B, L=L, K=K, filters="sample", dtype=F32, frozen=("u",)), "triton", device)


@pytest.mark.usefixtures("short_shapes")
def test_value_and_gradients_through_the_second_level_cache(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arithmetic: no interpreter shows a missing barrier. One program takes both rows."""
    monkeypatch.setitem(shapes.INNER, True, (shapes.Shape(48, 16),))
    monkeypatch.setitem(configurations.PASSED, "fused_l2", "this test")
    monkeypatch.setattr(launches, "L2_PROGRAMS", 1)
    ran: list[str] = []
    in_l2 = launches.Transform.in_l2
    monkeypatch.setattr(launches.Transform, "in_l2", lambda *a: (ran.append("fused_l2"), in_l2(*a))[1])
    compare(Case(H=2, B=1, L=1000, K=80, dtype=F32, pregate=True, D=True, frozen=("k", "D")), "triton", device)
    assert ran
