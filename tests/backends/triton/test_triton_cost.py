"""The model of a GPU that is not here: its arithmetic by hand, and that it needs neither Triton nor CUDA."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import longwave
from longwave.backends.triton import cost
from longwave.backends.triton.cost import PARTS, Stage, Transform
from longwave.errors import ArgumentError, UnsupportedError
from longwave.planner import Plan

H200 = PARTS["h200"]


def _plan(L: int, K: int | None = None, *, B: int = 64, H: int = 768, **options: object) -> Plan:
    given = {"dtype": torch.bfloat16, "device": "h200", **options}
    return longwave.plan((B, H, L), (H, L if K is None else K), **given)  # type: ignore[arg-type]


def test_a_stage_takes_its_arithmetic_and_its_traffic() -> None:
    assert cost.seconds([Stage("a", 16, 989.4e12, "tensor16")], H200) == pytest.approx(1)
    assert cost.seconds([Stage("a", 0, 0, "float32", memory=4.8e12, l2=8.99e12)], H200) == pytest.approx(2)
    assert cost.seconds([Stage("a", 0, 66.9e12, "float32"), Stage("b", 16, 494.7e12, "tf32")], H200) == pytest.approx(2)


def test_work_and_traffic_of_4096_samples_by_hand() -> None:
    """N·(8·N1 + 16·(N2 + N3)) flop a row in tensor cores, and every sample moved once each way."""
    p = _plan(4096)
    found = cost.stages(p.problem, Transform((), (16, 16, 16)))
    rows, N = 64 * 768, 4096
    dots = [s for s in found if s.unit == "tensor16" and not s.name.startswith("filters")]
    assert sum(s.flop for s in dots) == rows * N * (8 * 16 + 16 * (16 + 16))
    moved = [s.memory for s in found if s.name in ("read", "write")]
    assert moved == [rows * N * 2 + 768 * N * 4, rows * N * 2]
    assert p.N == N
    assert p.predicted_ms is not None
    assert p.predicted_ms == pytest.approx(1e3 * cost.seconds(found, H200))
    assert p.predicted_ms > 1e3 * sum(moved) / 4.8e12


def test_filters_are_transformed_in_float32_and_read_by_every_row() -> None:
    p = _plan(4096)
    found = {s.name: s for s in cost.stages(p.problem, Transform((), (16, 32)))}
    assert found["filters: DFT"].unit == "tf32"
    (kept,) = (s for s in cost.stages(p.problem, Transform((), (16, 16, 16))) if s.name == "filters: spectra")
    assert kept.memory == 2 * 768 * 4096 * 2 * (4 + 2)
    assert kept.l2 == 64 * 768 * 4096 * 2 * 2


@pytest.mark.parametrize(
    ("L", "K", "options"),
    [
        (4096, 4096, {}),
        (4096, 4096, {"mode": "full"}),
        (4096, 4096, {"history": 4096}),
        (4096, 4096, {"mode": "circular"}),
        (16_384, 16_384, {"mode": "full"}),
        (2**20, 1000, {"B": 1}),
        (2**20, 2**20, {"B": 1, "history": 2**20}),
    ],
)
def test_a_plan_states_the_work_that_its_model_counts(L: int, K: int, options: dict[str, object]) -> None:
    """Of which more where samples stand in both planes of the ring."""
    p = _plan(L, K, **options)  # type: ignore[arg-type]
    products = {"tensor16": 1, "tf32": 1 / cost.TF32_PRODUCTS, "float32": 0}
    dots = [products[s.unit] * s.flop for s in cost.stages(p.problem, cost.transform_of(p.problem))]
    assert sum(dots) == pytest.approx(p.flop, rel=1e-12)
    if "history" in options:
        assert p.flop > 1.03 * _plan(L, K, **(options | {"history": 0})).flop  # type: ignore[arg-type]
        assert (p.predicted_ms or 0) > (_plan(L, K, **(options | {"history": 0})).predicted_ms or 0)  # type: ignore[arg-type]


def test_plans_of_many_kinds() -> None:
    assert _plan(4096).algorithm.startswith("fused")
    assert _plan(2**20, B=1).algorithm.startswith("split")
    assert _plan(4096, 16).algorithm.startswith("direct")
    assert "windows" in _plan(2**20, 1000, B=1).algorithm
    assert (_plan(2**20, 1000, B=1).predicted_ms or 0) < (_plan(2**20, B=1).predicted_ms or 0)
    assert _plan(2**20, 1000, B=1, mode="circular").algorithm.startswith("split")
    assert "not measured" in str(_plan(4096))
    times = [_plan(L).predicted_ms or 0 for L in (256, 1024, 4096, 16_384, 65_536, 2**20)]
    assert times == sorted(times)
    assert (_plan(4096, dtype=torch.float32).predicted_ms or 0) > 2 * (_plan(4096).predicted_ms or 0)
    assert (_plan(4096, pregate=True, postgate=True).predicted_ms or 0) > (_plan(4096).predicted_ms or 0)
    slow, fast = _plan(4096, device="a100").predicted_ms or 0, _plan(4096).predicted_ms or 0
    assert 2 < slow / fast < 4


def test_documents_and_masks_are_the_convolutions_that_they_take() -> None:
    """Each document transforms the filters anew; a mask's filters are projected by a convolution of their own."""
    alone, packed = _plan(4096, B=1), _plan(8192, 4096, B=1, cu_seqlens=[0, 4096, 8192])
    assert packed.predicted_ms == pytest.approx(2 * (alone.predicted_ms or 0))
    assert len(packed.why) == len(alone.why)
    assert (_plan(4096, 4096, B=1, cu_seqlens=[0, 5, 4096]).predicted_ms or 0) > (alone.predicted_ms or 0)
    mask = longwave.FrequencyMask.lowpass(0.5, leaks_future=True)
    assert (_plan(4096, B=1, frequency_mask=mask).predicted_ms or 0) > (_plan(4096, 8191, B=1, mode="same").predicted_ms or 0)


def test_what_has_no_model_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no cost model of float64"):
        _plan(4096, dtype=torch.float64, filter_dtype=torch.float64)
    with pytest.raises(ArgumentError, match="is a model of backend='triton', not of 'cpu'"):
        _plan(4096, backend="cpu")
    with pytest.raises(UnsupportedError, match="of which device='h200' is a model, cannot run this call: it transforms up to"):
        _plan(2**31, B=1, H=1)
    with pytest.raises(ArgumentError, match="device='v100' is unknown; choose one of 'cpu', 'cuda', 'h200'"):
        _plan(4096, device="v100")


def test_it_needs_no_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None; from longwave.cli import main; "
        "sys.exit(main(['plan', '--device', 'h200', '-L', '65536', '--dtype', 'float16']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "predicted" in done.stdout
    assert "DFT through memory" in done.stdout
