"""`S5`: one state space of many inputs and outputs, that can begin with a state and forget it on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn.decode import LayerStream
from longwave.nn.long_conv import LongConvOp
from longwave.nn.state_space import discretised
from longwave.ops.exponentials import all_states
from longwave.ops.long_conv import long_conv


def hippo(state: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues with positive imaginary parts and their eigenvectors, (state / 2,) and (state, state / 2), of the normal
    part of the HiPPO-LegS matrix: -1/2 on the diagonal beside the skew half of -√((2n+1)(2k+1)) (n > k).
    """
    n = torch.arange(state, dtype=torch.float64)
    outer = torch.outer(2 * n + 1, 2 * n + 1).sqrt() / 2
    skew = outer.triu(1) - outer.tril(-1)
    frequency, vectors = torch.linalg.eigh(torch.complex(torch.zeros_like(skew), -skew))
    half = state // 2
    return torch.complex(torch.full_like(frequency[half:], -0.5), frequency[half:]), vectors[:, half:]


class S5(nn.Module):
    """A state space of `state` states between `d_model` inputs and outputs.

        x_t = exp(A dt) x_{t-1} + b ∘ B u_t        y_t = 2 Re(C x_t) + D ∘ u_t        b as zero-order hold gives it

    A is diagonal, -exp(log_decay) + i · frequency, of state / 2 eigenvalues that stand for pairs of conjugates. All states of
    all positions are made by one long convolution of `state` channels (`longwave.ops.exponentials.all_states`), without a
    scan; episodes are its documents.

    Parameters (float32): `log_dt`, `log_decay` and `frequency` (state / 2,), log_dt uniform between the logarithms of dt_min
    and dt_max, the others from blocks of HiPPO-N; `B` (state / 2, d_model, 2) and `C` (d_model, state / 2, 2), real and
    imaginary parts, of variance 1 / inputs before the change to eigenvectors; `D` (d_model,), N(0, 1).

    Args:
        d_model: inputs and outputs.
        state: even, and `blocks` divides it evenly.
        blocks: of the initial matrix.
        dt_min, dt_max: samples' distance in the states' units.
        backend: the convolution's backend; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.

    Raises:
        ArgumentError: a size out of range.

    Source: Smith et al. 2022 (arXiv 2208.04933) for the layer; Lu et al. 2023, Structured State Space Models for In-Context
    Reinforcement Learning (arXiv 2303.03982), for states that are given, reset and handed on.
    """

    optimizer_options: ClassVar[dict[str, dict[str, float]]] = {
        name: {"lr_scale": 0.25, "weight_decay": 0.0} for name in ("log_dt", "log_decay", "frequency", "B")
    } | {"C": {"lr_scale": 1.0, "weight_decay": 0.0}}

    def __init__(
        self,
        d_model: int,
        state: int,
        *,
        blocks: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
    ) -> None:
        super().__init__()
        if min(d_model, state, blocks) < 1 or state % (2 * blocks):
            raise ArgumentError(
                f"S5 needs d_model >= 1 and a state that 2 · blocks divides, but got {d_model}, {state} and {blocks} blocks"
            )
        if not 0 < dt_min <= dt_max:
            raise ArgumentError(f"S5 needs 0 < dt_min <= dt_max, but got {dt_min} and {dt_max}")
        self.d_model, self.state, self.backend, self.conv = d_model, state, backend, conv
        states, size = state // 2, state // blocks
        a, vectors = hippo(size)
        self.log_dt = nn.Parameter(torch.empty(states).uniform_(math.log(dt_min), math.log(dt_max)))
        self.log_decay = nn.Parameter((-a.real).log().float().repeat(blocks))
        self.frequency = nn.Parameter(a.imag.float().repeat(blocks))
        B = torch.randn(blocks, size, d_model, dtype=torch.float64) * d_model**-0.5
        C = torch.randn(d_model, blocks, size, dtype=torch.complex128) * state**-0.5
        self.B = nn.Parameter(torch.view_as_real((vectors.mH @ B.to(vectors.dtype)).flatten(0, 1)).float())
        self.C = nn.Parameter(torch.view_as_real((C @ vectors).flatten(1)).float())
        self.D = nn.Parameter(torch.randn(d_model))

    def discrete(self, *, time_scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """log_z (P,), complex128, and the real matrices of input (2 P, d_model) and output (d_model, 2 P), float64, for states
        whose real parts stand before their imaginary ones. `time_scale` multiplies dt.
        """
        a = torch.complex(-self.log_decay.double().exp(), self.frequency.double())
        log_z, b = discretised(a, self.log_dt.double().exp() * time_scale, "zoh")
        B = b.unsqueeze(-1) * torch.view_as_complex(self.B.double())
        C = 2 * self.C.double()
        return log_z, torch.cat([B.real, B.imag]), torch.cat([C[..., 0], -C[..., 1]], dim=1)

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None, time_scale: float = 1.0) -> Tensor:
        """Outputs of `u` (B, L, d_model), of its shape, in the parameters' dtype under autocast too; with `cu_seqlens`, as in
        `longwave.long_conv`, its documents apart.

        Raises:
            ArgumentError: `u` is not (B, L, d_model), or the convolution refuses it.
        """
        return self._through(u, None, cu_seqlens, time_scale)[0]

    def advance(
        self, u: Tensor, state: Tensor | None = None, *, resets: Tensor | None = None, time_scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """A segment of a longer sequence, with episodes that begin on the way; gradients flow into the state and out of it.

        Args:
            u: (B, L, d_model).
            state: (B, state / 2), complex: x before the segment, 0 without it.
            resets: (B, L), bool: where an episode begins; what stood before that position is forgotten. Read on the CPU.
            time_scale: multiplies dt.

        Returns:
            Outputs (B, L, d_model), and x after the segment, (B, state / 2), complex64 (complex128 in float64).

        Raises:
            ArgumentError: a wrong shape or dtype.
        """
        B, L = u.shape[0], u.shape[1]
        wide = torch.promote_types(self.D.dtype, torch.float32)
        if state is not None and (state.shape != (B, self.state // 2) or not state.is_complex()):
            raise ArgumentError(
                f"the state is {state.dtype} {tuple(state.shape)}; give a complex one of shape {(B, self.state // 2)}"
            )
        flat = None if state is None else torch.cat([state.real, state.imag], dim=-1).to(wide)
        if resets is None:
            y, x = self._through(u, flat, None, time_scale)
        else:
            if resets.shape != (B, L) or resets.dtype != torch.bool:
                raise ArgumentError(f"resets is {resets.dtype} {tuple(resets.shape)}; give torch.bool of shape {(B, L)}")
            y, x = self._episodes(u, flat, resets, time_scale)
        P = self.state // 2
        return y, torch.complex(x[:, -1, :P], x[:, -1, P:])

    def stream(
        self,
        batch_size: int,
        *,
        max_length: int | None = None,
        max_rollback: int = 0,
        backend: str | None = None,
        time_scale: float = 1.0,
        after: Callable[[Tensor], Tensor] | None = None,
    ) -> S5Stream:
        """This layer for positions that come one by one, by its recurrence; chunks go through `backend` (the layer's own when
        not given), and `after` is applied to results.

        Raises:
            ArgumentError: a size is out of range.
        """
        chosen = self.backend if backend is None else backend
        return S5Stream(self, batch_size, max_length, max_rollback, chosen, time_scale, after)

    def _through(
        self, u: Tensor, state: Tensor | None, cu_seqlens: Tensor | None, time_scale: float, *, backend: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs, and all states (B, L, 2 P), by the layer's backend if none is given."""
        backend = self.backend if backend is None else backend
        if u.ndim != 3 or u.shape[-1] != self.d_model:
            raise ArgumentError(f"S5 takes (B, L, {self.d_model}), but got {tuple(u.shape)}")
        with torch.autocast(u.device.type, enabled=False):
            wide = torch.promote_types(self.D.dtype, torch.float32)
            u = u.to(wide)
            log_z, B, C = self.discrete(time_scale=time_scale)
            v = F.linear(u, B.to(wide)).unsqueeze(-1)
            lead = None if state is None else state.unsqueeze(-1)
            x = all_states(log_z, v, lead, cu_seqlens=cu_seqlens, backend=backend, conv=self.conv).squeeze(-1)
            return F.linear(x, C.to(wide)) + self.D.to(wide) * u, x

    def _episodes(self, u: Tensor, state: Tensor | None, resets: Tensor, time_scale: float) -> tuple[Tensor, Tensor]:
        """`_through` of rows as documents of one row: each begins with its state as one sample more, and is cut at resets."""
        (rows, L), P2 = resets.shape, self.state
        with torch.autocast(u.device.type, enabled=False):
            wide = torch.promote_types(self.D.dtype, torch.float32)
            u = u.to(wide)
            log_z, B, C = self.discrete(time_scale=time_scale)
            lead = u.new_zeros(rows, 1, P2) if state is None else state.unsqueeze(1)
            v = torch.cat([lead, F.linear(u, B.to(wide))], dim=1).reshape(1, rows * (L + 1), P2, 1)
            begins = F.pad(resets.cpu(), (1, 0))
            begins[:, 0] = True
            places = begins.flatten().nonzero().flatten()
            cu_seqlens = F.pad(places, (0, 1), value=rows * (L + 1)).to(torch.int32)
            x = all_states(log_z, v, cu_seqlens=cu_seqlens, backend=self.backend, conv=self.conv)
            x = x.view(rows, L + 1, P2)[:, 1:]
            return F.linear(x, C.to(wide)) + self.D.to(wide) * u, x

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, state={self.state}"


@dataclass(frozen=True)
class S5State:
    """Where an `S5Stream` stands: the last states (B, kept, state), real parts first, float64, and the position."""

    states: Tensor
    position: int


class S5Stream(LayerStream):
    """What `S5.stream` opens: a step is one product of small matrices and the states' own. The last max_rollback + 1 states
    are kept.
    """

    taps = 0
    _states: Tensor
    _position: int

    def __init__(
        self,
        layer: S5,
        batch_size: int,
        max_length: int | None,
        max_rollback: int,
        backend: str,
        time_scale: float,
        after: Callable[[Tensor], Tensor] | None,
    ) -> None:
        if batch_size < 1 or max_rollback < 0 or (max_length is not None and max_length < 1):
            raise ArgumentError(
                f"a stream needs batch_size and max_length >= 1 and max_rollback >= 0, got {batch_size}, {max_length} and "
                f"{max_rollback}"
            )
        self.layer, self.after, self.backend, self.time_scale = layer, after, backend, time_scale
        self.batch_size, self.max_length, self.max_rollback = batch_size, max_length, max_rollback
        with torch.no_grad():
            log_z, self._B, self._C = layer.discrete(time_scale=time_scale)
            self._z, self._D = torch.exp(log_z), layer.D.double()
        self._silence()

    @property
    def position(self) -> int:
        return self._position

    @property
    def nbytes(self) -> int:
        return self._states.nbytes + self._B.nbytes + self._C.nbytes

    @torch.no_grad()
    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        self._silence()
        if lengths is None:
            return self.extend(u)
        given = torch.as_tensor(lengths, device=u.device)
        T = u.shape[1]
        if given.shape != (self.batch_size,) or given.is_floating_point() or bool(((given < 0) | (given > T)).any()):
            raise ArgumentError(f"lengths is {lengths}; give {self.batch_size} integers from 0 to the {T:,} positions")
        silent = torch.arange(T, device=u.device).view(-1, 1) < (T - given).view(-1, 1, 1)
        return self.extend(u.masked_fill(silent, 0))

    @torch.no_grad()
    def extend(self, u: Tensor) -> Tensor:
        self._check(u, 3)
        y, x = self.layer._through(u, self._states[:, -1].to(u.dtype), None, self.time_scale, backend=self.backend)
        self._take(x.double())
        return y if self.after is None else self.after(y)

    @torch.no_grad()
    def step(self, u_t: Tensor) -> Tensor:
        self._check(u_t, 2)
        exact = u_t.double()
        re, im = self._states[:, -1].chunk(2, dim=-1)
        v = F.linear(exact, self._B)
        x = torch.cat([self._z.real * re - self._z.imag * im, self._z.real * im + self._z.imag * re], dim=-1) + v
        self._take(x.unsqueeze(1))
        y = (F.linear(x, self._C) + self._D * exact).to(u_t.dtype)
        return y if self.after is None else self.after(y)

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

    def snapshot(self) -> list[S5State]:
        return [S5State(self._states.clone(), self._position)]

    def restore(self, states: Sequence[S5State]) -> None:
        if not isinstance(states, Sequence) or len(states) != 1 or not isinstance(states[0], S5State):
            raise ArgumentError("these are not the states of one S5 stream; give what snapshot() returned")
        (state,) = states
        if state.states.shape[0] != self.batch_size or state.states.shape[2] != self.layer.state:
            raise ArgumentError(
                f"the states have shape {tuple(state.states.shape)}; this stream wants ({self.batch_size}, any, "
                f"{self.layer.state}): open a stream of that size"
            )
        self._states, self._position = state.states[:, -self.max_rollback - 1 :].clone(), state.position
        self._furthest = self._position

    def _silence(self) -> None:
        self._states = torch.zeros(self.batch_size, 1, self.layer.state, dtype=torch.float64, device=self._z.device)
        self._position = self._furthest = 0

    def _take(self, x: Tensor) -> None:
        self._states = torch.cat([self._states, x], dim=1)[:, -self.max_rollback - 1 :]
        self._position += x.shape[1]
        self._furthest = max(self._furthest, self._position)

    def _check(self, u: Tensor, dims: int) -> None:
        more = u.shape[1] if dims == 3 else 1
        if u.dim() != dims or u.shape[0] != self.batch_size or u.shape[-1] != self.layer.d_model or not more:
            wanted = (self.batch_size, self.layer.d_model) if dims == 2 else (self.batch_size, "T", self.layer.d_model)
            raise ArgumentError(f"u has shape {tuple(u.shape)}; this stream takes ({', '.join(map(str, wanted))})")
        if self.max_length is not None and self._position + more > self.max_length:
            raise ArgumentError(
                f"{more:,} positions more would be {self._position + more:,} in all, and the stream was opened for "
                f"max_length={self.max_length:,}; open a longer one, or prefill again"
            )
