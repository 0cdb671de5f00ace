"""Filters that the engine transformed before: every layout of their spectra, with and without D, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import longwave
from longwave import FrequencyMask
from longwave.backends.cpu import engine
from longwave.backends.cpu import prepared as spectra_of
from longwave.bench.tolerances import bound, relative_l2
from longwave.operands import Operands


def _check(B: int, H: int, L: int, K: int, mode: str, layout: str, dtype: torch.dtype, skip: bool) -> None:
    shape = (B, H, L) if layout == "BHL" else (B, L, H)
    u, gate = torch.randn(shape, dtype=dtype, requires_grad=True), torch.randn(shape, dtype=dtype, requires_grad=True)
    k, D = torch.randn(H, K), torch.randn(H) if skip else None
    p = longwave.plan(
        shape, k.shape, mode=mode, layout=layout, D=skip, pregate=True, postgate=mode != "full", backend="cpu", dtype=dtype
    ).problem
    spectra = spectra_of.prepare(p, k)
    assert spectra is not None
    postgate = None if mode == "full" else gate
    exact = [x.detach().double().requires_grad_() for x in (u, gate)]
    want = longwave.long_conv(
        exact[0], k.double(), None if D is None else D.double(), pregate=exact[1],
        postgate=None if postgate is None else exact[1], mode=mode, layout=layout, backend="plain",
    )  # fmt: skip
    dy = torch.randn(want.shape, dtype=dtype)
    gradients = torch.autograd.grad(want, exact, dy.double())

    def rows(x: Tensor) -> Tensor:
        return x.detach() if layout == "BHL" else x.detach().transpose(1, 2)

    nothing = torch.full_like(k, float("nan"))  # the taps are not looked at again
    after = None if postgate is None else rows(gate)
    given = Operands(rows(u), nothing, D, rows(gate), after)
    got = [engine.forward(p, given, spectra)]
    needs = (True, False, False, True, after is not None, False)
    got += engine.backward(p, needs, rows(dy), given, spectra)
    if after is not None:
        got[2:] = [got[2].float() + got[3].float()] if dtype.itemsize == 2 else [got[2] + got[3]]
    for a, b in zip(got, (want, *gradients), strict=True):
        assert relative_l2(a, rows(b)) <= bound(dtype, L + K, "cpu", truth=rows(b) if dtype.itemsize == 2 else None)


@pytest.mark.parametrize(
    ("mode", "L", "K"), [("causal", 500, 500), ("circular", 300, 900), ("same", 400, 100), ("full", 77, 90)]
)
@pytest.mark.parametrize(("B", "H", "layout"), [(1, 2, "BHL"), (3, 5, "BHL"), (2, 8, "BLH"), (1, 20, "BLH"), (3, 40, "BLH")])
@pytest.mark.parametrize("skip", [False, True])
def test_ready_spectra_give_what_the_taps_give(mode: str, L: int, K: int, B: int, H: int, layout: str, skip: bool) -> None:
    _check(B, H, L, K, mode, layout, torch.float32, skip)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("whole", [True, False])
def test_long_rows_and_windows_have_them_too(skip: bool, whole: bool, request: pytest.FixtureRequest) -> None:
    if whole:
        request.getfixturevalue("whole_rows")
    _check(2, 6, 100_000, 100_000, "causal", "BHL", torch.float32, skip)
    _check(1, 2, 70_000, 140_000, "circular", "BHL", torch.float32, skip)
    _check(2, 8, 60_000, 300, "causal", "BHL", torch.float32, skip)
    _check(2, 3, 60_000, 300, "causal", "BLH", torch.float32, skip)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_other_dtypes(dtype: torch.dtype) -> None:
    _check(2, 20, 777, 777, "causal", "BHL", dtype, True)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("mask", [FrequencyMask.lowpass(0.25), FrequencyMask.from_blocks([0, 3], 4)], ids=str)
@pytest.mark.parametrize(("H", "L"), [(20, 1024), (3, 65536), (5, 500)])
def test_masked_filters_too(H: int, L: int, mask: FrequencyMask, skip: bool) -> None:
    """D reaches the frequencies that the mask drops."""
    u, k, D = torch.randn(2, H, L), torch.randn(H, L), torch.randn(H) if skip else None
    prepared = longwave.prepare_filter(k, L, mode="same", frequency_mask=mask, backend="cpu")
    assert prepared.tag.startswith("cpu")
    exact = None if D is None else D.double()
    want = longwave.long_conv(u.double(), k.double(), exact, mode="same", frequency_mask=mask, backend="plain")
    assert relative_l2(longwave.long_conv(u, prepared, D, mode="same"), want) <= bound(torch.float32, L, "cpu")


@pytest.mark.parametrize("offset", [1, 8])
def test_spectra_that_lie_anywhere_are_moved(offset: int) -> None:
    """Vectors are loaded from where 64 divides the address: from elsewhere the process would end."""
    u, k = torch.randn(3, 2, 100), torch.randn(2, 100)
    state = longwave.prepare_filter(k, 100, backend="cpu").state_dict()
    size = state["spectrum"].numel()
    memory = torch.zeros(size + 256, dtype=torch.uint8)
    start = -memory.data_ptr() % 64 + offset
    memory[start : start + size] = state["spectrum"]
    moved = longwave.PreparedFilter.from_state_dict({**state, "spectrum": memory[start : start + size]})
    strided = longwave.PreparedFilter.from_state_dict({**state, "spectrum": torch.stack([state["spectrum"]] * 2, -1)[:, 0]})
    p = longwave.plan((3, 2, 100), (2, 100), backend="cpu").problem
    assert not spectra_of.is_ready(p, memory[start : start + size])
    for prepared in (moved, strided):
        assert torch.equal(longwave.long_conv(u, prepared), longwave.long_conv(u, k, backend="cpu"))


@pytest.mark.parametrize("G", [1, 3, 9])
@pytest.mark.parametrize(("mode", "L", "K"), [("causal", 1000, 1000), ("circular", 500, 700), ("causal", 100_000, 100_000)])
def test_a_filter_for_some_channels_has_the_bits_of_a_filter_a_channel(G: int, mode: str, L: int, K: int) -> None:
    """With as many channels as filters their spectra are used, with more they are made again; D is added to either."""
    u, k, D = torch.randn(2, 2 * G, L), torch.randn(G, K), torch.randn(2 * G)
    gate, dy = torch.randn_like(u), torch.randn_like(u)
    prepared = longwave.prepare_filter(k, L, mode=mode, backend="cpu")

    def results(h: slice) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in (u[:, h], D[h], gate[:, h])]
        y = longwave.long_conv(leaves[0], prepared, leaves[1], mode=mode, postgate=leaves[2])
        du, dD, dgate = torch.autograd.grad(y, leaves, dy[:, h])
        return [y.detach(), du, dgate, dD.expand(2, 1, -1).transpose(1, 2)]

    whole, even = results(slice(None)), slice(None, None, 2)
    for a, b in zip(whole, results(even), strict=True):
        assert torch.equal(a[:, even], b)
    want = longwave.long_conv(u.double(), k.double(), D.double(), mode=mode, postgate=gate.double(), backend="plain")
    assert relative_l2(whole[0], want) <= bound(torch.float32, L + K, "cpu")


def test_what_has_no_spectrum_of_its_own_says_so() -> None:
    few = longwave.plan((2, 3, 100), (3, 4), backend="cpu").problem
    assert spectra_of.spectrum_tag(few) == ""
    assert spectra_of.prepare(few, torch.randn(3, 4)) is None
    documents = longwave.plan((1, 3, 100), (3, 100), cu_seqlens=[0, 40, 100], backend="cpu").problem
    assert spectra_of.prepare(documents, torch.randn(3, 100)) is None
    assert spectra_of.prepare(longwave.plan((2, 3, 100), (2, 3, 100), backend="cpu").problem, torch.randn(2, 3, 100)) is None
