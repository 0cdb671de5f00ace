"""S4D: residual blocks of diagonal state spaces, for images pixel by pixel, audio and text.

Pre-norm residual blocks of an `S4D` layer, and a final norm.
Source: Gu et al. 2022, On the Parameterization and Initialization of Diagonal State Space Models (arXiv 2206.11893).

The presets `s4d-*` have the sizes of the authors' experiments (layers, channels, state 64, two-sided where theirs are, the
range of dt). What differs: norms are LayerNorm before every layer (theirs batch norm for Pathfinder and Path-X, and after the
layer for CIFAR); no dropout; B is 1; every channel has eigenvalues of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from longwave.models import SequenceModel, check_config, initialise
from longwave.nn.long_conv import LongConvOp
from longwave.nn.residual import ResidualBlock
from longwave.nn.s4d import S4D
from longwave.nn.state_space import StateSpaceFilter


@dataclass(frozen=True)
class S4DConfig:
    """Sizes of an `S4DModel`; every field survives JSON and TOML."""

    d_model: int
    layers: int
    filter_length: int  # the context the model is made for; filters are as long as the input
    vocabulary: int = 256
    predicted: int = 256
    values: int = 0
    state: int = 64
    spectrum: str = "lin"
    discretisation: str = "zoh"
    dt_min: float = 1e-3
    dt_max: float = 0.1
    two_sided: bool = False

    def __post_init__(self) -> None:
        check_config(self, "state")


def _published(d_model: int, layers: int, length: int, dt_min: float = 1e-3) -> S4DConfig:
    """Of an image's pixels, numbers from 0 to 1, to classify it."""
    return S4DConfig(
        d_model=d_model, layers=layers, filter_length=length, vocabulary=0, predicted=0, values=1, dt_min=dt_min, two_sided=True
    )


PRESETS: dict[str, S4DConfig] = {
    "s4d-tiny": S4DConfig(d_model=64, layers=2, filter_length=1_024, spectrum="inv"),
    "s4d-small": S4DConfig(d_model=128, layers=4, filter_length=4_096, spectrum="inv"),
    "s4d-pixels": S4DConfig(d_model=64, layers=2, filter_length=784, vocabulary=0, predicted=0, values=1, spectrum="inv"),
    "s4d-lra-image": _published(512, 6, 1_024),
    "s4d-lra-pathfinder": _published(256, 6, 1_024),
    "s4d-lra-pathx": _published(256, 6, 16_384, dt_min=1e-4),
}


def _block(config: S4DConfig, backend: str, conv: LongConvOp, split: bool) -> ResidualBlock:
    mixer = S4D(
        config.d_model,
        config.state,
        two_sided=config.two_sided,
        backend=backend,
        conv=conv,
        taps=config.filter_length if split else None,
        spectrum=config.spectrum,
        discretisation=config.discretisation,
        dt_min=config.dt_min,
        dt_max=config.dt_max,
    )
    return ResidualBlock(config.d_model, mixer)


class S4DModel(SequenceModel):
    """Tokens (B, L), or numbers (B, L, values), to hidden states (B, L, d_model), of any length.

    Causal, and then it decodes by its own recurrence at a cost that does not grow with the position; or two-sided.
    """

    splits = True
    follows = True

    def build(self, config: S4DConfig, backend: str, conv: LongConvOp) -> None:
        self.causal = not config.two_sided
        self.blocks = nn.ModuleList(_block(config, backend, conv, self.split) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        initialise(self, keep=(StateSpaceFilter, S4D))


Config, Model = S4DConfig, S4DModel
