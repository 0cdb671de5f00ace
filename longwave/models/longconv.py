"""LongConv: residual blocks of explicit long convolutions, whose taps are squashed and smoothed.

Pre-norm residual blocks of a `ConvGLU` with `SquashedFilter`s, and a final norm; with `butterfly`, of `ButterflyConv1d`, whose
transforms are learned too.
Source: Fu et al. 2023, Simple Hardware-Efficient Long Convolutions for Sequence Modeling (arXiv 2302.06646).

The presets `longconv-lra-*` have the sizes of the authors' experiments (layers, channels, contexts, λ, two filters a
channel, two-sided where theirs are). What differs: norms are LayerNorm before every layer (theirs batch norm, for images
after the layer), no dropout of taps or features, taps that decay as drawn; a two-sided filter is one parameter, whose means
may reach over lag 0; tokens are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError, UnsupportedError
from longwave.models import SequenceModel, check_config, initialise
from longwave.nn.butterfly import ButterflyConv1d
from longwave.nn.conv_glu import ConvGLU, FilterConv1d
from longwave.nn.explicit_filters import SquashedFilter, Zoom, zoomed
from longwave.nn.long_conv import LongConvOp
from longwave.nn.residual import ResidualBlock


@dataclass(frozen=True)
class LongConvConfig:
    """Sizes of a `LongConvModel`."""

    d_model: int
    layers: int
    filter_length: int  # taps: the context the model is trained with
    vocabulary: int = 5  # A C G T N
    predicted: int = 4  # the first so many tokens can be predicted
    values: int = 0  # numbers a position, with vocabulary = predicted = 0
    heads: int = 1  # filters a channel
    squash: float = 0.001  # taps are this much smaller, or zero
    smooth: int = 0  # taps on either side that a mean takes in
    two_sided: bool = False  # whether positions see what comes after them
    butterfly: int = 0  # matrices in a learned transform; 0 convolves

    def __post_init__(self) -> None:
        check_config(self, "heads")
        if self.butterfly < 0 or (self.butterfly and not self.two_sided):
            raise ArgumentError(
                f"LongConvConfig.butterfly is {self.butterfly} with two_sided={self.two_sided}; give 0, or with two_sided=True "
                "the matrices of a learned transform, which sees the whole input"
            )


def _published(d_model: int, layers: int, length: int, squash: float, vocabulary: int = 0, **rest: bool) -> LongConvConfig:
    """To classify: pixels are numbers, text is tokens."""
    return LongConvConfig(
        d_model=d_model,
        layers=layers,
        filter_length=length,
        vocabulary=vocabulary,
        predicted=0,
        values=0 if vocabulary else 1,
        heads=2,
        squash=squash,
        **rest,
    )


PRESETS: dict[str, LongConvConfig] = {
    "longconv-tiny": LongConvConfig(d_model=64, layers=2, filter_length=1_024),
    "longconv-small": LongConvConfig(d_model=128, layers=4, filter_length=4_096, smooth=3),
    "longconv-pixels": LongConvConfig(
        d_model=64, layers=2, filter_length=784, vocabulary=0, predicted=0, values=1, two_sided=True
    ),
    "longconv-paths": LongConvConfig(
        d_model=64, layers=4, filter_length=1_024, vocabulary=0, predicted=0, values=1, two_sided=True
    ),
    "longconv-butterfly": LongConvConfig(
        d_model=64, layers=2, filter_length=784, vocabulary=0, predicted=0, values=1, two_sided=True, butterfly=2
    ),
    "longconv-lra-text": _published(256, 6, 4_096, 0.003, vocabulary=256),
    "longconv-lra-image": _published(512, 6, 1_024, 0.003),
    "longconv-lra-pathfinder": _published(256, 6, 1_024, 0.001, two_sided=True),
    "longconv-lra-pathx": _published(256, 6, 16_384, 0.001, two_sided=True),
}


def _block(config: LongConvConfig, backend: str, conv: LongConvOp, split: bool) -> ResidualBlock:
    filter = SquashedFilter(
        config.heads * config.d_model,
        config.filter_length,
        two_sided=config.two_sided,
        squash=config.squash,
        smooth=config.smooth,
    )
    long: nn.Module
    if config.butterfly:
        long = ButterflyConv1d(filter, order=config.butterfly)
    else:
        long = FilterConv1d(filter, backend=backend, conv=conv, split=split)
    return ResidualBlock(config.d_model, ConvGLU(config.d_model, long, heads=config.heads))


class LongConvModel(SequenceModel):
    """Tokens (B, L), or numbers (B, L, values), to hidden states (B, L, d_model), of any length.

    Causal, or with `two_sided` of what comes before and after. With `butterfly` it sees the whole input, of at most
    `filter_length` positions, and does not take packed documents.

    Args:
        config: the sizes.
        backend: the convolutions' backend; `auto` chooses. Learned transforms have none.
        conv: the long convolution to call, with `longwave.long_conv`'s signature.
        activation_checkpointing: compute each block a second time in the backward pass instead of keeping its inside.
            Also an attribute.
    """

    splits = True

    def build(self, config: LongConvConfig, backend: str, conv: LongConvOp) -> None:
        if config.butterfly and self.split:
            raise UnsupportedError("a learned transform sees whole sequences and cannot read spans of them; set butterfly to 0")
        self.causal, self.packs = not config.two_sided, not config.butterfly
        self.max_length = config.filter_length if config.butterfly else None
        self.blocks = nn.ModuleList(_block(config, backend, conv, self.split) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        initialise(self, keep=(ConvGLU,))

    def zoomed(self, tensors: Mapping[str, Tensor], zoom: Zoom) -> dict[str, Tensor]:
        """What the tensors of such a model of images of one size are for this one, of images of another: filters that are, once
        squashed, `explicit_filters.zoomed`.

        Raises:
            UnsupportedError: filters are smoothed too, in one dimension.
            ArgumentError: filters are not as long as the images.
        """
        if self.config.smooth:
            raise UnsupportedError(
                f"filters that are smoothed over {self.config.smooth} taps do not go to images of another size, where their "
                "rows would be smoothed again; take a preset with smooth=0"
            )
        squash, found = self.config.squash, dict(tensors)
        for name in (name for name in tensors if name.endswith(".filter.k")):
            new = zoomed(F.softshrink(tensors[name], squash), zoom, two_sided=self.config.two_sided)
            found[name] = new + squash * new.sign()
        return found


Config, Model = LongConvConfig, LongConvModel
