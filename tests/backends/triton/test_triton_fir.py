"""The regime `direct` of the Triton backend against direct sums in float64: every option, values and all gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from arguments import Case, compare
from torch import Tensor

import longwave
from longwave import backends, dtypes
from longwave.backends.triton import fir, fir_plan
from longwave.bench.tolerances import bound, relative_l2
from longwave.lowering import MODES
from longwave.operands import Operands
from longwave.ops.long_conv import Call, problem_of
from longwave.problem import Problem
from longwave.reference import long_conv_ref
from longwave.results import empty, fresh_gradients, rounded

EVERYTHING = {"D": True, "pregate": True, "postgate": True}


class Direct:
    """A backend that has this regime alone."""

    @staticmethod
    def forward(p: Problem, given: Operands, spectrum: None = None) -> Tensor:
        y = empty(p, p.out_len, given.u)
        fir.convolve(p, y, given)
        return y

    @staticmethod
    def backward(p: Problem, needs: tuple[bool, ...], dy: Tensor, given: Operands, spectrum: None = None) -> list[Tensor]:
        into = fresh_gradients(p, needs, given, dtypes.arithmetic(given.u.dtype))
        fir.differentiate(p, into, dy, given)
        return rounded(p, into, given.D)


@pytest.fixture(autouse=True)
def _direct_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(p: Problem, name: str) -> tuple[Any, tuple[str, ...]]:
        assert fir_plan.takes(p)
        return Direct, ()

    monkeypatch.setattr(backends, "choose", choose)
    monkeypatch.setattr(fir_plan, "MOST_TAPS", {False: 64, True: 64})


CASES = [
    Case(L=40, K=5),
    Case(L=1, K=1, **EVERYTHING),
    Case(L=33, K=9, K_rev=4, P=6, **EVERYTHING),
    Case(L=33, K=64, P=20, layout="BLH", **EVERYTHING),
    Case(L=33, K=8, mode="same", strides="cut", **EVERYTHING),
    Case(L=33, K=11, mode="full", layout="BLH", filters="group", **EVERYTHING),
    Case(L=33, K=11, mode="circular", **EVERYTHING),
    Case(L=20, K=9, K_rev=7, mode="circular", layout="BLH", **EVERYTHING),
    Case(L=33, K=3, filters="sample", strides="reversed_axes", **EVERYTHING),
    Case(L=33, K=3, filters="shared", strides="any", pregate=True),
    Case(L=33, K=3, frozen=("u", "k"), **EVERYTHING),
    Case(L=33, K=3, frozen=("u",), **EVERYTHING),
    Case(L=530, K=2, H=2, B=1, postgate=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients_equal_the_direct_sum(case: Case, device: str) -> None:
    compare(dataclasses.replace(case, dtype=torch.float32), "triton", device)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("mode", list(MODES))
def test_value_and_gradients_of_every_dtype(mode: str, dtype: torch.dtype, device: str) -> None:
    taps = None if dtype == torch.float64 else torch.float32
    compare(Case(L=30, K=5, H=4, mode=mode, dtype=dtype, filter_dtype=taps, **EVERYTHING), "triton", device)


@pytest.mark.parametrize(
    "case",
    [
        Case(L=1, K=100, H=4, dtype=torch.float16),
        Case(L=7, K=150, H=2, P=4, dtype=torch.float16),
        Case(L=16, K=3000, H=2, D=True, dtype=torch.float16),
        Case(L=9, K=70, H=2, K_rev=80, mode="causal", filters="sample", dtype=torch.float16),
        Case(L=5, K=601, H=2, mode="same", dtype=torch.float16, **EVERYTHING),
    ],
    ids=str,
)
def test_a_handful_of_samples_is_summed_up_and_rounded_once(case: Case, device: str) -> None:
    """In float32, whatever taps there are."""
    compare(case, "triton", device)
    u, k = torch.randn(2, 4, case.L, device=device).half(), torch.randn(4, case.K, device=device)
    truth = long_conv_ref(u.cpu().double(), k.cpu().double())
    y = longwave.long_conv(u, k, backend="triton").cpu()
    assert relative_l2(y, truth) <= bound(torch.float16, case.L, "plain", truth=truth)
    assert (y == truth.half()).float().mean() > 0.9
    for L, K, P, sums in ((4, 200, 3, 7), (16, 2**20, 0, 16), (1, 100, 15, 16)):
        plan = longwave.plan((2, 4, L), (4, K), history=P, dtype=torch.float16, device="h200")
        assert plan.algorithm == f"direct, sums over {sums} taps in float32"
    for L, K, P in ((17, 100, 0), (1, 100, 16)):
        plan = longwave.plan((2, 4, L), (4, K), history=P, dtype=torch.float16, device="h200")
        assert plan.algorithm.startswith("fused")


def test_taps_that_meet_no_sample_are_neither_read_nor_paid_for(device: str) -> None:
    u, k = torch.randn(2, 4, 8, device=device), torch.randn(4, 500, device=device)
    k[:, 8:] = float("nan")
    k.requires_grad_()
    y = longwave.long_conv(u, k, backend="triton")
    (dk,) = torch.autograd.grad(y.sum(), k)
    truth = long_conv_ref(u.cpu().double(), k.detach()[:, :8].cpu().double())
    assert relative_l2(y.detach().cpu(), truth) <= bound(torch.float32, 8, "triton")
    assert (dk[:, :8] != 0).all()
    assert not dk[:, 8:].any()
    short, long = (longwave.plan(u.shape, (4, K), device="h200", backend="triton") for K in (8, 500))
    assert long.flop == short.flop
    assert long.backward_bytes - short.backward_bytes == 4 * 4 * (500 - 8)  # of the gradient alone


def test_a_row_has_the_same_bits_in_any_company(device: str) -> None:
    u, gate, k, D = (torch.randn(*shape, device=device) for shape in ((2, 5, 70), (2, 5, 70), (5, 5), (5,)))

    def run(b: slice, h: slice, layout: str = "BHL") -> list[Tensor]:
        turned = [t[b, h] if layout == "BHL" else t[b, h].transpose(1, 2).contiguous() for t in (u, gate)]
        leaves = [turned[0].requires_grad_(), k[h].clone().requires_grad_(), D[h].clone().requires_grad_()]
        y = longwave.long_conv(*leaves, pregate=turned[1], layout=layout)
        du, dk, dD = torch.autograd.grad(y, leaves, turned[1])
        return [*(t if layout == "BHL" else t.transpose(1, 2) for t in (y.detach(), du)), dk, dD]

    every = slice(None)
    whole = run(every, every)
    for a, b in zip(whole, run(every, every, "BLH"), strict=True):
        assert torch.equal(a, b)
    y, du, *_ = run(slice(1, 2), slice(4, 5))
    assert torch.equal(y[0, 0], whole[0][1, 4])
    assert torch.equal(du[0, 0], whole[1][1, 4])
    for a, b in zip(run(every, slice(4, 5))[2:], whole[2:], strict=True):
        assert torch.equal(a[0], b[4])
    assert not torch.equal(whole[0], whole[0].roll(1, -1))  # equal() can fail


def test_what_is_not_finite_stays_where_the_taps_take_it(device: str) -> None:
    u, k = (
        torch.randn(2, 3, 40, device=device),
        torch.randn(3, 9, device=device),
    )  # in two chains, the last tap of which is none
    clean = longwave.long_conv(u, k)
    u[1, 2, 20] = float("nan")
    dirty = longwave.long_conv(u, k)
    assert dirty[1, 2, 20:29].isnan().all()
    dirty[1, 2, 20:29] = clean[1, 2, 20:29]
    assert torch.equal(clean, dirty)


def test_how_many_taps_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    u, k = torch.empty(1, 4, 100), torch.empty(4, 28)
    problem = problem_of(Call(0, 100, False, False, None, "triton"), Operands(u, k), None)
    half = dataclasses.replace(problem, dtype="float16")
    assert [fir_plan.takes(dataclasses.replace(problem, taps=K)) for K in (1, 28, 29)] == [True, True, False]
    assert [fir_plan.takes(dataclasses.replace(half, taps=K)) for K in (1, 16, 17)] == [True, True, False]
    assert fir_plan.takes(dataclasses.replace(half, taps=28, precision="high"))


def test_what_it_does_not_take() -> None:
    u, k = torch.empty(1, 4, 100), torch.empty(4, 64)
    call = Call(0, 100, False, False, None, "triton")
    problem = problem_of(call, Operands(u, k), None)
    assert fir_plan.takes(problem)
    for changed in (
        {"taps": 65},
        {"circular": True, "in_len": 63, "out_len": 63},
        {"segments": (0, 50, 100)},
        {"mask": longwave.FrequencyMask.lowpass(0.5, leaks_future=True)},
    ):
        assert not fir_plan.takes(dataclasses.replace(problem, **changed))


@pytest.mark.parametrize(("mode", "K"), [("causal", 3), ("causal", 12), ("circular", 3)])
def test_second_derivatives(mode: str, K: int, device: str) -> None:
    """They are sums with their taps stored in falling order, some of which meet no sample, and with windows anywhere."""
    u, k, D, gate = (
        torch.randn(*shape, dtype=torch.float64, device=device, requires_grad=True)
        for shape in ((1, 2, 6), (2, K), (2,), (1, 2, 6))
    )
    options = {"history": torch.randn(1, 2, 2, dtype=torch.float64, device=device)} if mode == "causal" else {}
    assert torch.autograd.gradgradcheck(
        lambda u, k, D, gate: longwave.long_conv(u, k, D, pregate=gate, mode=mode, **options), (u, k, D, gate), fast_mode=True
    )


@pytest.mark.slow
def test_a_period_beyond_32_bits_is_wrapped(device: str) -> None:
    stride = 2**30 - 8
    u = torch.empty(2 * stride + 16, dtype=torch.float16, device=device).as_strided((1, 1, 3), (1, 1, stride))
    u.copy_(torch.tensor([1.0, 2.0, 3.0]))
    k = torch.tensor([[1.0, 10.0, 100.0]], device=device)
    y = longwave.long_conv(u, k, mode="circular", backend="triton")
    assert y.flatten().tolist() == [231.0, 312.0, 123.0]
