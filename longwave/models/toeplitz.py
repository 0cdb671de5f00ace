"""A transformer of kernelised attention with a learned bias for every relative position, causal or two-sided.

Pre-norm residual blocks of a `ToeplitzAttention` and an MLP, and a final norm.
Source: Luo et al. 2021, Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding (arXiv 2106.12566).

`toeplitz-base` has the size of BERT-base (d_model 768, 12 layers, 12 heads, d_inner 3,072, contexts of 512), two-sided; the
last token of its vocabulary of 30,522 stands for a masked one. What differs from the paper: norms stand before the layers,
features are drawn once and kept, no dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from longwave.models import SequenceModel, check_config, initialise
from longwave.nn.long_conv import LongConvOp
from longwave.nn.residual import ResidualBlock
from longwave.nn.toeplitz_attention import ToeplitzAttention


@dataclass(frozen=True)
class ToeplitzConfig:
    """Sizes of a `ToeplitzModel`."""

    d_model: int
    layers: int
    filter_length: int  # lags that have weight, on each side: the context the model is trained with
    d_inner: int
    vocabulary: int = 5  # A C G T N
    predicted: int = 4  # the first so many tokens can be predicted
    values: int = 0  # numbers a position, with vocabulary = predicted = 0
    heads: int = 4
    features: int = 32
    two_sided: bool = False  # whether positions see what comes after them

    def __post_init__(self) -> None:
        check_config(self, "d_inner", "heads", "features")


PRESETS: dict[str, ToeplitzConfig] = {
    "toeplitz-tiny": ToeplitzConfig(d_model=32, layers=2, filter_length=256, d_inner=128, heads=2, features=8),
    "toeplitz-small": ToeplitzConfig(d_model=64, layers=4, filter_length=1_024, d_inner=256, features=16),
    "toeplitz-base": ToeplitzConfig(
        d_model=768,
        layers=12,
        filter_length=512,
        d_inner=3_072,
        vocabulary=30_522,
        predicted=30_521,
        heads=12,
        features=64,
        two_sided=True,
    ),
}


class ToeplitzModel(SequenceModel):
    """Tokens (B, L), or numbers (B, L, values), to hidden states (B, L, d_model), of any length.

    Causal, or with `two_sided` of what comes before and after.

    Raises:
        ArgumentError: heads do not divide d_model.
    """

    splits = True

    def build(self, config: ToeplitzConfig, backend: str, conv: LongConvOp) -> None:
        self.causal = not config.two_sided
        self.blocks = nn.ModuleList(_block(config, backend, conv, self.split) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        initialise(self)


def _block(config: ToeplitzConfig, backend: str, conv: LongConvOp, split: bool) -> ResidualBlock:
    mixer = ToeplitzAttention(
        config.d_model,
        config.filter_length,
        heads=config.heads,
        features=config.features,
        two_sided=config.two_sided,
        backend=backend,
        conv=conv,
        split=split,
    )
    return ResidualBlock(config.d_model, mixer, d_inner=config.d_inner)


Config, Model = ToeplitzConfig, ToeplitzModel
