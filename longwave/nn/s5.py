"""`S5`: one state space of many inputs and outputs, that can begin with a state and forget it on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn.long_conv import LongConvOp
from longwave.nn.state_space import discretised
from longwave.nn.states_stream import StatesStream
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
        return S5Stream(
            self, batch_size, chosen, time_scale, max_length=max_length, max_rollback=max_rollback, after=after
        )  # fmt: skip

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
            return (F.linear(x, C.to(wide)) + self.D.to(wide) * u).to(self.D.dtype), x

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
            return (F.linear(x, C.to(wide)) + self.D.to(wide) * u).to(self.D.dtype), x

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, state={self.state}"


class S5Stream(StatesStream):
    """What `S5.stream` opens: a step is one product of small matrices and the states' own."""

    def __init__(self, layer: S5, batch_size: int, backend: str, time_scale: float, **options: Any) -> None:
        super().__init__(layer.d_model, (layer.state,), batch_size, device=layer.D.device, **options)
        self.layer, self.backend, self.time_scale = layer, backend, time_scale
        with torch.no_grad():
            log_z, self._B, self._C = layer.discrete(time_scale=time_scale)
            self._z, self._D = torch.exp(log_z), layer.D.double()

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._B.nbytes + self._C.nbytes

    def advance(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer._through(u, state, None, self.time_scale, backend=self.backend)

    def advance_one(self, u_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        exact = u_t.double()
        re, im = state.chunk(2, dim=-1)
        v = F.linear(exact, self._B)
        x = torch.cat([self._z.real * re - self._z.imag * im, self._z.real * im + self._z.imag * re], dim=-1) + v
        return (F.linear(x, self._C) + self._D * exact).to(u_t.dtype), x
