"""M2-BERT: a model that reads both ways, for masked tokens, with Monarch matrices along the sequence and across the features.

An embedding and its norm; blocks of a `MonarchMixer` and a gated MLP of block-diagonal matrices, with the norm after the
MLP's residual connection; a dense layer, GELU and a norm before a head that shares the embedding's rows.
Source: Fu et al. 2023, Monarch Mixer (arXiv 2310.12109); sizes from the authors' configurations.

The presets `m2-bert-*m` have the published sizes: d_model, 12 layers, d_inner = 4 d_model, 4 blocks, contexts of 128 tokens,
filters of 5 features and width 128. What differs: no learned positions and no token types are added to the embedding
(convolutions know how far apart tokens are, and no length is then too long), no dropout, no bias of the head; the mixers'
projections keep PyTorch's initial weights (N(0, 0.02)); of the 30,522 tokens of BERT's vocabulary the masked one comes
last. Published weights cannot be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from longwave.models import SequenceModel, check_config, filter_options, initialise
from longwave.nn.filters import HyenaFilter
from longwave.nn.long_conv import LongConvOp
from longwave.nn.monarch import MonarchLinear
from longwave.nn.monarch_mixer import MonarchMixer
from longwave.nn.short_conv import ShortConvOp


@dataclass(frozen=True)
class M2BertConfig:
    """Sizes of an `M2Bert`; the last token of the vocabulary, which is never predicted, stands for a masked one."""

    d_model: int
    layers: int
    filter_length: int  # taps on each side: the context the model is trained with
    d_inner: int
    vocabulary: int = 6  # A C G T N, and the masked one
    predicted: int = 4  # the first so many tokens can be predicted
    values: int = 0  # numbers a position, with vocabulary = predicted = 0
    blocks: int = 4  # of the MLP's block-diagonal matrices
    factors: int = 1  # 2 makes them products of two, which connect all features
    circular: bool = False  # whether the ends of a sequence meet
    short_taps: int = 3
    filter_features: int = 5
    filter_width: int = 128
    filter_inner_layers: int = 2
    filter_frequency: float = 10.0
    filter_fast_decay: float = 0.3
    filter_slow_decay: float = 1.5

    def __post_init__(self) -> None:
        check_config(self, "d_inner", "blocks")

    @property
    def mask_token(self) -> int:
        """What is read in the place of a token that is to be predicted."""
        return self.vocabulary - 1


def _published(d_model: int) -> M2BertConfig:
    return M2BertConfig(d_model=d_model, layers=12, filter_length=128, d_inner=4 * d_model, vocabulary=30_522, predicted=30_521)


PRESETS: dict[str, M2BertConfig] = {
    "m2-bert-tiny": M2BertConfig(d_model=64, layers=2, filter_length=128, d_inner=256, filter_width=32, filter_features=9),
    "m2-bert-80m": _published(768),
    "m2-bert-110m": _published(960),
    "m2-bert-260m": _published(1_536),
    "m2-bert-341m": _published(1_792),
}


class _Norm(nn.LayerNorm):
    """In its parameters' precision under autocast too, as on CUDA by itself: the sums of blocks go through it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class _Block(nn.Module):
    def __init__(self, config: M2BertConfig, backend: str, conv: LongConvOp, short: ShortConvOp, split: bool) -> None:
        super().__init__()
        self.mixer = MonarchMixer(
            config.d_model,
            config.filter_length,
            short_taps=config.short_taps,
            circular=config.circular,
            filter_options=filter_options(config),
            backend=backend,
            conv=conv,
            short=short,
            split=split,
        )
        d, d_inner, blocks, factors = config.d_model, config.d_inner, config.blocks, config.factors
        self.mlp_in = MonarchLinear(d, 2 * d_inner, blocks=blocks, factors=factors, bias=False)
        self.mlp_out = MonarchLinear(d_inner, d, blocks=blocks, factors=factors)
        self.norm = _Norm(config.d_model)

    def forward(self, x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        x = self.mixer(x, cu_seqlens=cu_seqlens)
        gate, value = self.mlp_in(x).chunk(2, dim=-1)
        fed: Tensor = self.norm(x + self.mlp_out(F.gelu(gate) * value))
        return fed


class M2Bert(SequenceModel):
    """Two-sided model: tokens (B, L), or numbers (B, L, values), to hidden states (B, L, d_model) that see the whole input.

    Masked language modelling reads `config.mask_token` where a token is to be predicted, and takes
    `longwave.nn.chunked_cross_entropy(hidden, model.head_weight(), targets, ...)` with targets that are ignored elsewhere.

    Raises:
        ArgumentError: features that the blocks do not divide.
    """

    causal = False
    splits = True

    def build(self, config: M2BertConfig, backend: str, conv: LongConvOp) -> None:
        self.input_norm = _Norm(config.d_model)
        self.blocks = nn.ModuleList(_Block(config, backend, conv, self.short, self.split) for _ in range(config.layers))
        self.norm = nn.Sequential(nn.Linear(config.d_model, config.d_model), nn.GELU(), _Norm(config.d_model))
        initialise(self, keep=(HyenaFilter, MonarchMixer))

    def through_blocks(self, x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        return super().through_blocks(self.input_norm(x), cu_seqlens)


Config, Model = M2BertConfig, M2Bert
