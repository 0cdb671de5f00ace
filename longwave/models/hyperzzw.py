"""A model of HyperZ·Z·W layers: long filters that a network of coordinates makes for every sample, for images and sequences.

Pre-norm residual blocks of a `HyperZZW` layer and an MLP, and a final norm.
Source: Zhang 2024, HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction (arXiv 2401.17948).

The paper's Terminator, a network of images without residual connections, is not built here, and no preset has its sizes:
the layer's operator stands in ordinary blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from longwave.models import SequenceModel, check_config, initialise
from longwave.nn.hyper_zzw import HyperZZW
from longwave.nn.long_conv import LongConvOp
from longwave.nn.residual import ResidualBlock


@dataclass(frozen=True)
class HyperZZWConfig:
    """Sizes of a `HyperZZWModel`."""

    d_model: int
    layers: int
    filter_length: int  # taps, half of them on each side
    d_inner: int
    vocabulary: int = 6  # A C G T N, and the masked one
    predicted: int = 4  # the first so many tokens can be predicted
    values: int = 0  # numbers a position, with vocabulary = predicted = 0
    network_width: int = 32
    network_layers: int = 2
    network_frequency: float = 10.0

    def __post_init__(self) -> None:
        check_config(self, "d_inner", "network_width", "network_layers")


PRESETS: dict[str, HyperZZWConfig] = {
    "hyperzzw-tiny": HyperZZWConfig(d_model=64, layers=2, filter_length=255, d_inner=128),
    "hyperzzw-pixels": HyperZZWConfig(
        d_model=64, layers=4, filter_length=783, d_inner=128, vocabulary=0, predicted=0, values=1
    ),
}


class HyperZZWModel(SequenceModel):
    """Two-sided model: tokens (B, L), or numbers (B, L, values), to hidden states (B, L, d_model) that see the whole input.

    It does not take packed documents.
    """

    causal, packs = False, False

    def build(self, config: HyperZZWConfig, backend: str, conv: LongConvOp) -> None:
        self.blocks = nn.ModuleList(_block(config, backend, conv) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        initialise(self, keep=(HyperZZW,))


def _block(config: HyperZZWConfig, backend: str, conv: LongConvOp) -> ResidualBlock:
    mixer = HyperZZW(
        config.d_model,
        config.filter_length,
        width=config.network_width,
        layers=config.network_layers,
        frequency=config.network_frequency,
        backend=backend,
        conv=conv,
    )
    return ResidualBlock(config.d_model, mixer, d_inner=config.d_inner)


Config, Model = HyperZZWConfig, HyperZZWModel
