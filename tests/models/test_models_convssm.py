"""ConvSSM over the plane: what the suite, which looks along time, does not see."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from longwave.errors import ArgumentError
from longwave.models.convssm import PRESETS, ConvSSMConfig, ConvSSMModel
from longwave.train.heads import PLACE_FEATURES, Classifier
from longwave.train.task import Classes

MICRO = ConvSSMConfig(
    d_model=4 * 64, layers=1, filter_length=8, values=64, side=8, pool=2, channels=4, state=4, groups=2, kernel=3
)


def test_hidden_states_are_of_pixels_one_after_the_other() -> None:
    """A changed pixel changes most around it, and only norms carry it farther; frames before it know nothing of it."""
    torch.manual_seed(0)
    model = ConvSSMModel(dataclasses.replace(MICRO, d_model=4 * 32**2, values=32**2, side=32)).double()
    u = torch.randn(1, 3, 32**2, dtype=torch.float64)
    changed = u.clone()
    changed[0, 1, 32 * 5 + 20] += 0.01
    with torch.no_grad():
        difference = (model(changed) - model(u)).view(3, 32, 32, 4).abs().amax(dim=3)
    assert difference[1, :12, 13:28].mean() > 10 * difference[1, 20:].mean()
    assert difference[2, :12, 13:28].mean() > 10 * difference[2, 20:].mean()
    assert difference[0].max() == 0


def test_a_block_is_its_formula() -> None:
    """LayerNorm(x + r(ConvSSM(x))) with r(y) = GELU(y + GELU(norm(W ∗ GELU(norm(y)))))."""
    torch.manual_seed(0)
    block = ConvSSMModel(MICRO).double().blocks[0]
    for parameter in block.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(2, 5, 4 * 16, dtype=torch.float64)

    def gelu(x: torch.Tensor) -> torch.Tensor:
        return x / 2 * (1 + torch.erf(x / 2**0.5))

    def grouped(images: torch.Tensor, norm: torch.nn.GroupNorm) -> torch.Tensor:
        halves = images.unflatten(1, (2, 2))
        mean, variance = halves.mean((2, 3, 4), keepdim=True), halves.var((2, 3, 4), unbiased=False, keepdim=True)
        flat = ((halves - mean) / (variance + norm.eps).sqrt()).flatten(1, 2)
        return flat * norm.weight[:, None, None] + norm.bias[:, None, None]

    with torch.no_grad():
        y = block.mixer.states(x.unflatten(-1, (4, 4, 4)))[0].flatten(0, 1)
        residual = block.mixer.after.steps[0]
        around = torch.nn.functional.conv2d(
            gelu(grouped(y, residual.norms[0])), residual.conv.weight, residual.conv.bias, padding=1
        )
        y = gelu(y + gelu(grouped(around, residual.norms[1]))).view(2, 5, 4, 16)
        y = (x.view(2, 5, 4, 16) + y).transpose(2, 3)
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + block.feed.eps).sqrt()
        expected = (y * block.feed.weight + block.feed.bias).transpose(2, 3).flatten(2)
        torch.testing.assert_close(block(x), expected, rtol=1e-9, atol=1e-10)


def test_presets_have_the_published_sizes() -> None:
    config = PRESETS["convssm-moving-mnist"]
    assert (config.layers, config.channels, config.state, config.kernel, config.groups) == (8, 256, 256, 3, 32)
    assert (config.side, config.side // config.pool, config.filter_length) == (64, 16, 300)
    with torch.device("meta"):
        model = ConvSSMModel(config)
    block = 3 * 256 * 256 * 9 + 256 * 256 * 9 + 256 + 3 * 128 + 3 * 2 * 256  # B, C and D, one more, norms
    shell = (16 * 9 + 1) * 256 + (256 * 9 + 1) * 64 * 16 + 2 * 64
    assert sum(p.numel() for p in model.parameters()) == 8 * block + shell


@pytest.mark.parametrize("wrong", [{"values": 63}, {"d_model": 250}, {"pool": 3}, {"groups": 3}, {"side": 4}])
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match=r"frames of|multiples of groups"):
        ConvSSMConfig(**{**MICRO.__dict__, **wrong})


def test_heads_answer_for_every_pixel() -> None:
    """Of a model of pixels from the features of each; of another through a map to some of each."""
    from longwave.models.s5 import S5Config, S5Model

    frames = torch.randn(2, 3, 64)
    head = Classifier(ConvSSMModel(MICRO), Classes(2, "positions", places=64))
    assert head.spread is None
    assert head(frames).shape == (2, 3, 64, 4)
    torch.testing.assert_close(head(frames).flatten(2), head.body(frames))
    assert head.head_weight().shape == (2, 4)
    other = Classifier(
        S5Model(S5Config(d_model=8, layers=1, filter_length=8, values=64, state=4)), Classes(2, "positions", places=64)
    )
    assert other(frames).shape == (2, 3, 64, PLACE_FEATURES)
    whole = Classifier(ConvSSMModel(MICRO), Classes(3, "mean"))
    assert whole(frames).shape == (2, 4 * 64)
    assert whole.head_weight().shape == (3, 4 * 64)
    with pytest.raises(ArgumentError, match="several answers"):
        Classifier(ConvSSMModel(MICRO), Classes(2, "mean", places=64))


@pytest.mark.parametrize("change", [{"vocabulary": 3}, {"values": 0}])
def test_frames_and_tokens_exclude_each_other(change: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match="reads tokens or numbers"):
        ConvSSMModel(dataclasses.replace(MICRO, **change))
