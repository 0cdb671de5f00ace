"""`StatesStream`: a layer that remembers the last state of a recurrence and nothing else, for inputs that come in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longwave.errors import ArgumentError
from longwave.nn.decode import LayerStream


@dataclass(frozen=True)
class States:
    """Where a `StatesStream` stands: the last states (B, kept, ...), real parts first, float64, and the position."""

    states: Tensor
    position: int


class StatesStream(LayerStream):
    """A `LayerStream` of a layer's recurrence. The last max_rollback + 1 states are kept, in float64.

    A layer's own class writes `advance`, and `advance_one` where a single position can be had for less.

    Args:
        d_model: of the layer.
        shape: of a state.
        batch_size, max_length, max_rollback: as in `longwave.Stream`.
        device: of the layer's parameters.
        after: what is done to results, position by position.

    Raises:
        ArgumentError: a size is out of range.
    """

    taps = 0
    _states: Tensor
    _position: int

    def __init__(
        self,
        d_model: int,
        shape: tuple[int, ...],
        batch_size: int,
        *,
        max_length: int | None,
        max_rollback: int,
        device: torch.device,
        after: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if batch_size < 1 or max_rollback < 0 or (max_length is not None and max_length < 1):
            raise ArgumentError(
                f"a stream needs batch_size and max_length >= 1 and max_rollback >= 0, got {batch_size}, {max_length} and "
                f"{max_rollback}"
            )
        self.d_model, self.shape, self.device, self.after = d_model, shape, device, after
        self.batch_size, self.max_length, self.max_rollback = batch_size, max_length, max_rollback
        self._silence()

    def advance(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Results of u (B, T, d_model) from a state (B, ...) on, and the states (B, T, ...) of all its positions."""
        raise NotImplementedError

    def advance_one(self, u_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The result of u_t (B, d_model), and the state (B, ...) there; the state before is float64."""
        y, states = self.advance(u_t.unsqueeze(1), state.to(_wide(u_t)))
        return y.squeeze(1), states.squeeze(1)

    @property
    def position(self) -> int:
        return self._position

    @property
    def nbytes(self) -> int:
        return self._states.nbytes

    @torch.no_grad()
    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        self._check(u, 3, taken=0)
        if lengths is not None:
            given, T = torch.as_tensor(lengths, device=u.device), u.shape[1]
            if given.shape != (self.batch_size,) or given.is_floating_point() or bool(((given < 0) | (given > T)).any()):
                raise ArgumentError(f"lengths is {lengths}; give {self.batch_size} integers from 0 to the {T:,} positions")
            silent = torch.arange(T, device=u.device).view(-1, 1) < (T - given).view(-1, 1, 1)
            u = u.masked_fill(silent, 0)
        self._silence()
        return self.extend(u)

    @torch.no_grad()
    def extend(self, u: Tensor) -> Tensor:
        self._check(u, 3, taken=self._position)
        y, states = self.advance(u, self._states[:, -1].to(_wide(u)))
        return self._taken(y, states)

    @torch.no_grad()
    def step(self, u_t: Tensor) -> Tensor:
        self._check(u_t, 2, taken=self._position)
        y, state = self.advance_one(u_t, self._states[:, -1])
        return self._taken(y, state.unsqueeze(1))

    def rollback(self, n: int) -> None:
        most = min(self.max_rollback - (self._furthest - self._position), self._states.shape[1] - 1, self._position)
        if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= most:
            raise ArgumentError(
                f"a rollback of {n!r} positions was asked for, and {max(0, most):,} are allowed (max_rollback="
                f"{self.max_rollback:,}, {self._position:,} taken); give a larger max_rollback, or restore a snapshot"
            )
        self._position -= n
        self._states = self._states[:, : self._states.shape[1] - n]

    def reorder(self, rows: Tensor) -> None:
        if not isinstance(rows, Tensor) or rows.dtype not in (torch.int64, torch.int32) or rows.shape != (self.batch_size,):
            raise ArgumentError(f"rows must be an integer tensor of shape ({self.batch_size},); give one row number a row")
        if bool(((rows < 0) | (rows >= self.batch_size)).any()):
            raise ArgumentError(f"rows has numbers outside of 0 to {self.batch_size - 1}; give rows of the batch")
        self._states = self._states[rows.to(self._states.device)]

    def snapshot(self) -> list[States]:
        return [States(self._states.clone(), self._position)]

    def restore(self, states: Sequence[States]) -> None:
        if not isinstance(states, Sequence) or len(states) != 1 or not isinstance(states[0], States):
            raise ArgumentError("these are not the states of one recurrent layer; give what snapshot() returned")
        (given,) = states
        if given.states.shape[0] != self.batch_size or given.states.shape[2:] != self.shape:
            raise ArgumentError(
                f"the states have shape {tuple(given.states.shape)}; this stream wants ({self.batch_size}, any, "
                f"{', '.join(map(str, self.shape))}): open a stream of that size"
            )
        self._states, self._position = given.states[:, -self.max_rollback - 1 :].clone(), given.position
        self._furthest = self._position

    def _silence(self) -> None:
        self._states = torch.zeros(self.batch_size, 1, *self.shape, dtype=torch.float64, device=self.device)
        self._position = self._furthest = 0

    def _taken(self, y: Tensor, states: Tensor) -> Tensor:
        kept = self.max_rollback + 1
        self._states = torch.cat([self._states, states[:, -kept:].double()], dim=1)[:, -kept:]
        self._position += states.shape[1]
        self._furthest = max(self._furthest, self._position)
        return y if self.after is None else self.after(y)

    def _check(self, u: Tensor, dims: int, *, taken: int) -> None:
        more = u.shape[1] if dims == 3 else 1
        if u.dim() != dims or u.shape[0] != self.batch_size or u.shape[-1] != self.d_model or not more:
            wanted = (self.batch_size, self.d_model) if dims == 2 else (self.batch_size, "T", self.d_model)
            raise ArgumentError(f"u has shape {tuple(u.shape)}; this stream takes ({', '.join(map(str, wanted))})")
        if self.max_length is not None and taken + more > self.max_length:
            raise ArgumentError(
                f"{more:,} positions more would be {taken + more:,} in all, and the stream was opened for "
                f"max_length={self.max_length:,}; open a longer one, or prefill again"
            )


def _wide(u: Tensor) -> torch.dtype:
    """What a state is handed on in: rounded to 16 bits it would lose what it adds up."""
    return torch.promote_types(u.dtype, torch.float32)
