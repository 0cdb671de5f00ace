"""SquashedFilter and MultiScaleFilter tap by tap; ConvGLU and FilterConv1d as their formula."""

from __future__ import annotations

import math

import pytest
import torch

from longwave import long_conv
from longwave.errors import ArgumentError
from longwave.nn import ConvGLU, FilterConv1d, HyenaFilter, MultiScaleFilter, SquashedFilter
from longwave.nn.explicit_filters import Zoom, zoomed
from longwave.reference import long_conv_ref


@pytest.mark.parametrize(("squash", "smooth"), [(0.0, 0), (0.01, 0), (0.0, 2), (0.003, 1)])
@pytest.mark.parametrize("taps", [1, 7, 11, 12])
@pytest.mark.parametrize("two_sided", [False, True])
def test_squashed_filter_is_its_formula(squash: float, smooth: int, taps: int, two_sided: bool) -> None:
    layer = SquashedFilter(3, 12, two_sided=two_sided, squash=squash, smooth=smooth).double()
    k, before = layer.k.detach(), 11 if two_sided else 0
    after = 12 + two_sided
    assert k.shape == (3, before + after)
    lags = range(1 - taps if two_sided else 0, taps + two_sided)
    expected = torch.zeros(3, len(lags), dtype=torch.float64)
    for h in range(3):
        for i, lag in enumerate(lags):
            near = (j for j in range(lag - smooth, lag + smooth + 1) if -before <= j < after)
            mean = sum(k[h, before + j].item() for j in near) / (2 * smooth + 1)
            expected[h, i] = math.copysign(max(abs(mean) - squash, 0.0), mean)
    torch.testing.assert_close(layer(taps), expected, rtol=1e-12, atol=1e-15)
    if squash:
        assert (layer() == 0).any()
    assert expected.abs().max() > 1e-3


def test_squashed_filter_decays_from_channel_to_channel() -> None:
    torch.manual_seed(0)
    k = SquashedFilter(64, 4_096, squash=0.0)().detach()
    late = k[:, 3_072:].std(dim=1) / k[:, :256].std(dim=1)
    assert late[0] > 0.3
    assert late[-1] < 1e-3
    k = SquashedFilter(64, 4_096, two_sided=True, squash=0.0)().detach()
    assert torch.equal(k[:, 8_191], torch.zeros(64))
    for side in (k[:, 4_095:8_191], k[:, :4_096].flip(-1)):
        late = side[:, 3_072:].std(dim=1) / side[:, :256].std(dim=1)
        assert late[0] > 0.3
        assert late[-1] < 1e-3


@pytest.mark.parametrize(("max_length", "scale_taps"), [(64, 8), (50, 8), (8, 8), (5, 8), (9, 1), (40, 3)])
def test_multi_scale_filter_is_its_formula(max_length: int, scale_taps: int) -> None:
    layer = MultiScaleFilter(3, max_length, scale_taps=scale_taps, slow_decay=1.0, fast_decay=3.0).double()
    decays = [1.0, 2.0, 3.0]
    weight = layer.weight.detach()
    k = torch.zeros(3, 0, dtype=torch.float64)
    for i, w in enumerate(weight):
        n = scale_taps * 2 ** max(i - 1, 0)
        part = torch.zeros(3, n, dtype=torch.float64)
        for h in range(3):
            for t in range(n):
                # Parameter j stands at (j + ½) / scale_taps of the part; beyond the first and the last nothing changes.
                place = min(max((t + 0.5) / n * scale_taps - 0.5, 0.0), scale_taps - 1.0)
                j = min(int(place), scale_taps - 1)
                after = min(j + 1, scale_taps - 1)
                part[h, t] = (w[h, j] * (1 - (place - j)) + w[h, after] * (place - j)) / decays[h] ** i
        k = torch.cat([k, part], dim=1)
    assert k.shape[1] >= max_length
    assert k.shape[1] < 2 * max(max_length, scale_taps)
    expected = k[:, :max_length] / k.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layer(), expected, rtol=1e-6, atol=1e-7)  # Z was rounded to float32 as drawn
    layer.norm = k.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layer(), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(layer(3), expected[:, :3], rtol=1e-12, atol=1e-13)


def test_multi_scale_filter_has_few_parameters_and_norm_one() -> None:
    layer = MultiScaleFilter(4, 16_384, scale_taps=64)
    assert layer.weight.shape == (9, 4, 64)
    torch.testing.assert_close(layer().norm(dim=1), torch.ones(4))
    with torch.no_grad():
        layer.weight.mul_(2)  # the norm is of what was drawn
    torch.testing.assert_close(layer().norm(dim=1), 2 * torch.ones(4))


@pytest.mark.parametrize("make", [SquashedFilter, MultiScaleFilter])
@pytest.mark.parametrize("cast", [torch.float32, torch.bfloat16])
def test_filters_stay_float32_under_autocast_and_in_16_bits(make, cast: torch.dtype) -> None:
    layer = make(3, 100).to(cast)
    alone = layer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        k = layer()
    assert k.dtype == torch.float32
    assert torch.equal(k, alone)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SquashedFilter(0, 8),
        lambda: SquashedFilter(2, 8, squash=-1.0),
        lambda: SquashedFilter(2, 8, smooth=-1),
        lambda: SquashedFilter(2, 8)(9),
        lambda: MultiScaleFilter(2, 0),
        lambda: MultiScaleFilter(2, 8, scale_taps=0),
        lambda: MultiScaleFilter(2, 8, slow_decay=0.5),
        lambda: MultiScaleFilter(2, 8, slow_decay=3.0, fast_decay=2.0),
        lambda: MultiScaleFilter(2, 8)(0),
        lambda: ConvGLU(4, FilterConv1d(SquashedFilter(4, 8)), heads=2),
        lambda: ConvGLU(4, FilterConv1d(SquashedFilter(4, 8)))(torch.randn(2, 8, 5)),
        lambda: FilterConv1d(SquashedFilter(4, 8), SquashedFilter(4, 8)).stream(1),
        lambda: FilterConv1d(SquashedFilter(4, 8, two_sided=True)).stream(1),
        lambda: FilterConv1d(SquashedFilter(4, 8, two_sided=True), SquashedFilter(4, 8)),
    ],
)
def test_layers_refuse_what_is_out_of_range(make) -> None:
    with pytest.raises(ArgumentError):
        make()


def _both_sides(H: int, K: int) -> SquashedFilter:
    return SquashedFilter(H, K, two_sided=True)


@pytest.mark.parametrize("make", [SquashedFilter, _both_sides, MultiScaleFilter, lambda H, K: HyenaFilter(H, K, width=8)])
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("length", "max_length"), [(19, 19), (7, 30), (40, 12), (1, 5)])
def test_conv_glu_is_its_formula(make, two_sided: bool, heads: int, length: int, max_length: int) -> None:
    both = make is _both_sides
    filters = [make(4 * heads, max_length) for _ in range(1 + (two_sided and not both))]
    layer = ConvGLU(4, FilterConv1d(*filters), heads=heads).double()
    u = torch.randn(2, length, 4, dtype=torch.float64)
    taps = min(length, max_length)
    k, k_rev = (filters[0](taps), filters[-1](taps) if two_sided or both else None)
    if both:
        k, k_rev = k[:, taps - 1 :], k[:, :taps].flip(-1).clone()
        k_rev[:, 0] = 0
    copied = torch.cat([u] * heads, dim=-1)
    y = long_conv_ref(copied, k, k_rev=k_rev, layout="BLH") + layer.long.D * copied
    y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
    value, gate = (y @ layer.out_proj.weight.T + layer.out_proj.bias).split(4, dim=-1)
    expected = value / (1 + torch.exp(-gate))
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(layer(u), expected, rtol=1e-9, atol=1e-11)


def _places(side: int) -> dict[int, tuple[int, int]]:
    """Lag -> the place that it is of."""
    return {dy * side + dx: (dy, dx) for dy in range(-side, side + 1) for dx in range(-(side // 2), (side + 1) // 2)}


@pytest.mark.parametrize(("side", "new_side", "factor"), [(4, 4, 1.0), (4, 8, 2.0), (5, 7, 1.44), (6, 5, 0.8), (8, 16, 1.44)])
def test_zoomed_taps_are_those_of_the_places_between(side: int, new_side: int, factor: float) -> None:
    lags = side * side
    k = torch.randn(3, 2 * lags, dtype=torch.float64)
    taps = {lag: k[:, lag + lags - 1] for lag in range(1 - lags, lags)}
    there = {place: taps[lag] for lag, place in _places(side).items() if lag in taps}
    expected = torch.zeros(3, 2 * new_side**2, dtype=torch.float64)
    for lag, (dy, dx) in _places(new_side).items():
        if abs(lag) < new_side**2:
            for (y, x), tap in there.items():
                near = max(1 - abs(dy / factor - y), 0) * max(1 - abs(dx / factor - x), 0)
                expected[:, lag + new_side**2 - 1] += near * tap / factor**2
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(zoomed(k, Zoom(side, new_side, factor), two_sided=True), expected, rtol=1e-12, atol=1e-12)
    alone = zoomed(k[:, lags - 1 : -1], Zoom(side, new_side, factor), two_sided=False)
    k[:, : lags - 1] = 0
    assert torch.equal(alone, zoomed(k, Zoom(side, new_side, factor), two_sided=True)[:, new_side**2 - 1 : -1])


def test_a_filter_sees_in_a_larger_image_what_it_saw() -> None:
    side, factor = 16, 2
    rows, columns = torch.meshgrid(torch.arange(side) - 8.0, torch.arange(side) - 8.0, indexing="ij")
    image = torch.exp(-((rows - 1) ** 2 + columns**2) / 8)
    large = torch.nn.functional.interpolate(image[None, None], scale_factor=factor, mode="bilinear")[0, 0]
    k = torch.zeros(1, 2 * side * side)
    for dy, dx in ((0, 1), (1, -2), (2, 3)):  # what is above and to the left of a pixel, and what is below
        k[0, side * side - 1 + dy * side + dx] = 1.0
        k[0, side * side - 1 - (dy * side + dx + 1)] = 0.5
    new = zoomed(k, Zoom(side, factor * side, factor), two_sided=True)
    before = long_conv(image.reshape(1, -1), k, mode="same").view(side, side)
    after = long_conv(large.reshape(1, -1), new, mode="same").view(factor * side, factor * side)
    shrunk = torch.nn.functional.avg_pool2d(after[None, None], factor)[0, 0]
    assert (shrunk - before).norm() < 0.06 * before.norm()
