"""LongConv and SGConv have the sizes that were published."""

from __future__ import annotations

import pytest
import torch

from longwave.errors import ArgumentError
from longwave.models import longconv, sgconv


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("text", (256, 6, 4_096, 0.003, False)),
        ("image", (512, 6, 1_024, 0.003, False)),
        ("pathfinder", (256, 6, 1_024, 0.001, True)),
        ("pathx", (256, 6, 16_384, 0.001, True)),
    ],
)
def test_longconv_has_the_published_sizes(name: str, sizes: tuple[object, ...]) -> None:
    config = longconv.PRESETS[f"longconv-lra-{name}"]
    assert (config.d_model, config.layers, config.filter_length, config.squash, config.two_sided) == sizes
    assert config.heads == 2
    with torch.device("meta"):
        model = longconv.Model(config)
    d, K, sides = config.d_model, config.filter_length, 1 + config.two_sided
    block = 2 * d + 2 * d * (K * sides + 1) + (2 * d + 1) * 2 * d  # norm, taps and D, gated map
    read = config.vocabulary * d or 2 * d
    assert sum(p.numel() for p in model.parameters()) == config.layers * block + read + 2 * d


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("text", (4_096, 2, 2.0, 2.0)), ("pathfinder", (1_024, 32, 2.0, 2.0)), ("pathx", (16_384, 64, 1.0, 3.0))],
)
def test_sgconv_has_the_published_sizes_and_few_parameters(name: str, sizes: tuple[float, ...]) -> None:
    config = sgconv.PRESETS[f"sgconv-lra-{name}"]
    assert (config.filter_length, config.scale_taps, config.slow_decay, config.fast_decay) == sizes
    assert (config.d_model, config.layers, config.two_sided) == (256, 6, True)
    with torch.device("meta"):
        model = sgconv.Model(config)
    scales = {4_096: 12, 1_024: 6, 16_384: 9}[config.filter_length]
    block = 2 * 256 + 256 * (2 * scales * config.scale_taps + 1) + 257 * 512
    read = config.vocabulary * 256 or 2 * 256
    assert sum(p.numel() for p in model.parameters()) == 6 * block + read + 2 * 256


@pytest.mark.parametrize("wrong", [{"butterfly": -1, "two_sided": True}, {"butterfly": 2}])
def test_learned_transforms_are_not_causal(wrong: dict[str, int | bool]) -> None:
    with pytest.raises(ArgumentError, match="sees the whole input"):
        longconv.LongConvConfig(d_model=8, layers=1, filter_length=8, **wrong)


def test_learned_transforms_add_what_their_matrices_hold() -> None:
    config = longconv.PRESETS["longconv-butterfly"]
    with torch.device("meta"):
        found = sum(p.numel() for p in longconv.Model(config).parameters())
        without = sum(p.numel() for p in longconv.Model(longconv.PRESETS["longconv-pixels"]).parameters())
    assert found - without == config.layers * 3 * 2 * (2 * 28 * 28)  # 784 = 28 · 28; complex; of u, of k and back
