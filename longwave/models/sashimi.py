"""SaShiMi: raw audio, sample by sample, at several rates.

Tiers of pre-norm residual blocks of an `S4D` layer and an MLP. From tier to tier `pool` neighbouring positions become one of
`expand` times the channels, by a linear map; on the way back each of them becomes `pool` positions again, one whole group
later, so that nothing is seen before its time, and is added to what went down. Each tier's input is added to its blocks'
result, as published.
Source: Goel et al. 2022, It's Raw! Audio Generation with State-Space Models (arXiv 2202.09729), section 4.2.

The presets `sashimi-sc09` and `sashimi-beethoven` have the published sizes of the autoregressive models (64 channels, 8 blocks
a tier, two poolings by 4, expansion 2, MLPs twice as wide, state 64, 256 levels of mu-law; a second, and eight, at 16 kHz).
What differs: state spaces are diagonal (S4D-Inv) where theirs are S4's, diagonal plus a term of rank one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from longwave.errors import ArgumentError
from longwave.models import SequenceModel, check_config, initialise
from longwave.nn.decode import LayerStream, SequenceStream
from longwave.nn.long_conv import LongConvOp
from longwave.nn.residual import CHECKPOINT, ResidualBlock
from longwave.nn.s4d import S4D
from longwave.nn.state_space import StateSpaceFilter


@dataclass(frozen=True)
class SashimiConfig:
    """Sizes of a `Sashimi`; every field survives JSON and TOML."""

    d_model: int
    layers: int  # blocks of each tier
    filter_length: int  # the context the model is made for; filters are as long as the input
    vocabulary: int = 256  # levels of mu-law
    predicted: int = 256
    values: int = 0
    poolings: int = 2
    pool: int = 4
    expand: int = 2
    widen: int = 2  # the MLPs' width over the tier's
    state: int = 64
    spectrum: str = "inv"
    discretisation: str = "zoh"
    dt_min: float = 1e-3
    dt_max: float = 0.1

    def __post_init__(self) -> None:
        check_config(self, "poolings", "pool", "expand", "widen", "state")


PRESETS: dict[str, SashimiConfig] = {
    "sashimi-tiny": SashimiConfig(d_model=32, layers=1, filter_length=4_096, state=32),
    "sashimi-small": SashimiConfig(d_model=32, layers=4, filter_length=16_384),
    "sashimi-sc09": SashimiConfig(d_model=64, layers=8, filter_length=16_000),
    "sashimi-beethoven": SashimiConfig(d_model=64, layers=8, filter_length=128_000),
}


class DownPool(nn.Linear):
    """`pool` neighbouring positions to one: (B, T · pool, d_in) to (B, T, d_out)."""

    def __init__(self, d_in: int, d_out: int, pool: int) -> None:
        super().__init__(d_in * pool, d_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unflatten(1, (-1, self.pool)).flatten(2))


class UpPool(nn.Linear):
    """One position to the `pool` of the next group: (B, T, d_in) to (B, T · pool, d_out), the first group zero."""

    def __init__(self, d_in: int, d_out: int, pool: int) -> None:
        super().__init__(d_in, d_out * pool)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.spread(F.pad(self.rows(x)[:, :-1], (0, 0, 1, 0)))

    def rows(self, x: Tensor) -> Tensor:
        """(B, T, d_in) to (B, T, pool · d_out): a position's share of the next group."""
        return super().forward(x)

    def spread(self, rows: Tensor) -> Tensor:
        """(B, T, pool · d_out) to (B, T · pool, d_out)."""
        return rows.unflatten(2, (self.pool, -1)).flatten(1, 2)


class Sashimi(SequenceModel):
    """Causal model: tokens (B, L), or numbers (B, L, values), to hidden states (B, L, d_model), of any length; it decodes by
    its own recurrence, at a cost that does not grow with the position, and runs slower tiers once a group.

    It takes no packed documents: their groups would not begin where they do.
    """

    packs = False

    def build(self, config: SashimiConfig, backend: str, conv: LongConvOp) -> None:
        widths = [config.d_model * config.expand**tier for tier in range(config.poolings + 1)]
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(DownPool(fast, slow, config.pool) for fast, slow in pairs)
        self.up = nn.ModuleList(UpPool(slow, fast, config.pool) for fast, slow in pairs)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                ResidualBlock(
                    width,
                    S4D(
                        width,
                        config.state,
                        backend=backend,
                        conv=conv,
                        spectrum=config.spectrum,
                        discretisation=config.discretisation,
                        dt_min=config.dt_min,
                        dt_max=config.dt_max,
                    ),
                    d_inner=config.widen * width,
                )
                for _ in range(config.layers)
            )
            for width in widths
        )
        self.norm = nn.LayerNorm(config.d_model)
        initialise(self, keep=(StateSpaceFilter, S4D))
        for up in self.up:  # what slower tiers say is noise at first, and must not drown the input
            nn.init.normal_(cast(UpPool, up).weight, std=0.002)

    def through_blocks(self, x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        L = x.shape[1]
        whole = self.config.pool**self.config.poolings
        return self._tier(0, F.pad(x, (0, 0, 0, -L % whole)))[:, :L]

    def _tier(self, tier: int, x: Tensor) -> Tensor:
        if tier < self.config.poolings:
            x = x + self.up[tier](self._tier(tier + 1, self.down[tier](x)))
        y = x
        for block in cast(nn.ModuleList, self.blocks[tier]):
            again = self.activation_checkpointing and torch.is_grad_enabled()
            y = checkpoint(block, y, **CHECKPOINT) if again else block(y)
        return x + y

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> SashimiStream:
        return SashimiStream(self, batch_size, max_length, max_rollback, backend)


@dataclass(frozen=True)
class PoolState:
    """What a stream of two tiers keeps between them.

    Attributes:
        inputs: (B, kept, d): the last inputs of the faster tier.
        rows: (B, kept, pool · d): what the last positions of the slower tier are spread into.
        position: inputs of the faster tier so far.
    """

    inputs: Tensor
    rows: Tensor
    position: int


class _Tier:
    """A tier's blocks, and what is slower than it, for inputs that come in pieces."""

    def __init__(self, model: Sashimi, tier: int, batch_size: int, max_rollback: int, backend: str | None) -> None:
        self.blocks = [cast(ResidualBlock, block) for block in cast(nn.ModuleList, model.blocks[tier])]
        self.mixers: list[LayerStream] = [
            cast(S4D, block.mixer).stream(batch_size, max_rollback=max_rollback, backend=backend) for block in self.blocks
        ]
        self.below: _Tier | None = None
        if tier == model.config.poolings:
            return
        pool = model.config.pool
        self.down, self.up = cast(DownPool, model.down[tier]), cast(UpPool, model.up[tier])
        self.below = _Tier(model, tier + 1, batch_size, -(-max_rollback // pool), backend)
        weight, width = self.down.weight, self.down.in_features // pool
        self.kept = pool + max_rollback
        self.pooled = PoolState(weight.new_zeros(batch_size, 0, width), weight.new_zeros(batch_size, 1, pool * width), 0)

    def run(self, x: Tensor, mix: Callable[[LayerStream, Tensor], Tensor]) -> Tensor:
        """(B, T, d), or (B, d) of one position."""
        if self.below is not None:
            x = x + self._from_below(x, mix)
        y = x
        for block, mixer in zip(self.blocks, self.mixers, strict=True):
            y = block.feed(y + mix(mixer, block.mixer_norm(y)))
        return x + y

    def _from_below(self, x: Tensor, mix: Callable[[LayerStream, Tensor], Tensor]) -> Tensor:
        one = x.dim() == 2
        x = x.unsqueeze(1) if one else x
        pool, T, state = self.down.pool, x.shape[1], self.pooled
        waiting = state.position % pool
        inputs = torch.cat([state.inputs, x], dim=1)
        fresh = inputs[:, inputs.shape[1] - T - waiting :]
        groups = fresh.shape[1] // pool
        rows = state.rows
        if groups:
            slow = self.down(fresh[:, : groups * pool])
            below = cast(_Tier, self.below)
            slow = below.run(slow.squeeze(1), mix).unsqueeze(1) if one else below.run(slow, mix)
            rows = torch.cat([rows, self.up.rows(slow)], dim=1)
        y = self.up.spread(rows[:, rows.shape[1] - groups - 1 :])[:, waiting : waiting + T]
        self.pooled = PoolState(inputs[:, -self.kept :], rows[:, -1 - self.kept :], state.position + T)
        return y.squeeze(1) if one else y

    def rollback(self, n: int) -> None:
        for mixer in self.mixers:  # of the fastest tier first: these refuse what is too much
            mixer.rollback(n)
        if self.below is None:
            return
        state = self.pooled
        position = state.position - n
        groups = state.position // self.down.pool - position // self.down.pool
        self.pooled = PoolState(
            state.inputs[:, : state.inputs.shape[1] - n], state.rows[:, : state.rows.shape[1] - groups], position
        )
        self.below.rollback(groups)

    def reorder(self, rows: Tensor) -> None:
        for mixer in self.mixers:
            mixer.reorder(rows)
        if self.below is not None:
            self.pooled = PoolState(self.pooled.inputs[rows], self.pooled.rows[rows], self.pooled.position)
            self.below.reorder(rows)

    def snapshot(self) -> list[Any]:
        states = [mixer.snapshot() for mixer in self.mixers]
        return states if self.below is None else [*states, self.pooled, *self.below.snapshot()]

    def restore(self, states: Sequence[Any]) -> None:
        count = len(self.mixers)
        for mixer, state in zip(self.mixers, states[:count], strict=True):
            mixer.restore(state)
        if self.below is not None:
            self.pooled = states[count]
            self.below.restore(states[count + 1 :])

    @property
    def nbytes(self) -> int:
        held = sum(mixer.nbytes for mixer in self.mixers)
        return held if self.below is None else held + self.pooled.inputs.nbytes + self.pooled.rows.nbytes + self.below.nbytes


class SashimiStream(SequenceStream):
    """What `Sashimi.stream` opens. Rows that begin at different positions end their groups at different times: a prompt with
    `lengths` gives every row tiers of its own.
    """

    def __init__(self, model: Sashimi, batch_size: int, max_length: int | None, max_rollback: int, backend: str | None) -> None:
        self.inputs, self.norm, self.batch_size = model.inputs, model.norm, batch_size
        self.max_length = max_length
        self._open = lambda rows: _Tier(model, 0, rows, max_rollback, backend)
        self.rows = [self._open(batch_size)]

    taps = 0

    @property
    def position(self) -> int:
        return max(tier.mixers[0].position for tier in self.rows)

    @property
    def nbytes(self) -> int:
        return sum(tier.nbytes for tier in self.rows)

    @torch.no_grad()
    def prefill(self, inputs: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """Begin anew with a prompt; with `lengths` row b's own inputs are its last lengths[b] ones, and hidden states before
        them are zero.
        """
        L = inputs.shape[1]
        self.rows = [self._open(self.batch_size)]
        if lengths is None:
            return super().prefill(inputs)
        given = torch.as_tensor(lengths)
        if given.shape != (self.batch_size,) or given.is_floating_point() or bool(((given < 0) | (given > L)).any()):
            raise ArgumentError(f"lengths is {lengths}; give {self.batch_size} integers from 0 to the {L:,} inputs")
        self.rows = [self._open(1) for _ in range(self.batch_size)]
        x = self.inputs(inputs)
        self._check(x, int(given.max()))
        hidden = torch.zeros_like(x)
        for row, (tier, own) in enumerate(zip(self.rows, given.tolist(), strict=True)):
            if own:
                hidden[row, L - own :] = self.norm(tier.run(x[row : row + 1, L - own :], lambda mixer, u: mixer.prefill(u)))[0]
        return hidden

    def rollback(self, n: int) -> None:
        for tier in self.rows:
            tier.rollback(n)

    def reorder(self, rows: Tensor) -> None:
        if len(self.rows) == 1:
            self.rows[0].reorder(rows)
            return
        if not isinstance(rows, Tensor) or rows.dtype not in (torch.int64, torch.int32) or rows.shape != (self.batch_size,):
            raise ArgumentError(f"rows must be an integer tensor of shape ({self.batch_size},); give one row number a row")
        if bool(((rows < 0) | (rows >= self.batch_size)).any()):
            raise ArgumentError(f"rows has numbers outside of 0 to {self.batch_size - 1}; give rows of the batch")
        states = [tier.snapshot() for tier in self.rows]
        for tier, row in zip(self.rows, rows.tolist(), strict=True):
            tier.restore(states[row])

    def snapshot(self) -> list[Any]:
        return [state for tier in self.rows for state in tier.snapshot()]

    def restore(self, states: Sequence[Any]) -> None:
        count = len(self.rows[0].snapshot())
        if not isinstance(states, Sequence) or len(states) not in (count, count * self.batch_size):
            given = len(states) if isinstance(states, Sequence) else type(states).__name__
            raise ArgumentError(f"{given} states were given for {count} streams; give what snapshot() returned")
        if len(states) != count * len(self.rows):
            together = len(states) == count
            self.rows = [self._open(self.batch_size)] if together else [self._open(1) for _ in range(self.batch_size)]
        for row, tier in enumerate(self.rows):
            tier.restore(states[row * count : (row + 1) * count])

    def _run(self, x: Tensor, mix: Callable[[LayerStream, Tensor], Tensor]) -> Tensor:
        self._check(x, x.shape[1] if x.dim() == 3 else 1)
        size = 1 if len(self.rows) > 1 else self.batch_size
        parts = [tier.run(part, mix) for tier, part in zip(self.rows, x.split(size), strict=True)]
        hidden: Tensor = self.norm(torch.cat(parts))
        return hidden

    def _check(self, x: Tensor, more: int) -> None:
        """Before anything has taken x. Raises ArgumentError in one sentence."""
        if x.shape[0] != self.batch_size:
            raise ArgumentError(f"this stream takes {self.batch_size} rows, but got {x.shape[0]}; open one of that size")
        if self.max_length is not None and self.position + more > self.max_length:
            raise ArgumentError(
                f"{more:,} inputs more would be {self.position + more:,} in all, and the stream was opened for "
                f"max_length={self.max_length:,}; open a longer one, or prefill again"
            )


Config, Model = SashimiConfig, Sashimi
