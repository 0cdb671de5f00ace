"""Tuning for a GPU, as far as it goes without one: what is compared, what follows, and that the engine stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from terminal import typed

pytest.importorskip("triton")
if torch.cuda.is_available():
    pytest.skip("a stand-in for a GPU is tuned", allow_module_level=True)

import longwave
from longwave.backends import triton
from longwave.backends.triton import fir_kernels, fir_plan, fused, launch_table, layouts, shapes, split
from longwave.backends.triton.launch_table import Key, Launch
from longwave.bench import gpu_tune
from longwave.bench.gpu_tune import Measured
from longwave.bench.stamp import make_stamp
from longwave.bench.timer import WallTimer

BF16, F32 = torch.bfloat16, torch.float32
GPU = "A GPU of this test"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    _forget()
    yield
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    for cached in (launch_table._own, launch_table._packaged, launch_table._table):
        cached.cache_clear()


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of the CPU are those of a GPU to the table."""
    monkeypatch.setattr(launch_table, "name_of", lambda device: GPU if device is not None else "")


class _Kernel:
    """Takes as long as it is told to, by its launches; which they were."""

    def __init__(self, seconds: Callable[[Launch], float] = lambda launch: 0.0) -> None:
        self.seconds, self.launched, self.clock = seconds, list[Launch](), 0.0

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*_: Any, num_warps: int, num_stages: int, **__: Any) -> None:
            self.launched.append(Launch(num_warps, num_stages))
            self.clock += self.seconds(self.launched[-1])

        return launch


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> _Kernel:
    """What stands for every kernel."""
    kernel = _Kernel()
    monkeypatch.setattr(triton, "_garbled", lambda problem: None)
    for module, names in (
        (fused, "convolve analyse correlate synthesise add_products round_spectra skip_gradient add_up"),
        (split, "outer_forward outer_backward row_energies row_powers_of_energies"),
        (fir_kernels, "fir_kernel fir_sums_kernel fir_gather_kernel"),
    ):
        for name in names.split():
            monkeypatch.setattr(module, name, kernel)
    return kernel


@pytest.mark.usefixtures("on_a_gpu", "idle")
def test_what_was_measured_is_what_the_next_call_launches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From `longwave tune --device cuda` on a clock that only kernels move to a call, and back with --reset."""
    kernel = _Kernel(lambda launch: 1.0 / launch.num_warps if launch.num_warps < 8 else 3.0)
    monkeypatch.setattr(fused, "convolve", kernel)
    monkeypatch.setattr("longwave.bench.timer.timer_for", lambda device: WallTimer(clock=lambda: kernel.clock))
    monkeypatch.setattr("longwave.bench.stamp.make_stamp", lambda device: make_stamp())
    monkeypatch.setattr(gpu_tune, "sums", lambda *_: iter(()))
    monkeypatch.setattr(gpu_tune, "DTYPES", ())
    monkeypatch.setattr(launch_table, "able", lambda started, way: lambda: started(way))
    u, k = torch.randn(1, 2, 100), torch.randn(2, 100)

    def call() -> Launch:
        longwave.long_conv(u, k, backend="triton")
        return kernel.launched[-1]

    monkeypatch.setattr(gpu_tune, "_calls", lambda *_: iter((call,)))
    monkeypatch.setattr(gpu_tune, "CHOICES", {**gpu_tune.CHOICES, "analyse": (Launch(2),)})
    assert call() == Launch(8)
    status, out, _ = typed(capsys, "tune", "--device", "cpu:0")
    assert status == 0
    assert "convolve 16·16 float32" in out
    assert call() == Launch(4)
    row = launch_table.rows_of(GPU)[Key.of("convolve", F32, shapes.Shape(16, 16))]
    assert (row.device, row.date, row.command) == (GPU, make_stamp().date_utc[:10], "longwave tune --device cuda")
    # Rows of one GPU are not another's.
    assert launch_table.rows_of("Another GPU")[Key.of("convolve", F32)].launch == Launch(8)
    assert Key.of("convolve", F32, shapes.Shape(16, 16)) not in launch_table.rows_of("Another GPU")
    assert typed(capsys, "tune", "--device", "cuda", "--reset")[0] == 0
    _forget()
    assert call() == Launch(8)


def test_every_kernel_that_calls_launch_is_measured_once(idle: _Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every transform in registers of every kind, windows, split rows and sums; what fails is passed over."""
    monkeypatch.setattr(launch_table, "able", lambda started, way: None if way == Launch(4) else lambda: started(way))
    monkeypatch.setattr(gpu_tune, "alternate", lambda calls, *_, **__: {name: [call() or 1.0] for name, call in calls.items()})
    monkeypatch.setattr(gpu_tune, "LONGER", [(L, K) for L, K in gpu_tune.LONGER if L <= 2**18])
    found = list(gpu_tune.launches(WallTimer(), make_stamp(), "cpu", 2**12))
    keys = [row.key for row, _ in found]
    assert len(keys) == len(set(keys))
    assert {key.kernel for key in keys} == gpu_tune.CHOICES.keys() - {"convolve_in_l2"}  # of which a GPU has to have passed one
    for dtype in (torch.float16, BF16, F32):
        wide = dtype == F32
        for shape in shapes.used(wide):
            assert {Key.of("convolve", dtype, shape), Key.of("convolve", dtype, shape, 1, True)} <= set(keys)
        assert {Key.of("convolve", dtype, shape, 2) for shape in shapes.used(wide, 2)} <= set(keys)
    assert {key.planes for key in keys} == {1, 2}
    assert all(row.launch != Launch(4) and str(row.launch) in measured.ms for row, measured in found)
    assert set(idle.launched) >= {Launch(8), Launch(2), Launch(8, 2)}


@pytest.mark.parametrize(("kind", "planes", "gates"), [("one", 1, False), ("gated", 1, True), ("both", 2, False)])
def test_what_is_measured_is_what_a_launch_distinguishes(
    kind: str, planes: int, gates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []

    def long_conv(u: torch.Tensor, k: torch.Tensor, D: torch.Tensor, backend: str, **around: torch.Tensor) -> torch.Tensor:
        p = longwave.plan(
            u.shape, k.shape, dtype=u.dtype, device="h200", history=around["history"].shape[-1] if "history" in around else 0,
            pregate="pregate" in around, postgate="postgate" in around,
        ).problem  # fmt: skip
        at = layouts.layout(p)
        assert not at.outer
        asked.append((1 + at.source_upper, p.pregate and p.postgate))
        return u * k.sum(-1, keepdim=True) * D[:, None]

    monkeypatch.setattr(gpu_tune, "long_conv", long_conv)
    for shape in (shapes.Shape(64, 32), shapes.Shape(16, 16)):
        gpu_tune._call(shape.N, shape.N, BF16, "cpu", 2**12, kind)()
    assert asked == [(planes, gates)] * 2


def test_sums_are_taken_as_far_as_they_are_faster_at_every_length() -> None:
    times = {(8, 1): 1.0, (16, 1): 1.0, (32, 1): 3.0, (64, 1): 1.0, (8, 2): 1.0, (16, 2): 3.0, (32, 2): 3.0}
    rows = [Measured(f"{K} taps of {L} bfloat16", {"sums": ms, "transforms": 2.0}) for (K, L), ms in times.items()]
    assert gpu_tune.most_taps(rows, BF16) == 8
    assert gpu_tune.most_taps(rows[:4], BF16) == 16
    assert gpu_tune.most_taps(rows, F32) == 0


def test_sums_and_transforms_are_compared_and_the_engine_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(gpu_tune, "_call", lambda *_: lambda: seen.append(fir_plan.MOST_TAPS[False]))
    monkeypatch.setattr(gpu_tune, "alternate", lambda calls, *_, **__: {name: [call() or 1.0] for name, call in calls.items()})
    before = dict(fir_plan.MOST_TAPS)
    assert len(list(gpu_tune.sums(WallTimer(), "cpu"))) == 2 * len(gpu_tune.LENGTHS) * len(gpu_tune.TAPS)
    assert set(seen) == {0, *gpu_tune.TAPS}
    assert before == fir_plan.MOST_TAPS


def test_a_call_has_rows_enough_to_fill_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def long_conv(u: torch.Tensor, k: torch.Tensor, D: torch.Tensor, backend: str) -> torch.Tensor:
        sizes.append((*u.shape, *k.shape))
        return u * k.sum(-1, keepdim=True) * D[:, None]

    monkeypatch.setattr(gpu_tune, "long_conv", long_conv)
    gpu_tune._call(32, 8, F32, "cpu", 2**12)()
    assert sizes == [(16, 8, 32, 8, 8)]
