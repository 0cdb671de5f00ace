"""Frequency masks in the engine's own transforms: what is left out of them, against float64, and in any company."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from arguments import Case, arguments, floating, result_gradient, truth_of
from torch import Tensor

import longwave
from longwave import FrequencyMask
from longwave.backends.cpu import kept, launches, tables
from longwave.bench.tolerances import bound, pointwise_bound, relative_l2
from longwave.bench.tune import set_crossovers
from longwave.errors import ArgumentError

BANDS = {
    "a quarter": FrequencyMask.lowpass(0.25, leaks_future=True),
    "a tenth": FrequencyMask.lowpass(0.1, leaks_future=True),
    "most": FrequencyMask.lowpass(0.9, leaks_future=True),
    "two bands": FrequencyMask.from_bands([(0.1, 0.13), (0.3, 0.44)], leaks_future=True),
    "by energy": FrequencyMask.from_energy(torch.sin(torch.arange(192.0) ** 2).view(3, 64), 0.2, leaks_future=True),
}
BLOCKS = {
    "two of four": FrequencyMask.from_blocks([0, 3], 4, leaks_future=True),
    "one of sixteen": FrequencyMask.from_blocks([1], 16, leaks_future=True),
    "ends of sixteen": FrequencyMask.from_blocks([0, 15], 16, leaks_future=True),
}
LONG = {"six_step_from": 1024}


def _results(mask: FrequencyMask, tensors: dict[str, Tensor], dy: Tensor, mode: str, layout: str, backend: str) -> list[Tensor]:
    leaves = {name: x.detach().to(dy.dtype).requires_grad_() for name, x in tensors.items()}
    y = longwave.long_conv(**leaves, mode=mode, layout=layout, frequency_mask=mask, backend=backend)  # type: ignore[arg-type]
    return [y.detach(), *torch.autograd.grad(y, list(leaves.values()), dy)]


def _check(mask: FrequencyMask, B: int, H: int, L: int, K: int, mode: str = "causal", layout: str = "BHL", P: int = 0) -> None:
    def signal(length: int) -> Tensor:
        return torch.randn((B, H, length) if layout == "BHL" else (B, length, H))

    tensors = {"u": signal(L), "k": torch.randn(H, K), "pregate": signal(L), "postgate": signal(L + (K - 1) * (mode == "full"))}
    if P:
        tensors["history"] = signal(P)
    dy = torch.randn_like(tensors["postgate"])
    shape = tuple(tensors["u"].shape)
    for skip in (False, True):
        p = longwave.plan(
            shape, (H, K), mode=mode, layout=layout, D=skip, history=P, frequency_mask=mask, backend="cpu"
        ).problem  # fmt: skip
        assert kept.takes(p)
        if skip:
            tensors["D"] = 10 * torch.randn(H)
        got = _results(mask, tensors, dy, mode, layout, "cpu")
        want = _results(mask, tensors, dy.double(), mode, layout, "plain")
        for a, b in zip(got, want, strict=True):
            assert relative_l2(a, b) <= bound(torch.float32, L + K, "cpu")


@pytest.mark.parametrize("mask", BANDS.values(), ids=BANDS)
def test_bands_of_short_and_long_rows(mask: FrequencyMask) -> None:
    for L in (64, 243, 500, 1000, 1024, 2048):
        _check(mask, 3, 10, L, L)
    _check(mask, 2, 9, 512, 100, "same", "BLH")
    _check(mask, 2, 9, 512, 100, "full")
    _check(mask, 1, 3, 256, 300, P=100)
    _check(mask, 20, 2, 128, 128)
    with set_crossovers(**LONG):
        _check(mask, 2, 3, 4096, 4096)
    with set_crossovers(**LONG, whole_rows_bytes=0):
        _check(mask, 2, 3, 4096, 500, "same")


@pytest.mark.parametrize("mask", BLOCKS.values(), ids=BLOCKS)
def test_blocks_of_short_and_long_rows(mask: FrequencyMask) -> None:
    for L in (256, 1024, 2048):
        _check(mask, 3, 10, L, L)
    for whole in (0, 2**40):
        with set_crossovers(**LONG, whole_rows_bytes=whole):
            _check(mask, 2, 3, 4096, 4096)


def test_what_is_left_out() -> None:
    """A band leaves little of every block of 16 rows, whole blocks are left out whole, and half a band is not worth it."""
    band = kept.of_tiles(BANDS["a tenth"], 4096, launches.base(4096), 8, "float32")
    assert band.passes.sixteen is not None
    assert 0 < band.passes.sixteen.max() < 4
    assert band.rough.places.size == 0
    blocks = kept.of_tiles(BLOCKS["one of sixteen"], 4096, launches.base(4096), 8, "float32")
    assert blocks.passes.blocks.mean() == 1 / 16
    half = kept.of_tiles(FrequencyMask.lowpass(0.5, leaks_future=True), 4096, launches.base(4096), 8, "float32")
    assert half.passes.sixteen is None
    assert half.rough.places.size == 2048
    assert half.rough.lanes.ctypes.data % 64 == 0
    matrix = kept.of_matrix(BLOCKS["one of sixteen"], 65536, (256, 256), 8, "float32")
    assert matrix.tiles.mean() == 1 / 16
    assert sum(tables.matrix_shape(65536)) == 512


@pytest.mark.parametrize("skip", [False, True])
def test_a_masked_row_has_the_bits_it_has_alone_and_keeps_its_nan(skip: bool) -> None:
    def call(u: Tensor, k: Tensor, D: Tensor) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in (u, k, *[D] * skip)]
        y = longwave.long_conv(*leaves, frequency_mask=BANDS["a quarter"], backend="cpu")
        return [y.detach(), *torch.autograd.grad(y, leaves, u)]

    u, k, D = torch.randn(3, 20, 1024), torch.randn(20, 1024), torch.randn(20)
    whole = call(u, k, D)
    for h in (slice(0, 1), slice(3, 12)):
        part = call(u[:, h], k[h], D[h])
        assert torch.equal(whole[0][:, h], part[0])
        assert torch.equal(whole[1][:, h], part[1])
        assert all(torch.equal(a[h], b) for a, b in zip(whole[2:], part[2:], strict=True))
    bad = u.clone()
    bad[1, 18, 7] = float("nan")
    others = torch.ones(3, 20, dtype=torch.bool)
    others[1, 18] = False
    assert torch.equal(call(bad, k, D)[0][others], whole[0][others])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_D_beside_a_mask_has_the_same_bits_in_every_layout_and_stride(dtype: torch.dtype) -> None:
    """Samples come to the sum by rows, by lanes or one at a time."""
    u, k, D = torch.randn(2, 9, 1000, dtype=dtype), torch.randn(9, 1000), torch.randn(9)
    mask = BANDS["a tenth"]
    want = longwave.long_conv(u, k, D, pregate=u, frequency_mask=mask, backend="cpu")
    without = longwave.long_conv(u, k, pregate=u, frequency_mask=mask, backend="cpu")
    assert relative_l2(want, without.double() + D.double()[:, None] * u.double() ** 2) < 1e-2
    apart = torch.stack([u, u], dim=-1)[..., 0]
    assert torch.equal(longwave.long_conv(apart, k, D, pregate=apart, frequency_mask=mask, backend="cpu"), want)
    last = u.transpose(1, 2).contiguous()
    for x in (last, u.transpose(1, 2)):
        got = longwave.long_conv(x, k, D, pregate=x, frequency_mask=mask, layout="BLH", backend="cpu")
        assert torch.equal(got.transpose(1, 2), want)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_mask_at_wrong_frequencies_would_be_seen(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    u, k, mask = torch.randn(2, 8, 256), torch.randn(8, 256), BANDS["a quarter"]
    want = longwave.long_conv(u.double(), k.double(), frequency_mask=mask, backend="plain")
    right = FrequencyMask.kept
    with set_crossovers(), monkeypatch.context() as patch:
        patch.setattr(FrequencyMask, "kept", lambda self, N: right(self, N).roll(shift))
        assert relative_l2(longwave.long_conv(u, k, frequency_mask=mask, backend="cpu"), want) > 1e-2
    assert relative_l2(longwave.long_conv(u, k, frequency_mask=mask, backend="cpu"), want) < 4e-7


def test_a_masked_document_has_the_bits_it_has_alone() -> None:
    """One that is too short for any frequency vanishes among others, and is refused alone."""
    mask, bounds = FrequencyMask.lowpass(0.4, leaks_future=True), [0, 5, 105, 2605, 2607, 2608, 2608]
    u, k = torch.randn(1, 3, 2608), torch.randn(3, 40)
    packed = longwave.long_conv(u, k, frequency_mask=mask, cu_seqlens=torch.tensor(bounds, dtype=torch.int32), backend="cpu")
    for a, b in ((0, 5), (5, 105), (105, 2605), (2605, 2607)):
        assert torch.equal(packed[..., a:b], longwave.long_conv(u[..., a:b], k, frequency_mask=mask, backend="cpu"))
    assert packed[..., 2607:].abs().max() == 0
    leaves = {"u": u, "k": k, "D": torch.randn(3), "pregate": torch.randn(1, 3, 2608), "postgate": torch.randn(1, 3, 2608)}
    leaves = {name: x.clone().requires_grad_() for name, x in leaves.items()}
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
    y = longwave.long_conv(**leaves, frequency_mask=mask, cu_seqlens=cu_seqlens, backend="cpu")  # type: ignore[arg-type]
    du, dpre, dpost = torch.autograd.grad(y, [leaves[name] for name in ("u", "pregate", "postgate")], torch.ones_like(y))
    v, D, after = (leaves["u"] * leaves["pregate"]).detach(), leaves["D"].detach()[:, None], leaves["postgate"].detach()
    for got, exact in (
        (y, after * D * v), (du, leaves["pregate"] * D * after), (dpre, leaves["u"] * D * after), (dpost, D * v)
    ):  # fmt: skip
        torch.testing.assert_close(got[..., 2607].detach(), exact[..., 2607].detach())
    with pytest.raises(ArgumentError, match="keeps none of the 1 frequencies"):
        longwave.long_conv(u[..., 2607:], k, torch.randn(3), frequency_mask=mask, backend="cpu")
    with pytest.raises(ArgumentError, match="keeps none of the 1 frequencies"):
        longwave.long_conv(u[..., 2607:], k, frequency_mask=mask, backend="cpu")


HIGH = FrequencyMask.from_bands([(0.375, 0.5)], leaks_future=True)


@pytest.mark.parametrize(
    "case",
    [
        Case(B=1, H=1, L=23, K=17, K_rev=20, P=1, mask=HIGH, D=True, pregate=True, postgate=True, seed=510),
        Case(B=1, H=1, L=30, K=18, K_rev=5, P=1, filters="shared", mask=HIGH, D=True, postgate=True, seed=569),
        Case(B=1, H=2, L=9, P=1, filters="shared", mask=HIGH, seed=206),
    ],
    ids=str,
)
def test_a_gradient_that_is_small_beside_its_terms_has_the_errors_of_those(case: Case) -> None:
    """A band of high frequencies leaves little of the one sample of history: the contract is pointwise, ½ulp + c·|dz|·|k|."""
    case = replace(case, dtype=torch.float32)
    kwargs, dy = arguments(case), result_gradient(case)
    exact = {name: x.detach().double().requires_grad_() for name, x in floating(kwargs).items()}
    (got,) = torch.autograd.grad(longwave.long_conv(**kwargs, backend="cpu"), kwargs["history"], dy)
    (want,) = torch.autograd.grad(truth_of({**kwargs, **exact}), exact["history"], dy.double())
    dz = dy.double() * exact["postgate"].detach() if case.postgate else dy.double()
    taps = [exact[name].detach().square().sum(-1, keepdim=True) for name in ("k", "k_rev") if name in exact]
    norms = dz.norm(dim=-1, keepdim=True) * torch.stack(taps).sum(0).sqrt()
    allowed = pointwise_bound(want, norms, torch.float32, "cpu")
    assert ((got - want).abs() <= allowed).all()
    assert (want.abs() > 20 * allowed).any()  # nothing at all would be seen
