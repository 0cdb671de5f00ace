"""S5 for reinforcement learning: residual blocks of state spaces that forget at the beginning of an episode.

Pre-norm residual blocks of an `S5`, a second norm, GELU and a gated linear map, and a final norm.
Source: Lu et al. 2023, Structured State Space Models for In-Context Reinforcement Learning (arXiv 2303.03982), on the S5 of
Smith et al. 2022 (arXiv 2208.04933).

The preset `s5-popgym` has the sizes of the authors' programs (4 layers, 256 channels, state 256, one block of HiPPO-N). What
differs: their observations go through two dense layers before, and actor and critic follow behind; here a linear map is
before, and heads come from outside. Norms before and after a state space are two, where theirs is one used twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.models import SequenceModel, check_config, initialise
from longwave.nn.long_conv import LongConvOp
from longwave.nn.residual import ResidualBlock
from longwave.nn.s5 import S5, S5Stream


@dataclass(frozen=True)
class S5Config:
    """Sizes of an `S5Model`; every field survives JSON and TOML."""

    d_model: int
    layers: int
    filter_length: int  # the context the model is made for; filters are as long as the input
    vocabulary: int = 0
    predicted: int = 0
    values: int = 1
    state: int = 256
    hippo_blocks: int = 1
    dt_min: float = 1e-3
    dt_max: float = 0.1

    def __post_init__(self) -> None:
        check_config(self, "state", "hippo_blocks")


PRESETS: dict[str, S5Config] = {
    "s5-tiny": S5Config(d_model=64, layers=2, filter_length=1_024, state=64),
    "s5-popgym": S5Config(d_model=256, layers=4, filter_length=1_024),
}


class _Mixer(nn.Module):
    def __init__(self, config: S5Config, backend: str, conv: LongConvOp) -> None:
        super().__init__()
        self.states = S5(
            config.d_model,
            config.state,
            blocks=config.hippo_blocks,
            dt_min=config.dt_min,
            dt_max=config.dt_max,
            backend=backend,
            conv=conv,
        )
        self.norm = nn.LayerNorm(config.d_model)
        self.out_proj = nn.Linear(config.d_model, 2 * config.d_model)

    def forward(self, u: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        return self.gated(self.states(u, cu_seqlens=cu_seqlens))

    def gated(self, y: Tensor) -> Tensor:
        """What follows the state space, position by position."""
        return F.glu(self.out_proj(F.gelu(self.norm(y))), dim=-1)

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> S5Stream:
        return self.states.stream(
            batch_size, max_length=max_length, max_rollback=max_rollback, backend=backend, after=self.gated
        )


class _Block(ResidualBlock):
    def __init__(self, config: S5Config, backend: str, conv: LongConvOp) -> None:
        super().__init__(config.d_model, _Mixer(config, backend, conv))

    def advance(self, x: Tensor, state: Tensor | None, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        mixer = cast(_Mixer, self.mixer)
        y, after = mixer.states.advance(self.mixer_norm(x), state, resets=resets)
        return x + mixer.gated(y), after


class S5Model(SequenceModel):
    """Tokens (B, L), or numbers (B, L, values), to hidden states (B, L, d_model), of any length; causal.

    `advance` takes a segment of what is longer, with the states before it and the positions where episodes begin, and gives
    the states after it; `stream` takes one position at a time.
    """

    def build(self, config: S5Config, backend: str, conv: LongConvOp) -> None:
        self.blocks = nn.ModuleList(_Block(config, backend, conv) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.d_model)
        initialise(self, keep=(_Mixer,))

    def advance(
        self, inputs: Tensor, states: Sequence[Tensor] | None = None, *, resets: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states of a segment (B, L, d_model), and every layer's state after it, (B, state / 2), complex.

        Args:
            inputs: as `forward` takes them.
            states: of every layer, before the segment; none at the beginning. Gradients flow into them; detach them to cut.
            resets: (B, L), bool: where an episode begins and what stood before is forgotten.

        Raises:
            ArgumentError: another number of states, or wrong shapes.
        """
        if states is not None and len(states) != len(self.blocks):
            raise ArgumentError(f"{len(states)} states were given for {len(self.blocks)} layers; give one a layer")
        x, after = self.inputs(inputs), []
        for i, block in enumerate(self.blocks):
            x, state = cast(_Block, block).advance(x, None if states is None else states[i], resets)
            after.append(state)
        hidden: Tensor = self.norm(x)
        return hidden, after


Config, Model = S5Config, S5Model
