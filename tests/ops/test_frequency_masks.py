"""Frequency masks: what they keep, what the projection is, what it does to an output, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from arguments import Case, arguments, backends_here, floating, long_conv_ref, truth_of
from devices import here, ones, randn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import longwave
from longwave import masked, planner
from longwave.bench.tolerances import bound, relative_l2
from longwave.errors import ArgumentError
from longwave.masks import FrequencyMask, folded
from longwave.planner import mask_grid
from longwave.reference import _grid

LOW = FrequencyMask.lowpass(0.5, leaks_future=True)


def test_the_grid_is_smooth_and_long_ones_are_multiples_of_256() -> None:
    for n in (*range(1, 300), 14_113, 16_383, 16_384, 16_385, 65_536, 100_003, 2**20, 2**20 + 1):
        assert mask_grid(n) == _grid(n)
        assert mask_grid(n) >= n
        assert n < 16_384 or mask_grid(n) % 256 == 0
    assert planner.mask_grid is mask_grid


@pytest.mark.parametrize("N", [1, 2, 3, 8, 15, 100])
def test_bins_stand_where_their_polynomials_are_evaluated(N: int) -> None:
    """Bin j is (j + ¼)/N; folded, the bins are a uniform grid of |f|."""
    f = (np.arange(N) + 0.25) / N
    np.testing.assert_allclose((2 * folded(N).numpy() + 1) / (4 * N), np.minimum(f, 1 - f), rtol=1e-13)
    assert sorted(folded(N).tolist()) == list(range(N))
    low, high = 0.1, 0.3
    kept = FrequencyMask.from_bands([(low, high)]).kept(N).numpy()
    assert kept.tolist() == [bool(low <= min(x, 1 - x) <= high) for x in f]


def test_what_the_constructors_keep() -> None:
    assert FrequencyMask.lowpass(1.0).kept(7).all()
    for keep in (0.1, 0.25, 0.5):
        assert FrequencyMask.lowpass(keep).fraction(1000) == pytest.approx(keep, abs=1e-3)
    blocks = FrequencyMask.from_blocks([1, 3], 5)
    assert blocks.kept(10).tolist() == [False, True, False, True, False] * 2
    assert blocks.fraction(10) == 0.4
    bands = FrequencyMask.from_bands([(0.3, 0.4), (0.1, 0.2), (0.15, 0.25)])
    assert bands.bands == ((0.1, 0.25), (0.3, 0.4))
    assert FrequencyMask.lowpass(0.25).kept_of_period(16).nonzero().flatten().tolist() == [0, 1, 2, 14, 15]


@pytest.mark.parametrize("K", [1, 30, 97, 512])
def test_from_energy_keeps_the_strongest_frequencies(K: int) -> None:
    k = randn(3, K, dtype=torch.float64) * here(torch.linspace(1, 5, K))
    mask = FrequencyMask.from_energy(k, keep=0.25)
    N = mask_grid(K)
    f = here(torch.arange(N, dtype=torch.float64) + 0.25) / N
    A = torch.exp(-2j * np.pi * f[:, None] * here(torch.arange(K))) @ k.to(torch.complex128).T
    energy, kept = A.abs().square().sum(1), here(mask.kept(N))
    assert int(kept.sum()) == max(1, round(0.25 * N))
    assert kept.all() or energy[kept].min() >= energy[~kept].max() * (1 - 1e-12)
    z = randn(2, K, dtype=torch.complex128)
    parts = FrequencyMask.from_energy(torch.cat([z.real, z.imag]), keep=0.5)
    assert FrequencyMask.from_energy(z, keep=0.5) == parts
    assert abs(mask.fraction(8 * N) - kept.double().mean().item()) < 0.01 + 1 / N  # intervals hold at any length


def test_masks_are_values() -> None:
    every = [
        LOW,
        FrequencyMask.lowpass(0.1),
        FrequencyMask.from_blocks([0, 2], 3),
        FrequencyMask.from_bands([(0.1, 0.2), (0.3, 1 / 3)], leaks_future=True),
        FrequencyMask.from_energy(randn(2, 200), 0.5),
    ]
    assert len(set(every)) == len(every)
    for mask in every:
        for copy in (pickle.loads(pickle.dumps(mask)), FrequencyMask.of_text(mask.text)):
            assert copy == mask
            assert hash(copy) == hash(mask)
            assert torch.equal(copy.kept(12), mask.kept(12))
        assert repr(mask).startswith("FrequencyMask.")
        if "…" not in repr(mask) and "0.33" not in repr(mask):
            assert eval(repr(mask)) == mask
    assert FrequencyMask.lowpass(0.5) != LOW  # whether it may leak is part of it
    assert "bands, 50.0% of all frequencies" in repr(every[-1])


@pytest.mark.parametrize("N", [1, 6, 25])
def test_the_projection_is_the_ring_of_the_definition(N: int) -> None:
    """2N samples as N complex ones, p < N the real part of row p, N + p minus the imaginary part, A by its definition."""
    n = np.arange(N)
    w = np.exp(-1j * np.pi * n / (2 * N))
    k = np.random.default_rng(N).standard_normal(2 * N)
    mask = FrequencyMask.from_bands([(0.0, 0.3)], leaks_future=True)
    Z = np.exp(-2j * np.pi * np.outer(n, n) / N) @ (w * (k[:N] - 1j * k[N:])) * mask.kept(N).numpy()
    z = np.conj(w) * (np.exp(2j * np.pi * np.outer(n, n) / N) @ Z) / N
    got = masked._project(torch.from_numpy(k), mask.kept(N), torch.fft)
    np.testing.assert_allclose(got.numpy(), np.concatenate([z.real, -z.imag]), rtol=1e-12, atol=1e-13)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(-35, 35), st.booleans(), st.booleans(), st.integers(0, 20))
def test_the_projection_is_one_and_its_gradient_is_its_adjoint(
    L: int, K: int, lag0: int, reverse: bool, circular: bool, before: int
) -> None:
    mask = FrequencyMask.from_bands([(0.0, 0.26), (0.4, 0.45)])
    problem = longwave.plan((1, 1, L), (1, K), dtype=torch.float64, filter_dtype=torch.float64, frequency_mask=None).problem
    options = {"lag0": lag0, "reverse": reverse, "circular": circular, "mask": mask}
    options |= {} if circular else {"in_start": -before, "in_len": L + before}
    (stretch,) = masked.stretches(masked.dataclasses.replace(problem, **options))
    projection, lags = stretch.projection, stretch.problem.taps
    k, d = randn(2, K, dtype=torch.float64), randn(2, lags, dtype=torch.float64)
    once = projection.filter(k)
    assert once.shape == (2, lags)
    torch.testing.assert_close((once * d).sum(), (k * projection.gradient(d)).sum())
    again = masked.dataclasses.replace(projection, taps=lags, reverse=False, start=0, stop=0 if circular else lags, at=0)
    if circular or lags == 2 * projection.N:  # the lags are the whole ring: a second projection changes nothing
        torch.testing.assert_close(again.filter(once), once)


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("mode", ["causal", "circular", "same", "full"])
def test_keeping_everything_changes_nothing(mode: str, dtype: torch.dtype, backend: str) -> None:
    u, k = randn(2, 3, 120, dtype=dtype), randn(3, 110, dtype=dtype)
    y = longwave.long_conv(u, k, mode=mode, frequency_mask=FrequencyMask.lowpass(1.0, leaks_future=True), backend=backend)
    truth = long_conv_ref(u, k, mode=mode)
    assert relative_l2(y, truth) <= bound(dtype, 230)


@pytest.mark.parametrize("backend", backends_here())
def test_an_output_holds_the_frequencies_kept(backend: str) -> None:
    """White noise through a delta: a low-pass mask leaves its band and next to nothing outside; without it all is there."""
    L, keep = 4096, 0.25
    u, k = randn(1, 1, L, dtype=torch.float64), here(torch.zeros(1, 1, dtype=torch.float64))
    k[0, 0] = 1
    mask = FrequencyMask.lowpass(keep, leaks_future=True)

    def outside(y: Tensor) -> float:
        middle = y[0, 0, L // 4 : 3 * L // 4] * here(torch.hann_window(L // 2, dtype=torch.float64))
        energy = torch.fft.rfft(middle).abs().square()
        frequency = here(torch.fft.rfftfreq(L // 2, dtype=torch.float64))
        return (energy[frequency > keep / 2 + 0.01].sum() / energy.sum()).item()

    y = longwave.long_conv(u, k, frequency_mask=mask, backend=backend)
    assert outside(y) < 1e-4
    assert outside(longwave.long_conv(u, k, backend=backend)) > 0.6
    assert 0.9 * keep < y.square().mean() / u.square().mean() < 1.1 * keep
    whole = longwave.long_conv(u, k, mode="circular", frequency_mask=mask, backend=backend)
    left = torch.fft.rfft(whole[0, 0]).abs()[here(torch.fft.rfftfreq(L)) > keep / 2 + 1e-9]
    assert left.max() < 1e-10


@pytest.mark.parametrize(("L", "K"), [(1, 1), (30, 30), (30, 7), (23, 40)])
def test_the_effective_filter_is_what_long_conv_convolves_with(L: int, K: int) -> None:
    mask = FrequencyMask.from_bands([(0.0, 0.3)], leaks_future=True)
    u, k = randn(2, 3, L, dtype=torch.float64), randn(3, K, dtype=torch.float64)
    k_eff = masked.effective_filter(k, L, mask)
    assert k_eff.shape == (3, 2 * L - 1)
    want = long_conv_ref(u, k_eff, mode="full")[..., L - 1 : 2 * L - 1]
    torch.testing.assert_close(longwave.long_conv(u, k, frequency_mask=mask), want, rtol=1e-12, atol=1e-12)


def test_documents_have_grids_of_their_own() -> None:
    u, k = randn(1, 3, 60, dtype=torch.float64), randn(3, 20, dtype=torch.float64)
    bounds = torch.tensor([0, 25, 25, 26, 60], dtype=torch.int32)
    y = longwave.long_conv(u, k, cu_seqlens=bounds, frequency_mask=LOW)
    apart = [longwave.long_conv(u[..., a:b], k, frequency_mask=LOW) for a, b in ((0, 25), (25, 26), (26, 60))]
    torch.testing.assert_close(y, torch.cat(apart, dim=-1), rtol=1e-12, atol=1e-12)
    tiny = FrequencyMask.lowpass(0.25, leaks_future=True)  # keeps nothing of a document of one sample
    assert longwave.long_conv(u, k, cu_seqlens=bounds, frequency_mask=tiny)[..., 25].abs().max() == 0


def test_many_filters_are_projected_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(B=2, H=6, L=40, K=17, filters="sample", mask=LOW, D=True)
    kwargs = arguments(case)
    want = torch.autograd.grad(longwave.long_conv(**kwargs).sum(), list(floating(kwargs).values()))
    monkeypatch.setattr(masked, "PROJECTION_BYTES", 1)
    got = torch.autograd.grad(longwave.long_conv(**kwargs).sum(), list(floating(kwargs).values()))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_plan_tells_of_the_mask() -> None:
    plan = longwave.plan((1, 4, 100), (4, 100), frequency_mask=LOW, backend="plain")
    assert "FrequencyMask.lowpass(0.5, leaks_future=True)" in str(plan)
    assert "199 lags on a grid of 100" in str(plan)
    assert plan.scratch_bytes > longwave.plan((1, 4, 100), (4, 199), mode="same", backend="plain").scratch_bytes
    packed = longwave.plan((1, 4, 100), (4, 100), frequency_mask=LOW, cu_seqlens=(0, 40, 100))
    assert "2 documents, FrequencyMask" in str(packed)
    assert packed.result_bytes == 4 * 4 * 100
    assert longwave.plan((1, 4, 100), (4, 100), frequency_mask=LOW, cu_seqlens=(0, 0, 100), backend="plain").flop > 0


def _ignored(mask: FrequencyMask, N: int) -> Tensor:
    return torch.ones(N, dtype=torch.bool, device="cpu")


def _without_the_quarter(mask: FrequencyMask, N: int) -> Tensor:
    j = torch.arange(N, device="cpu")
    return torch.minimum(j, N - j) / N <= mask.bands[0][1]


def _in_order_of_j(mask: FrequencyMask, N: int) -> Tensor:
    return (torch.arange(N, device="cpu") + 0.5) / (2 * N) <= mask.bands[0][1]


def _one_bin_late(mask: FrequencyMask, N: int) -> Tensor:
    i = folded(N)
    return (i - 0.5) / (2 * N) <= mask.bands[0][1]


MUTANTS: dict[str, Callable[[FrequencyMask, int], Tensor]] = {
    "mask ignored": _ignored,
    "bins at j/N": _without_the_quarter,
    "bins not folded": _in_order_of_j,
    "one bin more": _one_bin_late,
}


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.parametrize("L", [64, 97])
def test_a_mask_at_wrong_bins_is_outside_the_bound(name: str, L: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for case in (Case(L=L, K=L, mask=LOW, dtype=torch.float32), Case(L=L, K=L, mask=LOW, mode="same", dtype=torch.float32)):
        kwargs = arguments(case)
        inputs, truth = list(floating(kwargs).values()), truth_of(kwargs)
        dy = torch.randn_like(truth)
        want = [truth, *torch.autograd.grad(truth, inputs, dy)]

        def errors(inputs: list[Tensor] = inputs, dy: Tensor = dy, want: list = want, kwargs: dict = kwargs) -> list[float]:
            y = longwave.long_conv(**kwargs, backend="plain")
            return [relative_l2(a, b) for a, b in zip([y, *torch.autograd.grad(y, inputs, dy.float())], want, strict=True)]

        allowed = bound(torch.float32, 2 * L)
        assert max(errors()) <= allowed
        with monkeypatch.context() as patch:
            patch.setattr(FrequencyMask, "kept", MUTANTS[name])
            assert min(errors()) > 100 * allowed


r = randn
REFUSALS: list[tuple[Callable[[], Any], str]] = [
    (lambda: FrequencyMask.lowpass(0), r"keep is 0; give the fraction of the frequencies to keep, above 0 and at most 1"),
    (lambda: FrequencyMask.lowpass(1.5), r"keep is 1.5"),
    (lambda: FrequencyMask.lowpass(float("nan")), r"keep is nan"),
    (lambda: FrequencyMask.lowpass("half"), r"keep is 'half'"),
    (lambda: FrequencyMask.lowpass(True), r"keep is True"),
    (lambda: FrequencyMask.lowpass(0.5, leaks_future=1), r"leaks_future is 1; give True or False"),
    (lambda: FrequencyMask.from_bands([]), r"a mask without a band keeps nothing"),
    (lambda: FrequencyMask.from_bands([(0.2, 0.1)]), r"\(0.2, 0.1\) is no band; give \(low, high\) with 0 <= low <= high"),
    (lambda: FrequencyMask.from_bands([(0.2, 0.7)]), r"\(0.2, 0.7\) is no band"),
    (lambda: FrequencyMask.from_bands([0.2]), r"0.2 is no band"),
    (lambda: FrequencyMask.from_bands(3), r"bands is 3; give intervals"),
    (lambda: FrequencyMask.from_blocks([], 4), r"a mask without a block keeps nothing; give at least one of 0 to 3"),
    (lambda: FrequencyMask.from_blocks([4], 4), r"keep_blocks holds 4; with count=4 give whole numbers from 0 to 3"),
    (lambda: FrequencyMask.from_blocks([0.5], 4), r"keep_blocks holds 0.5"),
    (lambda: FrequencyMask.from_blocks(0, 4), r"keep_blocks is 0"),
    (lambda: FrequencyMask.from_blocks([0], 0), r"count is 0; give the number of blocks"),
    (lambda: FrequencyMask.from_energy([1.0]), r"from_energy got a list as k"),
    (lambda: FrequencyMask.from_energy(ones(2, 3, dtype=torch.int64)), r"from_energy got torch.int64 of shape \(2, 3\)"),
    (lambda: FrequencyMask.from_energy(r(2, 0)), r"from_energy got torch.float32 of shape \(2, 0\)"),
    (lambda: FrequencyMask.from_energy(float("nan") * ones(2, 3)), r"NaN or Inf"),
    (lambda: FrequencyMask.from_energy(r(2, 3), keep=2), r"keep is 2"),
    (lambda: _conv(frequency_mask=0.5), r"frequency_mask is of type float; give a longwave.FrequencyMask"),
    (lambda: _conv(frequency_mask=FrequencyMask.lowpass(0.5)), r"causal filter of mode='causal' two-sided.*leaks_future"),
    (lambda: _conv(frequency_mask=FrequencyMask.lowpass(0.5), mode="full"), r"causal filter of mode='full'.*leaks_future=True"),
    (lambda: _conv(frequency_mask=FrequencyMask.lowpass(0.5), history=r(2, 4, 3)), r"mode='causal'.*give k_rev"),
    (lambda: _conv(frequency_mask=FrequencyMask.from_blocks([0], 7, leaks_future=True)), r"grid of 8 frequencies.*1, 2, 4, 8$"),
    (lambda: _conv(frequency_mask=FrequencyMask.from_blocks([1], 4), mode="circular"), r"bin j of the period 8 without L - j"),
    (lambda: _conv(frequency_mask=FrequencyMask.from_blocks([0], 3), mode="circular"), r"grid of 8 frequencies"),
    (lambda: _conv(frequency_mask=FrequencyMask.lowpass(0.01), mode="same"), r"keeps none of the 8 frequencies.*keep more"),
    (lambda: longwave.plan((2, 4, 8), (4, 5), frequency_mask=FrequencyMask.lowpass(0.5)), r"leaks_future=True"),
    (lambda: _conv(frequency_mask=FrequencyMask.lowpass(0.01), mode="same", backend="plain"), r"none of the 8 freq"),
    (lambda: longwave.plan((2, 4, 8), (4, 5), frequency_mask="low"), r"frequency_mask is of type str"),
]  # fmt: skip


def _conv(**options: Any) -> Tensor:
    return longwave.long_conv(r(2, 4, 8), r(4, 5), **options)


@pytest.mark.parametrize(("call", "sentence"), REFUSALS, ids=[str(i) for i in range(len(REFUSALS))])
def test_a_wrong_mask_gets_one_sentence(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_right_masks_beside_them_run() -> None:
    low = FrequencyMask.lowpass(0.5)
    assert _conv(frequency_mask=low, mode="same").shape == (2, 4, 8)
    assert _conv(frequency_mask=low, mode="circular").shape == (2, 4, 8)
    assert _conv(frequency_mask=low, k_rev=r(4, 5)).shape == (2, 4, 8)
    assert _conv(frequency_mask=FrequencyMask.from_blocks([1, 3], 4), mode="circular").shape == (2, 4, 8)
