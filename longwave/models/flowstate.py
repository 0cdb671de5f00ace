"""The encoder of FlowState: time series at any sampling rate.

A linear map, and residual blocks of an `S5`, SELU, a gate and a norm. The time scale is an argument of a call: all state
spaces are then sampled at another distance, so that a series with half the samples a day is read with twice the time scale.
Source: Graf et al. 2025, FlowState: Sampling-Rate-Equivariant Time-Series Forecasting (arXiv 2508.05287).

The preset `flowstate-9m` has the published sizes (6 layers, 512 channels, 512 complex eigenvalues from 8 blocks of HiPPO-N,
context 2,048). What differs: an eigenvalue stands for a pair of conjugates, so that 512 of them are a state of 1,024 from
blocks of 128, where theirs are both signs of blocks of 64; the normalisation of a series before, and the decoder of basis
functions behind (1.2 of the published 9.1 million parameters), come from outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from longwave.errors import ArgumentError
from longwave.models import SequenceModel, check_config
from longwave.nn.decode import SequenceStream
from longwave.nn.long_conv import LongConvOp
from longwave.nn.residual import CHECKPOINT
from longwave.nn.s5 import S5, S5Stream


@dataclass(frozen=True)
class FlowStateConfig:
    """Sizes of a `FlowStateEncoder`; every field survives JSON and TOML."""

    d_model: int
    layers: int
    filter_length: int  # the context the model is made for; filters are as long as the input
    vocabulary: int = 0
    predicted: int = 0
    values: int = 2  # the series, and where it is missing
    state: int = 512  # two for each complex eigenvalue
    hippo_blocks: int = 8
    dt_min: float = 1e-3
    dt_max: float = 0.1

    def __post_init__(self) -> None:
        check_config(self, "state", "hippo_blocks")


PRESETS: dict[str, FlowStateConfig] = {
    "flowstate-tiny": FlowStateConfig(d_model=64, layers=3, filter_length=2_048, state=64, hippo_blocks=2),
    "flowstate-9m": FlowStateConfig(d_model=512, layers=6, filter_length=2_048, state=1_024),
}


class _Mixer(nn.Module):
    def __init__(self, config: FlowStateConfig, backend: str, conv: LongConvOp) -> None:
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
        self.out_proj = nn.Linear(config.d_model, config.d_model)
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, u: Tensor, cu_seqlens: Tensor | None, time_scale: float) -> Tensor:
        return self.gated(self.states(u, cu_seqlens=cu_seqlens, time_scale=time_scale))

    def gated(self, y: Tensor) -> Tensor:
        """What follows the state space, position by position."""
        y = F.selu(y)
        normed: Tensor = self.norm(y * torch.sigmoid(self.out_proj(y)))
        return normed


class _Block(nn.Module):
    def __init__(self, config: FlowStateConfig, backend: str, conv: LongConvOp) -> None:
        super().__init__()
        self.mixer = _Mixer(config, backend, conv)

    def forward(self, x: Tensor, cu_seqlens: Tensor | None, time_scale: float) -> Tensor:
        mixed: Tensor = x + self.mixer(x, cu_seqlens, time_scale)
        return mixed


class FlowStateEncoder(SequenceModel):
    """Numbers (B, L, values), or tokens (B, L), to hidden states (B, L, d_model), of any length; causal."""

    def build(self, config: FlowStateConfig, backend: str, conv: LongConvOp) -> None:
        self.blocks = nn.ModuleList(_Block(config, backend, conv) for _ in range(config.layers))
        self.norm = nn.Identity()

    def forward(self, inputs: Tensor, *, cu_seqlens: Tensor | None = None, time_scale: float = 1.0) -> Tensor:
        """Hidden states, as `SequenceModel.forward`.

        Args:
            inputs, cu_seqlens: as there.
            time_scale: what a sample's distance is in units of that which the model was trained at; it multiplies dt.

        Raises:
            ArgumentError: as there, or `time_scale` is not positive.
        """
        _check_scale(time_scale)
        x = self.inputs(inputs)
        for block in self.blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, cu_seqlens, time_scale, **CHECKPOINT)
            else:
                x = block(x, cu_seqlens, time_scale)
        return x

    def stream(
        self,
        batch_size: int,
        *,
        max_length: int | None = None,
        max_rollback: int = 0,
        backend: str | None = None,
        time_scale: float = 1.0,
    ) -> SequenceStream:
        """The model for inputs that come one by one, at one time scale; `longwave.Stream` says what the other options mean.

        Raises:
            ArgumentError: a size is out of range.
        """
        _check_scale(time_scale)
        blocks = [cast(nn.Module, _Streamed(cast(_Block, block).mixer, time_scale)) for block in self.blocks]
        return SequenceStream(
            self.inputs, blocks, self.norm, batch_size, max_length=max_length, max_rollback=max_rollback, backend=backend
        )


class _Streamed:
    """A block as `SequenceStream` takes it, at a time scale."""

    def __init__(self, mixer: _Mixer, time_scale: float) -> None:
        self.mixer, self.mixer_norm, self._mixer, self._time_scale = self, nn.Identity(), mixer, time_scale

    def stream(self, batch_size: int, **options: Any) -> S5Stream:
        return self._mixer.states.stream(batch_size, time_scale=self._time_scale, after=self._mixer.gated, **options)

    def feed(self, x: Tensor) -> Tensor:
        return x


def _check_scale(time_scale: float) -> None:
    if not time_scale > 0:
        raise ArgumentError(f"time_scale is {time_scale}; give a positive number, 1 at the distance the model was trained at")


Config, Model = FlowStateConfig, FlowStateEncoder
