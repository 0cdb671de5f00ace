"""HyperZZW is its formula, sample by sample; its filters are of the sample that they are for."""

from __future__ import annotations

import math

import pytest
import torch

from longwave.errors import ArgumentError
from longwave.nn import CoordinateNetwork, HyperZZW
from longwave.reference import long_conv_ref


def _gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def _network(layer: CoordinateNetwork, points: int, context: torch.Tensor | None) -> torch.Tensor:
    """Point by point: (points, channels)."""
    rows = []
    for s in range(points):
        c = torch.tensor([-1 + 2 * s / (points - 1) if points > 1 else -1.0], dtype=torch.float64)
        h = torch.sin(layer.waves[0].weight @ c + layer.waves[0].bias)
        for i, linear in enumerate(layer.hidden):
            wave = layer.waves[i + 1]
            h = (linear.weight @ h + linear.bias) * torch.sin(wave.weight @ c + wave.bias)
            if context is not None:
                h = h * (layer.context[i].weight @ context[s] + layer.context[i].bias)
        rows.append(layer.out.weight @ h + layer.out.bias)
    return torch.stack(rows)


def _by_the_formula(layer: HyperZZW, u: torch.Tensor) -> torch.Tensor:
    out = []
    L, K = u.shape[1], layer.taps
    for x in u:
        pooled = torch.stack([x[s * L // K : -(-(s + 1) * L // K)].mean(dim=0) for s in range(K)])
        reduced = pooled @ layer.reduce.weight.T + layer.reduce.bias
        p = _gelu(reduced @ layer.context.weight.T + layer.context.bias)
        k = _network(layer.local_network, K, p).T
        local = long_conv_ref(x[None], k, mode="same", layout="BLH")[0]
        g = _network(layer.global_network, L, None)
        whole = torch.cat([local, g * x * (x @ layer.mix.weight.T + layer.mix.bias)], dim=1)
        out.append(whole @ layer.out_proj.weight.T + layer.out_proj.bias)
    return torch.stack(out)


@pytest.mark.parametrize(("length", "taps"), [(13, 5), (8, 8), (6, 9), (1, 3), (7, 1)])
@pytest.mark.parametrize("layers", [1, 2])
def test_hyper_zzw_is_its_formula(length: int, taps: int, layers: int) -> None:
    layer = HyperZZW(3, taps, width=6, layers=layers, frequency=3.0).double()
    with torch.no_grad():
        for network in (layer.local_network, layer.global_network):
            for linear in (*network.waves, network.out):  # as made, biases are zeros, and so is the tap in the middle
                linear.bias.normal_()
    u = torch.randn(3, length, 3, dtype=torch.float64)
    expected = _by_the_formula(layer, u)
    assert expected.std() > 1e-2
    torch.testing.assert_close(layer(u), expected, rtol=1e-9, atol=1e-10)


def test_filters_are_of_the_sample_that_they_are_for() -> None:
    layer = HyperZZW(3, 7, width=6)
    u = torch.randn(2, 20, 3)
    k = layer.filters(u)
    assert k.shape == (2, 3, 7)
    assert (k[0] - k[1]).abs().max() > 1e-3
    changed = u.clone()
    changed[0] += 1
    again = layer.filters(changed)
    torch.testing.assert_close(again[1], k[1])
    assert (again[0] - k[0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "make",
    [
        lambda: HyperZZW(0, 4),
        lambda: HyperZZW(4, 0),
        lambda: CoordinateNetwork(4, width=0),
        lambda: CoordinateNetwork(4, layers=0),
        lambda: HyperZZW(4, 4)(torch.zeros(1, 4, 5)),
        lambda: HyperZZW(4, 4)(torch.zeros(1, 4, 4), cu_seqlens=torch.tensor([0, 4])),
    ],
)
def test_hyper_zzw_refuses_what_does_not_fit(make) -> None:
    with pytest.raises(ArgumentError):
        make()
