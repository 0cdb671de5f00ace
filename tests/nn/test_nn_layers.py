"""LongConv1d, ShortConv1d and HyenaFilter: what they compute, what they refuse, what trains."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.masks import FrequencyMask
from longwave.nn import HyenaFilter, Inputs, LongConv1d, ShortConv1d
from longwave.reference import long_conv_ref


@pytest.mark.parametrize("mode", ["causal", "circular", "same"])
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
@pytest.mark.parametrize("taps", [1, 7, 40])
def test_long_conv1d_is_the_direct_sum(mode: str, layout: str, taps: int) -> None:
    torch.manual_seed(0)
    layer = LongConv1d(3, taps, mode=mode, layout=layout).double()
    layer.D.data.normal_()
    u = torch.randn((2, 3, 17) if layout == "BHL" else (2, 17, 3), dtype=torch.float64)
    gates = torch.randn(2, *u.shape, dtype=torch.float64)
    y = layer(u, pregate=gates[0], postgate=gates[1])
    expected = long_conv_ref(u, layer.k, layer.D, mode=mode, pregate=gates[0], postgate=gates[1], layout=layout)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert expected.abs().max() > 0.1


def test_long_conv1d_without_skip_has_no_d() -> None:
    layer = LongConv1d(2, 3, skip=False)
    assert [name for name, _ in layer.named_parameters()] == ["k"]
    u = torch.randn(1, 2, 5)
    torch.testing.assert_close(layer(u), long_conv_ref(u, layer.k).float())


def test_long_conv1d_behind_a_frequency_mask() -> None:
    mask = FrequencyMask.lowpass(0.5)
    layer = LongConv1d(2, 7, mode="same", skip=False, frequency_mask=mask)
    u = torch.randn(1, 2, 20)
    torch.testing.assert_close(layer(u), long_conv_ref(u, layer.k, mode="same", frequency_mask=mask).float())
    assert "frequency_mask=FrequencyMask.lowpass(0.5)" in repr(layer)
    layer.frequency_mask = None
    torch.testing.assert_close(layer(u), long_conv_ref(u, layer.k, mode="same").float())


def test_long_conv1d_calls_the_operator_it_was_given() -> None:
    seen = {}

    def conv(u, k, D, **options):
        seen.update(options, taps=k.shape[-1])
        return u * 2

    u = torch.randn(1, 2, 5)
    assert torch.equal(LongConv1d(2, 4, conv=conv, backend="plain")(u), u * 2)
    assert seen["taps"] == 4
    assert seen["backend"] == "plain"


def test_short_conv1d_is_conv1d_padded_on_the_left() -> None:
    torch.manual_seed(0)
    layer = ShortConv1d(4, 3, layout="BLH", activation="silu")
    x = torch.randn(2, 9, 4)
    y = F.conv1d(F.pad(x.transpose(1, 2), (2, 0)), layer.weight[:, None], layer.bias, groups=4)
    torch.testing.assert_close(layer(x), F.silu(y).transpose(1, 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: LongConv1d(0, 3),
        lambda: LongConv1d(3, 0),
        lambda: LongConv1d(3, 3, mode="full"),
        lambda: ShortConv1d(3, 257),
        lambda: HyenaFilter(0, 8),
        lambda: HyenaFilter(2, 8, features=4),
        lambda: HyenaFilter(2, 8, fast_decay=0.0),
        lambda: HyenaFilter(2, 8, fast_decay=2.0, slow_decay=1.0),
        lambda: HyenaFilter(2, 8)(9),
        lambda: HyenaFilter(2, 8)(0),
    ],
)
def test_layer_refuses_sizes_out_of_range(make) -> None:
    with pytest.raises(ArgumentError):
        make()


def _filter_by_the_formula(layer: HyenaFilter) -> torch.Tensor:
    """Tap by tap and channel by channel, as the docstring has it."""
    N, bands = layer.max_length, (layer.features - 1) // 2
    frequencies = torch.linspace(1e-4, bands - 1, bands, dtype=torch.float64)
    rates = torch.linspace(1 / layer.fast_decay, 1 / layer.slow_decay, layer.channels, dtype=torch.float64)
    k = torch.empty(layer.channels, N, dtype=torch.float64)
    for s in range(N):
        p = s / (N - 1)
        wave = torch.exp(-2j * math.pi * p * frequencies)
        x = torch.cat([torch.tensor([p], dtype=torch.float64), wave.real, wave.imag])
        for linear, sine in zip(layer.layers, layer.activations, strict=True):
            x = torch.sin(sine.frequency * (linear.weight @ x + linear.bias))
        k[:, s] = layer.out.weight @ x * 0.01 ** (p * rates)
    return k


def test_hyena_filter_is_its_formula() -> None:
    torch.manual_seed(1)
    layer = HyenaFilter(5, 33, features=7, width=16, fast_decay=0.1)
    expected = _filter_by_the_formula(layer.double())
    assert expected.std() > 0.01
    torch.testing.assert_close(layer(), expected, rtol=1e-10, atol=1e-12)
    # In float32 the sine's frequency multiplies what rounding left: ten times the usual tolerance.
    torch.testing.assert_close(layer.float()().double(), expected, rtol=1e-4, atol=1e-5)


def test_hyena_filter_shorter_is_its_first_taps() -> None:
    torch.manual_seed(0)
    layer = HyenaFilter(3, 64)
    torch.testing.assert_close(layer(10), layer()[:, :10])


@pytest.mark.parametrize("cast", [torch.float32, torch.bfloat16])
def test_hyena_filter_stays_float32_under_autocast_and_in_16_bits(cast: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = HyenaFilter(3, 64).to(cast)
    alone = layer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        k = layer()
    assert k.dtype == torch.float32
    assert k.shape == (3, 64)
    assert torch.equal(k, alone)


def test_hyena_filter_decays_to_a_hundredth_where_it_says() -> None:
    layer = HyenaFilter(2, 101, fast_decay=0.25, slow_decay=1.0).double()
    with torch.no_grad():
        for activation in layer.activations:
            activation.frequency.zero_()
        layer.out.weight.fill_(1.0)
        layer.activations[-1].frequency.fill_(1.0)
        layer.layers[-1].weight.zero_()
        layer.layers[-1].bias.fill_(1.0)
    k = layer()
    assert (k[0, 25] / k[0, 0]).item() == pytest.approx(0.01)
    assert (k[1, 100] / k[1, 0]).item() == pytest.approx(0.01)


@pytest.mark.parametrize("token", [3, -1])
def test_tokens_that_are_not_in_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(ArgumentError, match=f"tokens are {min(token, 0)} to {max(token, 2)}, and this model reads 0 to 2"):
        Inputs(4, vocabulary=3)(torch.tensor([[0, 1, 2], [2, token, 0]]))


def test_inputs_read_tokens_or_numbers_and_refuse_the_other() -> None:
    torch.manual_seed(0)
    tokens, numbers = Inputs(4, vocabulary=3), Inputs(4, vocabulary=0, values=2)
    given = torch.tensor([[0, 2, 1]])
    assert torch.equal(tokens(given), tokens.weight[given])
    x = torch.randn(2, 5, 2)
    torch.testing.assert_close(numbers(x), x @ numbers.weight.T + numbers.bias)
    for layer, wrong in ((tokens, x), (tokens, given[0]), (numbers, given), (numbers, x[..., :1]), (numbers, x[0])):
        with pytest.raises(ArgumentError, match="this model takes"):
            layer(wrong)
    for sizes in ({"vocabulary": 0}, {"vocabulary": 3, "values": 1}, {"vocabulary": 0, "values": -1}):
        with pytest.raises(ArgumentError, match="tokens or numbers"):
            Inputs(4, **sizes)
