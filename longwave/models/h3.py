"""H3 language model: shift and diagonal state spaces between multiplicative gates.

Pre-norm residual blocks of an `H3` layer and an MLP, a final norm, and a head that shares the embedding's rows.
Source: Fu et al. 2022, Hungry Hungry Hippos: Towards Language Modeling with State Space Models (arXiv 2212.14052).

The presets `h3-*` have the published sizes (d_model, layers, d_inner = 4 d_model, state 64, 50,257 tokens padded to 50,264,
2,048 of context). What differs: the published models are hybrids, one to three of whose layers are attention; here every
layer is H3. Published weights cannot be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from longwave.models import SequenceModel, check_config, initialise
from longwave.nn.h3 import H3
from longwave.nn.long_conv import LongConvOp
from longwave.nn.residual import ResidualBlock
from longwave.nn.state_space import StateSpaceFilter


@dataclass(frozen=True)
class H3Config:
    """Sizes of an `H3LM`; every field survives JSON and TOML."""

    d_model: int
    layers: int
    filter_length: int  # the context the model is made for; filters are as long as the input
    d_inner: int
    vocabulary: int = 256
    predicted: int = 256
    values: int = 0
    state: int = 64
    head_dim: int = 1
    spectrum: str = "lin"
    discretisation: str = "zoh"
    dt_min: float = 1e-3
    dt_max: float = 0.1

    def __post_init__(self) -> None:
        check_config(self, "d_inner", "state", "head_dim")


def _published(d_model: int, layers: int) -> H3Config:
    return H3Config(
        d_model=d_model, layers=layers, filter_length=2_048, d_inner=4 * d_model, vocabulary=50_264, predicted=50_257
    )


PRESETS: dict[str, H3Config] = {
    "h3-tiny": H3Config(d_model=64, layers=2, filter_length=1_024, d_inner=256, head_dim=2),
    "h3-small": H3Config(d_model=128, layers=4, filter_length=1_024, d_inner=512),
    "h3-125m": _published(768, 12),
    "h3-355m": _published(1_024, 24),
    "h3-1.3b": _published(2_048, 24),
    "h3-2.7b": _published(2_560, 32),
}


class H3LM(SequenceModel):
    """Causal model: tokens (B, L), or numbers (B, L, values), to hidden states (B, L, d_model), of any length; it decodes at a
    cost that does not grow with the position.
    """

    splits = True
    follows = True

    def build(self, config: H3Config, backend: str, conv: LongConvOp) -> None:
        self.blocks = nn.ModuleList(
            ResidualBlock(
                config.d_model,
                H3(
                    config.d_model,
                    config.state,
                    head_dim=config.head_dim,
                    backend=backend,
                    conv=conv,
                    short=self.short,
                    taps=config.filter_length if self.split else None,
                    spectrum=config.spectrum,
                    discretisation=config.discretisation,
                    dt_min=config.dt_min,
                    dt_max=config.dt_max,
                ),
                d_inner=config.d_inner,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.d_model)
        initialise(self, keep=(StateSpaceFilter,))


Config, Model = H3Config, H3LM
