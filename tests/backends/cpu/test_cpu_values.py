"""Values and gradients of the engine against direct sums: every mode, option, shape, stride and dtype it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from arguments import Case, arguments, compare, floating, result_gradient, truth_of
from test_long_conv_values import CASES, EVERYTHING

import longwave
from longwave.backends import cpu
from longwave.backends.cpu import layouts
from longwave.bench.tolerances import bound, relative_l2

TAKEN = [case for case in CASES if not case.dtype.is_complex]


@pytest.mark.parametrize("case", TAKEN, ids=str)
@pytest.mark.usefixtures("by_transforms")
def test_value_and_gradients_by_transforms(case: Case) -> None:
    compare(case, "cpu")


@pytest.mark.parametrize("case", TAKEN, ids=str)
def test_value_and_gradients_equal_the_direct_sum(case: Case) -> None:
    compare(case, "cpu")


@pytest.mark.parametrize("case", TAKEN, ids=str)
@pytest.mark.usefixtures("by_six_steps")
def test_value_and_gradients_by_six_steps(case: Case) -> None:
    """Every option at every place in the matrix: segments begin and end inside a vector's columns."""
    compare(case, "cpu")


@pytest.mark.parametrize("case", TAKEN, ids=str)
@pytest.mark.usefixtures("by_windows")
def test_value_and_gradients_in_windows(case: Case) -> None:
    compare(case, "cpu")


@pytest.mark.parametrize("mode", ["causal", "same", "full"])
@pytest.mark.parametrize(("H", "filters"), [(1, "channel"), (20, "channel"), (6, "group"), (3, "sample")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
@pytest.mark.usefixtures("by_windows")
def test_short_filters_of_long_signals_in_windows(mode: str, H: int, filters: str, dtype: torch.dtype, layout: str) -> None:
    P = 21 if mode == "causal" else 0
    case = Case(mode=mode, B=2, H=H, L=2400, K=37, P=P, filters=filters, dtype=dtype, layout=layout, D=True)
    found = layouts.layout(longwave.plan((2, H, 2400), (H, 37), mode=mode, backend="cpu").problem)
    assert found.windows > 20
    compare(replace(case, pregate=True, postgate=True), "cpu")


@pytest.mark.parametrize("route", ["by_transforms", "by_six_steps", "by_windows"])
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_samples_far_apart(dtype: torch.dtype, layout: str, route: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(route)
    for seed in range(3):
        compare(Case(L=90, K=20, P=7, layout=layout, dtype=dtype, strides="far", seed=seed, **EVERYTHING), "cpu")


@pytest.mark.parametrize("L", [300, 2000, 2600])
@pytest.mark.parametrize("filters", ["channel", "group", "sample"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.usefixtures("by_six_steps", "whole_rows")
def test_whole_rows_by_six_steps(L: int, filters: str, dtype: torch.dtype) -> None:
    compare(Case(B=3, H=6, L=L, K=L - 7, P=9, filters=filters, dtype=dtype, **EVERYTHING), "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("filter_dtype", [None, torch.float32], ids=["own", "float32"])
@pytest.mark.parametrize("mode", ["causal", "circular", "same", "full"])
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
def test_value_and_gradients_in_every_dtype(
    dtype: torch.dtype, filter_dtype: torch.dtype | None, mode: str, layout: str
) -> None:
    K_rev, P = (33, 0) if mode == "circular" else (33, 20) if mode == "causal" else (0, 0)
    options = {"mode": mode, "layout": layout, "K_rev": K_rev, "P": P, **EVERYTHING}
    compare(Case(L=101, K=101, H=10, dtype=dtype, filter_dtype=filter_dtype, **options), "cpu")


# Every kind of list of factors: one pass, odd ones only, all radices, primes between (which grow to the next fast length).
LENGTHS = [
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    15,
    16,
    25,
    27,
    31,
    32,
    33,
    45,
    63,
    64,
    65,
    75,
    96,
    125,
    127,
    128,
    243,
    255,
    256,
    257,
    509,
]
LENGTHS += [511, 512, 513, 625, 720, 1021, 1023, 1024, 1025, 1152, 1500, 2047, 2048, 2049]


@pytest.mark.parametrize("L", LENGTHS)
def test_every_length_in_float32_and_float64(L: int) -> None:
    u, k = torch.randn(1, 9, L, dtype=torch.float64), torch.randn(9, L, dtype=torch.float64)
    windows = torch.nn.functional.pad(u, (L - 1, 0)).unfold(-1, L, 1)  # (1, 9, L, L): the samples that each output sums
    for dtype in (torch.float64, torch.float32):
        u, k = u.to(dtype), k.to(dtype)
        windows = windows.to(dtype).double()
        truth = torch.stack([windows[0, h] @ k[h].double().flip(-1) for h in range(9)]).unsqueeze(0)
        assert relative_l2(longwave.long_conv(u, k, backend="cpu"), truth) <= bound(dtype, 2 * L, "cpu")


def test_it_refuses_what_it_does_not_take() -> None:
    u, k = torch.randn(1, 2, 10), torch.randn(2, 10)
    with pytest.raises(longwave.errors.UnsupportedError, match="complex"):
        longwave.long_conv(u.to(torch.complex64), k, backend="cpu")


def test_auto_takes_the_engine_where_it_can() -> None:
    assert longwave.plan((1, 2, 10), (2, 10)).backend == "cpu"
    assert longwave.plan((1, 2, 10), (2, 10), dtype=torch.complex64, filter_dtype=torch.complex64).backend == "plain"
    assert cpu.missing() is None


def test_any_length_at_its_own_cost() -> None:
    """One transform of L complex points for L samples and L taps: no padding to 2L, nor to a power of two."""
    assert longwave.plan((1, 1, 14113), (1, 14113), backend="cpu").N == 14400
    assert longwave.plan((1, 1, 14113), (1, 5000), backend="cpu").N == 9600
    in_windows = layouts.layout(longwave.plan((1, 1, 14113), (1, 100), backend="cpu").problem)
    assert in_windows.windows * in_windows.at.N <= 1.2 * 14113 / 2
    assert longwave.plan((1, 1, 14113), (1, 14113), mode="circular", backend="cpu").N == 14400
    assert longwave.plan((1, 1, 14113), (1, 14113), mode="full", backend="cpu").N == 14400


@pytest.mark.parametrize(("B", "H", "L", "K", "G"), [(2, 300, 48, 300, 2), (1, 24, 14000, 60, 24), (1, 40, 3000, 3000, 1)])
def test_tiles_side_by_side_have_filters_of_their_own(B: int, H: int, L: int, K: int, G: int) -> None:
    """What is known of the filters of one side of a unit says nothing about the other side."""
    u, k = torch.randn(B, L, H), torch.randn(G, min(K, L))
    y = longwave.long_conv(u, k, layout="BLH", backend="cpu")
    n = 2 * L
    spectrum = torch.fft.rfft(k.double(), n).repeat_interleave(H // G, dim=0).T
    exact = torch.fft.irfft(torch.fft.rfft(u.double(), n, dim=1) * spectrum, n, dim=1)[:, :L]
    assert relative_l2(y, exact) <= bound(torch.float32, L, "cpu")


@pytest.mark.parametrize(
    ("B", "H", "L", "K"), [(512, 64, 300, 100), (1024, 1, 200, 200), (1, 2, 300_000, 100), (2, 40, 60_000, 300)]
)
def test_the_filters_gradient_is_exact_for_many_samples_and_windows(B: int, H: int, L: int, K: int) -> None:
    u, dy, k = torch.randn(B, H, L), torch.randn(B, H, L), torch.randn(H, K, requires_grad=True)
    (dk,) = torch.autograd.grad(longwave.long_conv(u, k, backend="cpu"), k, dy)
    n = 2 * L
    spectrum = torch.zeros(H, n // 2 + 1, dtype=torch.complex128)
    for a, b in zip(u.split(64), dy.split(64), strict=True):
        spectrum += (torch.fft.rfft(b.double(), n) * torch.fft.rfft(a.double(), n).conj()).sum(0)
    assert relative_l2(dk, torch.fft.irfft(spectrum, n)[:, :K]) <= bound(torch.float32, L, "cpu")


def test_a_default_device_of_another_kind_changes_nothing() -> None:
    u = torch.randn(2, 9, 3000)
    for k in (torch.randn(9, 3), torch.randn(9, 300), torch.randn(9, 3000)):
        want = longwave.long_conv(u, k, backend="cpu")
        torch.set_default_device("meta")
        try:
            got = longwave.long_conv(u, k, backend="cpu")
            longwave.short_conv(u, k[:, :3])
        finally:
            torch.set_default_device(None)
        assert torch.equal(got, want)


FEW = [
    *[Case(B=1, H=4, L=390, K=135, K_rev=1, P=31, filters="shared", seed=seed) for seed in (1, 35)],
    Case(B=2, H=3, L=300, K=1, K_rev=200, pregate=True, postgate=True, layout="BLH"),
    Case(mode="circular", B=1, H=2, L=200, K=300, K_rev=3, filters="shared"),
    Case(mode="circular", B=2, H=3, L=40, K=2, K_rev=90, filters="sample"),
    Case(B=1, H=2, L=400, K=150, K_rev=8, documents=(0, 150, 150, 400), P=20, filters="group", D=True),
]


@pytest.mark.parametrize("case", FEW, ids=str)
def test_the_gradient_of_few_taps_beside_many_is_as_exact_as_theirs(case: Case) -> None:
    """It is one number or a few, whatever the rounding errors of a whole row: there is no average to hide in."""
    case = replace(case, dtype=torch.float32)
    compare(case, "cpu")
    kwargs, dy = arguments(case), result_gradient(case)
    exact = {name: x.detach().double().requires_grad_() for name, x in floating(kwargs).items()}
    filters = [(kwargs["k"], exact["k"]), (kwargs["k_rev"], exact["k_rev"])]
    got = torch.autograd.grad(longwave.long_conv(**kwargs, backend="cpu"), [x for x, _ in filters], dy)
    want = torch.autograd.grad(truth_of({**kwargs, **exact}), [x for _, x in filters], dy.double())
    one_lag = max(x.square().mean().sqrt() for x in want)
    few = 0 if case.K_rev > case.K else 1
    assert ((got[few] - want[few]).abs() <= 1.5e-7 * (one_lag + want[few].abs())).all()
