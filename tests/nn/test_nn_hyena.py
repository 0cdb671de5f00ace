"""HyenaOperator equals its paper's formula, is causal, copies nothing and trains all over."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import longwave
from longwave.errors import ArgumentError
from longwave.masks import FrequencyMask
from longwave.nn import HyenaOperator
from longwave.reference import long_conv_ref


def _by_the_formula(layer: HyenaOperator, u: torch.Tensor) -> torch.Tensor:
    """The recurrence of the docstring with gates as products and convolutions as direct sums."""
    d, N = layer.d_model, layer.order
    projected = F.linear(u, layer.in_proj.weight, layer.in_proj.bias)
    w, bias = layer.short.weight, layer.short.bias
    taps = w.shape[1]
    local = bias + sum(w[:, taps - 1 - s] * F.pad(projected, (0, 0, s, 0))[:, : u.shape[1]] for s in range(taps))
    v, *x = local.split(d, dim=-1)
    k = layer.filter(min(u.shape[1], layer.filter.max_length))
    z = v
    for n in range(N - 1):
        gated = x[n] * z
        z = long_conv_ref(gated, k[n * d : (n + 1) * d], layout="BLH") + layer.D[n] * gated
    return F.linear(x[N - 1] * z, layer.out_proj.weight, layer.out_proj.bias)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize(("length", "max_length"), [(19, 19), (12, 40), (40, 12), (1, 8)])
def test_hyena_operator_is_the_formula(order: int, length: int, max_length: int) -> None:
    torch.manual_seed(0)
    layer = HyenaOperator(4, max_length, order=order, filter_options={"width": 8}).double()
    u = torch.randn(2, length, 4, dtype=torch.float64)
    expected = _by_the_formula(layer, u)
    assert expected.std() > 1e-3
    torch.testing.assert_close(layer(u), expected, rtol=1e-9, atol=1e-11)


def test_hyena_operator_sees_the_past_and_not_the_future() -> None:
    torch.manual_seed(0)
    layer = HyenaOperator(8, 64)
    u = torch.randn(1, 64, 8)
    changed = u.clone()
    changed[:, 40] += 1.0
    before, after = layer(u), layer(changed)
    difference = (after - before).abs().amax(dim=(0, 2))
    scale = before.abs().max()
    assert (difference[:40] < 1e-5 * scale).all()
    assert difference[40] > 1e-2 * scale  # the control: what may change does
    assert (difference[41:] > 1e-5 * scale).float().mean() > 0.9


def test_hyena_operator_hands_gates_to_the_convolution_without_copies() -> None:
    calls = []

    def conv(u, k, D, **options):
        calls.append((u, k, D, options))
        return longwave.long_conv(u, k, D, **options)

    layer = HyenaOperator(4, 16, order=3, backend="plain", conv=conv)
    layer(torch.randn(2, 16, 4))
    assert len(calls) == 2
    (v, k, D, first), (_, _, _, last) = calls
    assert first["pregate"].untyped_storage().data_ptr() == v.untyped_storage().data_ptr()
    assert last["postgate"].untyped_storage().data_ptr() == v.untyped_storage().data_ptr()
    assert first["postgate"] is None
    assert {call[3]["backend"] for call in calls} == {"plain"}
    assert {call[3]["layout"] for call in calls} == {"BLH"}
    assert k.dtype == torch.float32
    assert D.shape == (4,)


def test_hyena_operator_gives_every_parameter_a_gradient() -> None:
    torch.manual_seed(0)
    layer = HyenaOperator(4, 32, order=3)
    layer(torch.randn(2, 32, 4)).square().mean().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", [(2, 8), (2, 8, 5), (1, 2, 8, 4)])
def test_hyena_operator_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"\(B, L, 4\)"):
        HyenaOperator(4, 8)(torch.randn(shape))


def test_hyena_operator_refuses_order_one() -> None:
    with pytest.raises(ArgumentError, match="order"):
        HyenaOperator(4, 8, order=1)


def test_hyena_operator_behind_a_frequency_mask_looks_ahead() -> None:
    layer, u = HyenaOperator(4, 16), torch.randn(1, 16, 4)
    with torch.no_grad():
        changed = u.clone()
        changed[:, 8:] += 1
        assert torch.allclose(layer(changed)[:, :8], layer(u)[:, :8], atol=1e-6)
        layer.frequency_mask = FrequencyMask.lowpass(0.5)
        with pytest.raises(ArgumentError, match="leaks_future=True"):
            layer(u)
        layer.frequency_mask = FrequencyMask.lowpass(0.5, leaks_future=True)
        assert (layer(changed) - layer(u))[:, :8].abs().max() > 1e-4
