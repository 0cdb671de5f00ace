"""Butterfly begins as the Fourier transform, ButterflyConv1d as the convolution; what they learn is no convolution."""

from __future__ import annotations

import math

import pytest
import torch

from longwave.errors import ArgumentError
from longwave.nn import Butterfly, ButterflyConv1d, SquashedFilter
from longwave.nn.butterfly import factors
from longwave.reference import long_conv_ref


def _fourier(N: int) -> torch.Tensor:
    n = torch.arange(N, dtype=torch.float64)
    return torch.exp(-2j * math.pi * (torch.outer(n, n) % N) / N)


def _order(sizes: tuple[int, ...]) -> list[int]:
    """Where the frequencies come: the place of k = k_1 + n_1·(k_2 + n_2·…) has k_1 as its first digit."""
    places = [0]
    for n in reversed(sizes):
        places = [k + n * rest for k in range(n) for rest in places]
    return places


@pytest.mark.parametrize("sizes", [(1,), (5,), (4, 4), (3, 5), (2, 3, 4), (2, 2, 2, 2)])
def test_butterfly_begins_as_the_fourier_transform_and_its_inverse(sizes: tuple[int, ...]) -> None:
    N = math.prod(sizes)
    z = torch.randn(3, N, dtype=torch.complex128)
    layer, back = Butterfly(sizes).double(), Butterfly(sizes, inverse=True).double()
    expected = (z @ _fourier(N))[:, _order(sizes)]
    torch.testing.assert_close(layer(z), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(back(expected), z, rtol=1e-12, atol=1e-12)
    assert sum(p.numel() for p in layer.parameters()) == 2 * sum(n * n for n in sizes)


def test_learned_factors_are_matrices_between_twiddles() -> None:
    """Against dense matrices: (D_2 on the rows) · twiddles · (D_1 on the columns)."""
    layer = Butterfly((3, 4)).double()
    with torch.no_grad():
        for delta in layer.delta:
            delta.normal_()
    F1, F2 = (_fourier(n) + torch.view_as_complex(d.detach()) for n, d in zip((3, 4), layer.delta, strict=True))
    twiddles = torch.diag(torch.stack([_fourier(12)[k, m] for k in range(3) for m in range(4)]))
    dense = torch.block_diag(F2, F2, F2) @ twiddles @ torch.kron(F1, torch.eye(4))
    z = torch.randn(2, 12, dtype=torch.complex128)
    torch.testing.assert_close(layer(z), z @ dense.T, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("points", [1, 2, 48, 97, 784, 1_000, 16_384])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_sizes_are_nearly_equal_and_hold_all_points(points: int, order: int) -> None:
    sizes = factors(points, order)
    assert len(sizes) == order
    assert points <= math.prod(sizes) <= points + 4 * points ** ((order - 1) / order)
    assert max(sizes) - min(sizes) <= 1 or points < 2**order


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("length", "max_length"), [(1, 1), (1, 9), (20, 20), (13, 30), (97, 97)])
def test_butterfly_conv_begins_as_the_direct_sum(two_sided: bool, order: int, length: int, max_length: int) -> None:
    filter, mode = SquashedFilter(3, max_length, two_sided=two_sided), "same" if two_sided else "causal"
    layer = ButterflyConv1d(filter, order=order)
    u = torch.randn(2, length, 3)
    expected = long_conv_ref(u, filter(length), layer.D, mode=mode, layout="BLH")
    found = layer(u)
    assert found.dtype == torch.float32
    assert (found - expected).norm() <= 1e-6 * expected.norm()
    exact = layer.double()(u.double())
    torch.testing.assert_close(exact, expected, rtol=1e-6, atol=1e-6)  # k as rounded is k
    expected = long_conv_ref(u, filter(length), layer.D, mode=mode, layout="BLH")
    torch.testing.assert_close(exact, expected, rtol=1e-12, atol=1e-13)


def test_trained_transforms_are_no_convolution_and_see_the_future() -> None:
    layer = ButterflyConv1d(SquashedFilter(2, 16)).double()
    u = torch.randn(1, 16, 2, dtype=torch.float64)
    changed = u.clone()
    changed[:, 10:] += 1
    assert (layer(changed) - layer(u))[:, :10].abs().max() < 1e-12
    with torch.no_grad():
        for parameter in layer.of_input.parameters():
            parameter.normal_(std=0.1)
    assert (layer(changed) - layer(u))[:, :10].abs().max() > 1e-3


def test_butterfly_conv_gives_every_parameter_its_gradient() -> None:
    layer = ButterflyConv1d(SquashedFilter(2, 6, two_sided=True, squash=0.0)).double()
    u = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def run(u: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (u,))

    assert torch.autograd.gradcheck(run, (u, *parameters))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Butterfly(()),
        lambda: Butterfly((4, 0)),
        lambda: Butterfly((4, 2))(torch.zeros(2, 9, dtype=torch.complex64)),
        lambda: ButterflyConv1d(SquashedFilter(2, 8), order=0),
        lambda: ButterflyConv1d(SquashedFilter(2, 8))(torch.zeros(1, 9, 2)),
        lambda: ButterflyConv1d(SquashedFilter(2, 8)).stream(1),
        lambda: ButterflyConv1d(SquashedFilter(2, 8))(torch.zeros(1, 8, 3)),
        lambda: ButterflyConv1d(SquashedFilter(2, 8))(torch.zeros(1, 8, 2), cu_seqlens=torch.tensor([0, 8])),
    ],
)
def test_butterflies_refuse_what_does_not_fit(make) -> None:
    with pytest.raises(ArgumentError):
        make()
