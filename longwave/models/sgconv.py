"""SGConv: residual blocks of long convolutions whose filters are few parameters at every scale, decaying from scale to scale.

Pre-norm residual blocks of a `ConvGLU` with `MultiScaleFilter`s, and a final norm.
Source: Li et al. 2022, What Makes Convolutional Models Great on Long Sequence Modeling? (arXiv 2210.09298).

The presets `sgconv-lra-*` have the sizes of the authors' experiments (layers, channels, contexts, parameters a scale,
decays; two-sided). What differs: norms are LayerNorm before every layer (theirs batch norm), no dropout; scales of Path-X
begin as noise and at one tap a parameter (theirs as cosines, at two); tokens are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from longwave.models import SequenceModel, check_config, initialise
from longwave.nn.conv_glu import ConvGLU, FilterConv1d
from longwave.nn.explicit_filters import MultiScaleFilter
from longwave.nn.long_conv import LongConvOp
from longwave.nn.residual import ResidualBlock


@dataclass(frozen=True)
class SGConvConfig:
    """Sizes of an `SGConvModel`."""

    d_model: int
    layers: int
    filter_length: int  # taps: the context the model is trained with
    vocabulary: int = 5  # A C G T N
    predicted: int = 4  # the first so many tokens can be predicted
    values: int = 0  # numbers a position, with vocabulary = predicted = 0
    scale_taps: int = 32  # parameters a scale
    slow_decay: float = 2.0  # by which each scale of the first channel is smaller than the one before
    fast_decay: float = 2.0  # the same of the last channel
    two_sided: bool = False  # whether positions see what comes after them

    def __post_init__(self) -> None:
        check_config(self, "scale_taps")


def _published(length: int, scale_taps: int, vocabulary: int = 0, **decays: float) -> SGConvConfig:
    """To classify: pixels are numbers, text is tokens."""
    return SGConvConfig(
        d_model=256,
        layers=6,
        filter_length=length,
        vocabulary=vocabulary,
        predicted=0,
        values=0 if vocabulary else 1,
        scale_taps=scale_taps,
        two_sided=True,
        **decays,
    )


PRESETS: dict[str, SGConvConfig] = {
    "sgconv-tiny": SGConvConfig(d_model=64, layers=2, filter_length=1_024),
    "sgconv-small": SGConvConfig(d_model=128, layers=4, filter_length=4_096),
    "sgconv-pixels": SGConvConfig(d_model=64, layers=2, filter_length=784, vocabulary=0, predicted=0, values=1, two_sided=True),
    "sgconv-lra-text": _published(4_096, 2, vocabulary=256),
    "sgconv-lra-pathfinder": _published(1_024, 32),
    "sgconv-lra-pathx": _published(16_384, 64, slow_decay=1.0, fast_decay=3.0),
}


def _block(config: SGConvConfig, backend: str, conv: LongConvOp, split: bool) -> ResidualBlock:
    filters = [
        MultiScaleFilter(
            config.d_model,
            config.filter_length,
            scale_taps=config.scale_taps,
            slow_decay=config.slow_decay,
            fast_decay=config.fast_decay,
        )
        for _ in range(1 + config.two_sided)
    ]
    long = FilterConv1d(*filters, backend=backend, conv=conv, split=split)
    return ResidualBlock(config.d_model, ConvGLU(config.d_model, long))


class SGConvModel(SequenceModel):
    """Tokens (B, L), or numbers (B, L, values), to hidden states (B, L, d_model), of any length.

    Causal, or with `two_sided` of what comes before and after.
    """

    splits = True

    def build(self, config: SGConvConfig, backend: str, conv: LongConvOp) -> None:
        self.causal = not config.two_sided
        self.blocks = nn.ModuleList(_block(config, backend, conv, self.split) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        initialise(self, keep=(ConvGLU,))


Config, Model = SGConvConfig, SGConvModel
