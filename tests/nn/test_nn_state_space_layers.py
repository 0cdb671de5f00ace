"""S4D and H3 against their papers' formulas, one step after the other in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn import H3, S4D, StateSpaceFilter


def states(filter: StateSpaceFilter) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A, the step and the factor of the input of zero-order hold, from the parameters: (H, N) each, one of each pair."""
    a = torch.complex(-filter.log_decay.double().exp(), filter.frequency.double())
    step = torch.exp(a * filter.log_dt.double().exp()[:, None])
    return torch.view_as_complex(filter.C.double()), step, (step - 1) / a


def recurrence(filter: StateSpaceFilter, u: torch.Tensor) -> torch.Tensor:
    """x' = Ā x + B̄ u, y = 2 Re C x, for u (B, L, H)."""
    C, step, drive = states(filter)
    x, y = torch.zeros(u.shape[0], *C.shape, dtype=torch.complex128), []
    for t in range(u.shape[1]):
        x = step * x + drive * u[:, t, :, None]
        y.append(2 * (C * x).sum(-1).real)
    return torch.stack(y, dim=1)


def test_s4d_is_its_recurrence() -> None:
    layer = S4D(4, 6, spectrum="inv").double()
    u = torch.randn(2, 30, 4, dtype=torch.float64)
    v = recurrence(layer.long.filter, u) + layer.long.D * u
    v = v * (1 + torch.erf(v / math.sqrt(2))) / 2
    a, b = (v @ layer.out_proj.weight.T + layer.out_proj.bias).chunk(2, dim=-1)
    expected = a / (1 + torch.exp(-b))
    torch.testing.assert_close(layer(u), expected, rtol=1e-10, atol=1e-11)
    assert expected.abs().max() > 0.1


def test_two_sided_s4d_sees_both_sides() -> None:
    layer = S4D(3, 4, two_sided=True).double()
    u = torch.randn(1, 20, 3, dtype=torch.float64)
    v = recurrence(layer.long.filter, u) + recurrence(layer.long.filter_rev, u.flip(1)).flip(1) + layer.long.D * u
    torch.testing.assert_close(layer(u), F.glu(layer.out_proj(F.gelu(v))), rtol=1e-10, atol=1e-11)
    with pytest.raises(ArgumentError, match="looks ahead"):
        layer.stream(1)


@pytest.mark.parametrize("head_dim", [1, 2, 6])
def test_h3_is_its_recurrence(head_dim: int) -> None:
    """Algorithm 1: a state of the last keys moves along, its outer products with values run through the diagonal one."""
    d, N, L, heads = 6, 4, 25, 6 // head_dim
    layer = H3(d, N, head_dim=head_dim).double()
    u = torch.randn(2, L, d, dtype=torch.float64)
    q, k, v = (u @ W.T + b for W, b in zip(layer.in_proj.weight.chunk(3), layer.in_proj.bias.chunk(3), strict=True))
    shift = torch.diag(torch.ones(N - 1, dtype=torch.float64), -1)  # moves every key one place on
    first = torch.eye(N, dtype=torch.float64)[0]
    C, step, drive = states(layer.filter)
    keys = torch.zeros(2, d, N, dtype=torch.float64)
    x = torch.zeros(2, heads, head_dim, head_dim, C.shape[-1], dtype=torch.complex128)
    expected = torch.zeros(2, L, d, dtype=torch.float64)
    for t in range(L):
        keys = keys @ shift.T + k[:, t, :, None] * first
        shifted = (keys * layer.shift.weight.flip(-1)).sum(-1).unflatten(-1, (heads, head_dim))
        kv = shifted[..., :, None] * v[:, t].unflatten(-1, (heads, head_dim))[..., None, :]
        x = step[:, None, None] * x + drive[:, None, None] * kv[..., None]
        stored = 2 * (C[:, None, None] * x).sum(-1).real + layer.D[:, None, None] * kv
        expected[:, t] = torch.einsum("bhi,bhij->bhj", q[:, t].unflatten(-1, (heads, head_dim)), stored).flatten(-2)
    expected = expected @ layer.out_proj.weight.T + layer.out_proj.bias
    torch.testing.assert_close(layer(u), expected, rtol=1e-10, atol=1e-11)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("make", [lambda: S4D(4, 6), lambda: H3(4, 6), lambda: H3(4, 6, head_dim=2)])
def test_layers_stream(make) -> None:
    layer = make().double()
    u = torch.randn(2, 90, 4, dtype=torch.float64)
    stream = layer.stream(2, max_rollback=3)
    parts = [stream.prefill(u[:, :20])]
    stream.extend(torch.randn(2, 3, 4, dtype=torch.float64))
    stream.rollback(3)
    parts += [stream.step(u[:, t])[:, None] for t in range(20, 50)] + [stream.extend(u[:, 50:])]
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(parts, dim=1), layer(u), rtol=1e-10, atol=1e-11)
    assert stream.position == 90


@pytest.mark.parametrize(
    "call",
    [lambda: H3(4, 6, head_dim=3), lambda: H3(0), lambda: H3(4, 6)(torch.zeros(2, 4)), lambda: S4D(4, 6)(torch.zeros(1, 4, 3))],
)
def test_layers_refuse(call) -> None:
    with pytest.raises(ArgumentError, match=r"H3|S4D"):
        call()
