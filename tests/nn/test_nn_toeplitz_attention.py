"""ToeplitzAttention is attention by a dense matrix of weights."""

from __future__ import annotations

import math

import pytest
import torch

from longwave.errors import ArgumentError
from longwave.nn import ToeplitzAttention, toeplitz_attention


def _by_the_formula(layer: ToeplitzAttention, u: torch.Tensor) -> torch.Tensor:
    """Weight by weight: position i hears j with e^(b[i - j]) φ(q_i)·φ(k_j)."""
    B, L, d = u.shape
    width, m = d // layer.heads, layer.features
    q, k, v = (u @ layer.in_proj.weight.T + layer.in_proj.bias).split(d, dim=-1)
    out = torch.zeros(B, L, d, dtype=torch.float64)
    for h in range(layer.heads):
        at = slice(h * width, (h + 1) * width)
        w = layer.directions[h]

        def phi(x: torch.Tensor, w: torch.Tensor = w) -> torch.Tensor:
            return math.exp(-0.5) / math.sqrt(m) * torch.exp(x / x.norm(dim=-1, keepdim=True) @ w.T)

        for n in range(B):
            features_q, features_k = phi(q[n, :, at]), phi(k[n, :, at])
            for i in range(L):
                numerator, denominator = torch.zeros(width, dtype=torch.float64), 0.0
                for j in range(L):
                    lag = i - j
                    if abs(lag) >= layer.max_length or (lag < 0 and layer.b_rev is None):
                        continue
                    b = layer.b[h, lag] if lag >= 0 else layer.b_rev[h, -lag - 1]
                    weight = math.exp(b.item()) * (features_q[i] @ features_k[j])
                    numerator, denominator = numerator + weight * v[n, j, at], denominator + weight
                out[n, i, at] = numerator / denominator
    return out @ layer.out_proj.weight.T + layer.out_proj.bias


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize(("heads", "features"), [(1, 3), (2, 11)])
@pytest.mark.parametrize(("length", "max_length"), [(17, 17), (9, 20), (15, 4), (1, 6)])
def test_toeplitz_attention_is_its_formula(two_sided: bool, heads: int, features: int, length: int, max_length: int) -> None:
    layer = ToeplitzAttention(6, max_length, heads=heads, features=features, two_sided=two_sided).double()
    with torch.no_grad():
        layer.b.normal_()
        if layer.b_rev is not None:
            layer.b_rev.normal_()
        u = torch.randn(2, length, 6, dtype=torch.float64)
        expected = _by_the_formula(layer, u)
        found = layer(u)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    assert expected.std() > 1e-2


def test_toeplitz_attention_with_equal_weights_is_the_mean_so_far() -> None:
    layer = ToeplitzAttention(4, 20, heads=2).double()
    layer.directions.zero_()
    u = torch.randn(1, 20, 4, dtype=torch.float64)
    v = layer.in_proj(u)[..., 8:]
    means = v.cumsum(dim=1) / torch.arange(1, 21).view(1, -1, 1)
    torch.testing.assert_close(layer(u), layer.out_proj(means), rtol=1e-9, atol=1e-10)


def test_features_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, calls = ToeplitzAttention(6, 9, features=10, heads=2).double(), []
    u = torch.randn(1, 9, 6, dtype=torch.float64)
    whole = layer(u)
    conv = layer.conv
    layer.conv = lambda x, *args, **options: calls.append(x.shape[-1]) or conv(x, *args, **options)
    monkeypatch.setattr(toeplitz_attention, "FEATURES", 4)
    torch.testing.assert_close(layer(u), whole, rtol=1e-12, atol=1e-12)
    assert calls == [32, 32, 16]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ToeplitzAttention(6, 8, heads=4),
        lambda: ToeplitzAttention(6, 0, heads=2),
        lambda: ToeplitzAttention(6, 8, heads=2, features=0),
        lambda: ToeplitzAttention(6, 8, heads=2)(torch.zeros(1, 8, 5)),
        lambda: ToeplitzAttention(6, 8, heads=2, two_sided=True).stream(1),
    ],
)
def test_toeplitz_attention_refuses_what_does_not_fit(make) -> None:
    with pytest.raises(ArgumentError):
        make()
