"""Hyena language model for DNA.

Pre-norm residual blocks of a `HyenaOperator` and an MLP, a final norm, and a head that shares the embedding's rows.
Source: Poli et al. 2023, Hyena Hierarchy (arXiv 2302.10866); Nguyen et al. 2023, HyenaDNA (arXiv 2306.15794).

The presets `hyenadna-*` have HyenaDNA's published sizes (d_model, layers, d_inner = 4 d_model, order 2, three short
taps, filters of 5 features, width 64, two inner layers, frequency 10). What differs: the vocabulary is A C G T N, of
which only A C G T are predicted (published: 12 tokens padded to 16); no dropout after the embedding (0.1); filters span
exactly the context (context + 2); the filter networks keep PyTorch's initial weights (N(0, 0.02)). Published weights
cannot be loaded.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from longwave.models import SequenceModel, check_config, filter_options, initialise
from longwave.nn.decode import PART
from longwave.nn.filters import HyenaFilter
from longwave.nn.hyena import HyenaOperator
from longwave.nn.long_conv import LongConvOp
from longwave.nn.residual import ResidualBlock
from longwave.nn.short_conv import ShortConvOp
from longwave.nn.staged import in_stages
from longwave.transforms import must_be_seen_through


@dataclass(frozen=True)
class HyenaConfig:
    """Sizes of a `HyenaLM`; every field is a number, so that it survives JSON and TOML."""

    d_model: int
    layers: int
    filter_length: int  # taps: the context the model is trained with
    d_inner: int
    vocabulary: int = 5  # A C G T N
    predicted: int = 4  # the first so many tokens can be predicted: never N
    values: int = 0  # numbers a position, with vocabulary = predicted = 0
    order: int = 2
    short_taps: int = 3
    filter_features: int = 5
    filter_width: int = 64
    filter_inner_layers: int = 2
    filter_frequency: float = 10.0
    filter_fast_decay: float = 0.3
    filter_slow_decay: float = 1.5

    def __post_init__(self) -> None:
        check_config(self, "d_inner")


def _published(d_model: int, layers: int, context: int) -> HyenaConfig:
    return HyenaConfig(d_model=d_model, layers=layers, filter_length=context, d_inner=4 * d_model)


def _fine(d_model: int, layers: int, context: int) -> HyenaConfig:
    """With features down to periods of about 64 bases, where the published five know nothing shorter than the context.

    On E. coli `tiny` learns several times faster for it: 1.915 validation bits per base after 200 steps of 8 windows of
    1,024, against 1.940 (both with filter_fast_decay 0.01, which made no difference by itself).
    """
    return dataclasses.replace(_published(d_model, layers, context), filter_features=1 + context // 32)


PRESETS: dict[str, HyenaConfig] = {
    "tiny": _fine(64, 2, 1_024),
    "small": _fine(128, 4, 4_096),
    "hyenadna-tiny-1k": _published(128, 2, 1_024),
    "hyenadna-tiny-1k-d256": _published(256, 2, 1_024),
    "hyenadna-tiny-16k": _published(128, 2, 16_384),
    "hyenadna-small-32k": _published(256, 4, 32_768),
    "hyenadna-medium-160k": _published(256, 8, 160_000),
    "hyenadna-medium-450k": _published(256, 8, 450_000),
    "hyenadna-large-1m": _published(256, 8, 1_000_000),
}


class _Block(ResidualBlock):
    def __init__(self, config: HyenaConfig, backend: str, conv: LongConvOp, short: ShortConvOp, split: bool) -> None:
        mixer = HyenaOperator(
            config.d_model,
            config.filter_length,
            order=config.order,
            short_taps=config.short_taps,
            filter_options=filter_options(config),
            backend=backend,
            conv=conv,
            short=short,
            split=split,
        )
        super().__init__(config.d_model, mixer, d_inner=config.d_inner)

    @property
    def operator(self) -> HyenaOperator:
        return cast(HyenaOperator, self.mixer)

    def staged(self, x: Tensor) -> Tensor:
        """`forward` in stages: a method, for what shards parameters puts them together around the methods of a block."""
        return in_stages(self, x)

    def before(self, x: Tensor, channels: slice) -> Tensor:
        return self.operator.project(self.mixer_norm(x), channels)

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        return self.feed(x + self.operator.out_proj(y))


class HyenaLM(SequenceModel):
    """Causal model: tokens (B, L), or numbers (B, L, values), to hidden states (B, L, d_model) that predict what comes next.

    The loss is not in here: `longwave.nn.chunked_cross_entropy(hidden, model.head_weight(), targets, ...)` makes it
    without holding all logits; `logits` is for short inputs. Inputs may be any length: no filter grows with them. Without
    gradients, a long one takes about 5 d_model values a position at its peak, whatever the number of layers; with them and
    `activation_checkpointing` about (layers + 6) · d_model.
    """

    splits = True

    def build(self, config: HyenaConfig, backend: str, conv: LongConvOp) -> None:
        self.blocks = nn.ModuleList(_Block(config, backend, conv, self.short, self.split) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        initialise(self, keep=(HyenaFilter,))

    def through_blocks(self, x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        whole = must_be_seen_through() or (torch.is_grad_enabled() and not self.activation_checkpointing)
        if x.shape[1] <= PART or self.split or cu_seqlens is not None or whole or torch.compiler.is_compiling():
            return super().through_blocks(x, cu_seqlens)
        for block in self.blocks:
            x = cast(_Block, block).staged(x)
        return x


Config, Model = HyenaConfig, HyenaLM
