"""MonarchLinear is the dense matrix its docstring names; MonarchMixer is its formula and sees both sides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn import MonarchLinear, MonarchMixer
from longwave.reference import long_conv_ref


def _dense(layer: MonarchLinear) -> torch.Tensor:
    """M, entry by entry: W, or Pᵀ W P V."""
    b = layer.blocks
    W = torch.block_diag(*layer.weight.detach().unbind())
    if layer.inner is None:
        return W

    def deal(m: int) -> torch.Tensor:
        P = torch.zeros(b * m, b * m, dtype=torch.float64)
        for i in range(b):
            for j in range(m):
                P[j * b + i, i * m + j] = 1
        return P

    V = torch.block_diag(*layer.inner.detach().unbind())
    return deal(layer.out_features // b) @ W @ deal(layer.in_features // b) @ V


@pytest.mark.parametrize(("blocks", "factors"), [(1, 1), (4, 1), (1, 2), (2, 2), (4, 2)])
@pytest.mark.parametrize(("wide_in", "wide_out"), [(16, 16), (16, 40), (48, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_monarch_linear_is_its_dense_matrix(blocks: int, factors: int, wide_in: int, wide_out: int, bias: bool) -> None:
    layer = MonarchLinear(wide_in, wide_out, blocks=blocks, factors=factors, bias=bias).double()
    x = torch.randn(2, 5, wide_in, dtype=torch.float64, requires_grad=True)
    M = _dense(layer)
    expected = x @ M.T + (layer.bias if bias else 0)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((layer(x) * direction).sum(), x)
    torch.testing.assert_close(gradient, direction @ M, rtol=1e-12, atol=1e-12)
    assert gradient.abs().max() > 0.1
    if factors == 2 and wide_in // blocks >= blocks:
        assert (M != 0).all()  # every output hears of every input
    else:
        assert (M != 0).sum() == wide_in * wide_out // blocks
    weights = layer.weight.numel() + (layer.inner.numel() if layer.inner is not None else 0)
    assert weights == wide_in * (wide_out + (wide_in if factors == 2 else 0)) // blocks


def test_monarch_linear_keeps_the_scale_of_a_dense_layer() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 256)
    dense = torch.nn.Linear(256, 256, bias=False)(x).std()
    block = MonarchLinear(256, 256, blocks=4, bias=False)(x).std()
    assert block.item() == pytest.approx(dense.item(), rel=0.1)


@pytest.mark.parametrize(
    "sizes", [(9, 8, 2, 1), (8, 9, 2, 1), (8, 8, 0, 1), (8, 8, 2, 3), (0, 8, 1, 1), (6, 8, 2, 2), (8, 0, 1, 1)]
)
def test_monarch_linear_refuses_sizes_out_of_range(sizes: tuple[int, int, int, int]) -> None:
    with pytest.raises(ArgumentError, match="MonarchLinear"):
        MonarchLinear(sizes[0], sizes[1], blocks=sizes[2], factors=sizes[3])


def test_monarch_linear_refuses_another_width() -> None:
    with pytest.raises(ArgumentError, match=r"\(…, 8\)"):
        MonarchLinear(8, 8, blocks=2)(torch.randn(3, 4))


def _by_the_formula(layer: MonarchMixer, u: torch.Tensor) -> torch.Tensor:
    """The docstring with gates as products and convolutions as direct sums."""
    projected = F.linear(u, layer.in_proj.weight, layer.in_proj.bias)
    w, bias = layer.short.weight, layer.short.bias
    taps, L = w.shape[1], u.shape[1]
    local = bias + sum(w[:, taps - 1 - s] * F.pad(projected, (0, 0, s, 0))[:, :L] for s in range(taps))
    x1, x2, v = local.split(layer.d_model, dim=-1)
    K = layer.max_length if layer.circular else min(L, layer.max_length)
    k, k_rev, k2, k2_rev = (f(K) for f in layer.filters)
    mode: Any = "circular" if layer.circular else "causal"
    g = x2 * (long_conv_ref(x1 * v, k, mode=mode, k_rev=k_rev, layout="BLH") + layer.D[0] * x1 * v)
    r = long_conv_ref(u, k2, mode=mode, k_rev=k2_rev, layout="BLH") + layer.D[1] * u
    return F.linear(g + r, layer.out_proj.weight, layer.out_proj.bias)


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize(("length", "max_length"), [(19, 19), (12, 40), (40, 12), (1, 8)])
def test_monarch_mixer_is_the_formula(circular: bool, length: int, max_length: int) -> None:
    layer = MonarchMixer(4, max_length, circular=circular, filter_options={"width": 8}).double()
    u = torch.randn(2, length, 4, dtype=torch.float64)
    expected = _by_the_formula(layer, u)
    assert expected.std() > 1e-2
    torch.testing.assert_close(layer(u), expected, rtol=1e-9, atol=1e-11)


def test_monarch_mixer_sees_as_far_on_either_side_as_its_filters_reach() -> None:
    layer = MonarchMixer(3, 6, filter_options={"width": 8}).double()
    u = torch.randn(1, 30, 3, dtype=torch.float64)
    changed = u.clone()
    changed[:, 15] += 1
    seen = (layer(changed) - layer(u)).abs().amax(dim=(0, 2)) > 1e-9
    assert seen[10:23].all()  # five before; five after, and two more through the short convolution
    assert not seen[:10].any()
    assert not seen[23:].any()


@pytest.mark.parametrize("shape", [(2, 8), (2, 8, 5)])
def test_monarch_mixer_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"\(B, L, 4\)"):
        MonarchMixer(4, 8)(torch.randn(shape))
    with pytest.raises(ArgumentError, match="d_model"):
        MonarchMixer(0, 8)
