"""Tuning for a GPU, as far as it goes without one: what is compared, what follows, and that the engine stays as it was."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

import longwave
from longwave.backends.triton import configurations, fir_plan, layouts, shapes
from longwave.bench import gpu_tune
from longwave.bench.stamp import make_stamp
from longwave.bench.timer import WallTimer


def test_every_transform_and_number_of_taps_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int | None, int]] = []
    monkeypatch.setattr(gpu_tune, "_call", lambda *_: lambda: seen.append((configurations.WARPS, fir_plan.MOST_TAPS[False])))
    monkeypatch.setattr(gpu_tune, "alternate", lambda calls, *_, **__: {name: [call() or 1.0] for name, call in calls.items()})
    before = dict(fir_plan.MOST_TAPS)
    rows = list(gpu_tune.measure(WallTimer(), "cpu"))
    fused = [row for row in rows if "4 warps" in row.ms]
    assert {row.what for row in fused} >= {"fused 16·16·16 one", "fused 64·32 gated", "fused 64·32 both"}
    assert len(fused) == len(gpu_tune.KINDS) * sum(
        shapes.fused_shape(s.N, wide) == s for wide in (False, True) for s in shapes.FUSED[wide]
    )
    assert len(rows) - len(fused) == 2 * len(gpu_tune.LENGTHS) * len(gpu_tune.TAPS)
    assert {warps for warps, _ in seen} == {None, 4, 8}
    assert {taps for _, taps in seen} >= {0, *gpu_tune.TAPS}
    assert configurations.WARPS is None
    assert before == fir_plan.MOST_TAPS


def test_the_faster_launches_are_lines_of_the_table() -> None:
    rows = [
        gpu_tune.Row("fused 48·32 one", "bfloat16", {"4 warps": 2.0, "8 warps": 1.5}),
        gpu_tune.Row("fused 48·32 gated", "bfloat16", {"4 warps": 1.0, "8 warps": 1.5}),
        gpu_tune.Row("fused 48·32 both", "bfloat16", {"4 warps": 2.0, "8 warps": 1.5}),
        gpu_tune.Row("fused 16·16·16 one", "bfloat16", {"4 warps": 1.0, "8 warps": 1.5}),  # of which the rest is missing
        gpu_tune.Row("fused 16·16 one", "float32", {"4 warps": 1.0, "8 warps": 1.5}),
        gpu_tune.Row("8 taps of 1,024", "bfloat16", {"sums": 1.0, "transforms": 2.0}),
    ]
    stamp = make_stamp()
    found = eval(f"{{{' '.join(gpu_tune.launches(rows, stamp))}}}", vars(configurations))
    source = stamp.device, stamp.date_utc[:10], "longwave tune --device cuda"
    assert found == {shapes.Shape(48, 32): configurations.Row(8, 4, 8, *source)}


@pytest.mark.parametrize(("kind", "planes", "gates"), [("one", 1, False), ("gated", 1, True), ("both", 2, False)])
def test_what_is_measured_is_what_a_launch_distinguishes(
    kind: str, planes: int, gates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []

    def long_conv(u: torch.Tensor, k: torch.Tensor, backend: str, **around: torch.Tensor) -> torch.Tensor:
        p = longwave.plan(
            u.shape, k.shape, dtype=u.dtype, device="h200", history=around["history"].shape[-1] if "history" in around else 0,
            pregate="pregate" in around, postgate="postgate" in around,
        ).problem  # fmt: skip
        at = layouts.layout(p)
        assert not at.outer
        asked.append((1 + at.source_upper, p.pregate and p.postgate))
        return u * k.sum(-1, keepdim=True)

    monkeypatch.setattr(gpu_tune, "long_conv", long_conv)
    for shape in (shapes.Shape(16, 16, 16), shapes.Shape(64, 32), shapes.Shape(16, 16)):
        gpu_tune._call(shape.N, shape.N, torch.bfloat16, "cpu", 2**12, kind)()
    assert asked == [(planes, gates)] * 3


def test_sums_are_taken_as_far_as_they_are_faster_at_every_length() -> None:
    times = {(8, 1): 1.0, (16, 1): 1.0, (32, 1): 3.0, (64, 1): 1.0, (8, 2): 1.0, (16, 2): 3.0, (32, 2): 3.0}
    rows = [gpu_tune.Row(f"{K} taps of {L}", "bfloat16", {"sums": ms, "transforms": 2.0}) for (K, L), ms in times.items()]
    assert gpu_tune.most_taps(rows, "bfloat16") == 8
    assert gpu_tune.most_taps(rows[:4], "bfloat16") == 16
    assert gpu_tune.most_taps(rows, "float32") == 0


def test_a_call_has_rows_enough_to_fill_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def long_conv(u: torch.Tensor, k: torch.Tensor, backend: str) -> torch.Tensor:
        sizes.append((*u.shape, *k.shape))
        return u * k.sum(-1, keepdim=True)

    monkeypatch.setattr(gpu_tune, "long_conv", long_conv)
    gpu_tune._call(32, 8, torch.float32, "cpu", 2**12)()
    assert sizes == [(16, 8, 32, 8, 8)]
