"""The GPU benchmark as far as it goes without a GPU: its cases, its clock, and its contestants on CPU tensors."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from terminal import typed
from torch import Tensor, nn

from longwave.bench import truth
from longwave.bench.cases import BACKWARD, FORWARD, GPU_LENGTHS, Case, gpu_case_list
from longwave.bench.contestants import FLOOR, RIVAL, Contestant, contestants, runnable_backends
from longwave.bench.formula import Arrays
from longwave.bench.gpu_contestants import GPU_RIVALS
from longwave.bench.record import Entry
from longwave.bench.runner import measure
from longwave.bench.timer import EventTimer, WallTimer, alternate
from longwave.reference import long_conv_ref

H200_BYTES = 143_771 * 2**20


def test_cases_have_the_published_shape_and_as_many_rows_as_memory_holds() -> None:
    cases = gpu_case_list(H200_BYTES)
    assert {case.L for case in cases} == set(GPU_LENGTHS)
    assert len({case.name for case in cases}) == len(cases)
    assert len([case for case in cases if case.L <= 2**20]) == 15 * 3 * 2 * 2
    assert all(case.B == 64 and case.H == 768 for case in cases if case.L <= 16_384)
    assert all(case.bytes_moved < H200_BYTES for case in cases)
    longest = [case.B for case in cases if case.L == 4_194_304 and case.direction == FORWARD and case.dtype == "bfloat16"]
    assert all(1 <= B < 64 for B in longest)
    small = gpu_case_list(H200_BYTES // 8)
    batch = {(c.L, c.dtype, c.gated, c.direction): c.B for c in cases}
    assert all(batch[c.L, c.dtype, c.gated, c.direction] >= c.B for c in small)
    assert len(small) < len(cases)  # what does not fit at all is not there


def test_the_device_clock_is_read_between_events() -> None:
    """Each call moves the device's clock by 3 ms, and the host's by nothing."""
    device = SimpleNamespace(ms=0.0, waits=0)

    class Event:
        def record(self) -> None:
            self.at = device.ms

        def elapsed_time(self, other: Event) -> float:
            return other.at - self.at

    def call() -> None:
        device.ms += 3.0

    def wait() -> None:
        device.waits += 1

    timer = EventTimer(Event, wait, clock=lambda: 0.0)
    assert timer.seconds(call, 4) == pytest.approx(3e-3)
    assert device.waits == 2
    assert alternate({"A": call}, timer)["A"] == pytest.approx([3e-3] * 5)


def _flash(seqlen: int, dtype: torch.dtype) -> nn.Module:
    class Stub(nn.Module):
        def forward(self, u: Tensor, k: Tensor, pregate: Tensor | None = None, postgate: Tensor | None = None) -> Tensor:
            assert seqlen == 2 * u.shape[-1]
            assert dtype == u.dtype
            return long_conv_ref(u, k, pregate=pregate, postgate=postgate).to(u.dtype)

    return Stub()


@pytest.fixture
def field(monkeypatch: pytest.MonkeyPatch) -> list[Contestant]:
    """Every GPU contestant; those that cannot be installed here are stood in for by what they document."""

    def fft_causal_conv1d(x: Tensor, weight: Tensor) -> Tensor:
        assert weight.dtype == x.dtype
        return long_conv_ref(x, weight).to(x.dtype)

    monkeypatch.setitem(sys.modules, "cudnn", SimpleNamespace(ops=SimpleNamespace(fft_causal_conv1d=fft_causal_conv1d)))
    monkeypatch.setitem(sys.modules, "flashfftconv", SimpleNamespace(FlashFFTConv=_flash))
    return [Contestant(rival.name, rival.kind, rival.make(), rival.backend) for rival in GPU_RIVALS]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("direction", [FORWARD, BACKWARD])
def test_every_rival_is_right_at_what_it_takes(field: list[Contestant], dtype: str, gated: bool, direction: str) -> None:
    case = Case(2, 64, 128, 128, dtype=dtype, gated=gated, skip=gated, direction=direction)
    entries = {entry.name: entry for entry in measure(case, field, WallTimer()).entries}
    refusing = {"torch.fft, cached filter"} if direction == BACKWARD else set()
    refusing |= {"FlashFFTConv"} if dtype == "float32" else set()
    assert {name for name, entry in entries.items() if entry.failure} == refusing, entries
    for name, entry in entries.items():
        assert entry.refused == (name in refusing)
        assert bool(entry.seconds) == (name not in refusing)
        assert bool(entry.errors) == (name not in refusing and name != "attention")


def test_rivals_refuse_what_they_do_not_take(field: list[Contestant]) -> None:
    def refusing(case: Case) -> set[str]:
        return {entry.name for entry in measure(case, field, WallTimer()).entries if entry.refused}

    assert refusing(Case(1, 2, 100, 100, dtype="bfloat16")) == {"FlashFFTConv"}
    assert refusing(Case(1, 2, 64, 64, mode="circular", dtype="bfloat16")) == {"FlashFFTConv", "cuDNN"}


def test_of_a_large_case_some_channels_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "MOST_CHECKED_SAMPLES", 700)
    case = Case(2, 9, 100, 100, direction=BACKWARD, gated=True, skip=True)
    assert truth.checked_channels(case) == [0, 4, 8]
    assert truth.checked_channels(replace(case, H=3)) is None

    (plain,) = [one for one in contestants(["plain"])[0] if one.name == "longwave:plain"]

    def wrong(name: str, channel: int) -> Contestant:
        def bind(case: Case, x: Arrays):
            call = plain.bind(case, x)

            def broken() -> dict[str, Tensor]:
                results = call()
                results[name].select(0 if name in ("dk", "dD") else 1, channel).zero_()
                return results

            return broken

        return Contestant(f"{name} {channel}", RIVAL, bind)

    broken = [wrong("y", 8), wrong("dk", 0), wrong("dpregate", 4), wrong("dD", 8)]
    entries = measure(case, [plain, *broken], WallTimer()).entries
    assert [bool(entry.failure) for entry in entries] == [False, True, True, True, True]


def test_who_runs_out_of_memory_is_passed_over() -> None:
    def bind(case: Case, x: Arrays):
        raise torch.OutOfMemoryError("CUDA out of memory")

    rivals = [Contestant("greedy", RIVAL, bind), Contestant("copy", FLOOR, lambda case, x: dict)]
    entries = measure(Case(1, 1, 8, 8), rivals, WallTimer()).entries
    assert entries[0] == Entry("greedy", RIVAL, failure="needs more memory than cpu has at this shape", refused=True)
    assert entries[1].seconds


def test_who_breaks_does_not_take_the_others_times_along() -> None:
    def bind(case: Case, x: Arrays):
        raise RuntimeError("a kernel\n  that does not compile")

    rivals = [Contestant("broken", RIVAL, bind), Contestant("copy", FLOOR, lambda case, x: dict)]
    entries = measure(Case(1, 1, 8, 8), rivals, WallTimer()).entries
    assert entries[0] == Entry("broken", RIVAL, failure="breaks: RuntimeError: a kernel that does not compile")
    assert entries[1].seconds


def test_contestants_belong_to_their_device() -> None:
    assert "cpu" not in runnable_backends(device="cuda")
    assert "plain" in runnable_backends(device="cuda")
    names = {one.name for one in contestants(["plain"])[0]}
    assert not names & {rival.name for rival in GPU_RIVALS}
    field, absent = contestants(["plain"], "cuda")
    assert {"torch.fft", "torch.fft c2c", "torch.fft, cached filter", "attention", "copy"} <= {one.name for one in field}
    assert "runs on the CPU only" in absent["scipy.fft"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--list"], ["--quick"]):
        status, _, err = typed(capsys, "bench", "--device", "cuda", *arguments)
        assert status == 2
        assert "--device cuda is not on this machine" in err
        assert err.count("\n") == 1
    status, _, err = typed(capsys, "bench", "--device", "cuda", "--short")
    assert status == 2
    assert "--short has a table of its own, measured on the CPU, and --device is not for it" in err
