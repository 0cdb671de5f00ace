"""`S4D`: the layer around a diagonal state space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn.decode import LayerStream
from longwave.nn.long_conv import LongConvOp
from longwave.nn.state_space import StateSpaceConv1d
from longwave.ops.long_conv import long_conv
from longwave.ops.recurrence import RecurrentStream


class S4D(nn.Module):
    """A sequence mixer: a state space for each channel, GELU, and a gated linear map that mixes channels.

        y = GLU(W · GELU(conv(u) + D u) + b)

    Args:
        d_model: channels of input and result.
        state: N, the size of a state space.
        two_sided: a second filter over what comes after.
        backend: the convolution's backend; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.
        filter_options: keywords of `StateSpaceFilter`.

    Raises:
        ArgumentError: a size or name out of range.

    Source: Gu et al. 2022 (arXiv 2206.11893); the layer around the state space is that of S4 (arXiv 2111.00396).
    """

    def __init__(
        self,
        d_model: int,
        state: int = 64,
        *,
        two_sided: bool = False,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
        **filter_options: str | float,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.long = StateSpaceConv1d(
            d_model, state, two_sided=two_sided, backend=backend, conv=conv, **filter_options  # type: ignore[arg-type]
        )  # fmt: skip
        self.out_proj = nn.Linear(d_model, 2 * d_model)

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None, time_scale: float = 1.0) -> Tensor:
        """Mix `u` (B, L, d_model) along L, documents apart with `cu_seqlens`; the result has its shape. `time_scale` as in
        `StateSpaceFilter.recurrence`.

        Raises:
            ArgumentError: `u` is not (B, L, d_model), or the convolution refuses it.
        """
        if u.ndim != 3 or u.shape[-1] != self.d_model:
            raise ArgumentError(f"S4D takes (B, L, {self.d_model}), but got {tuple(u.shape)}")
        return self.mixed(self.long(u, cu_seqlens=cu_seqlens, time_scale=time_scale))

    def mixed(self, y: Tensor) -> Tensor:
        """What follows the state spaces, position by position: (..., d_model) to the same."""
        return F.glu(self.out_proj(F.gelu(y)), dim=-1)

    def stream(
        self,
        batch_size: int,
        *,
        max_length: int | None = None,
        max_rollback: int = 0,
        backend: str | None = None,
        time_scale: float = 1.0,
    ) -> S4DStream:
        """This layer for positions that come one by one, by its own recurrence; `RecurrentStream` says what the options mean.

        Raises:
            ArgumentError: the layer is two-sided, or a size is out of range.
        """
        return S4DStream(
            self,
            self.long.stream(
                batch_size, max_length=max_length, max_rollback=max_rollback, backend=backend, time_scale=time_scale
            ),
        )


class S4DStream(LayerStream):
    """What `S4D.stream` opens."""

    def __init__(self, layer: S4D, states: RecurrentStream) -> None:
        self.layer, self.states, self.streams = layer, states, [states]

    @torch.no_grad()
    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        return self.layer.mixed(self.states.prefill(u.transpose(1, 2), lengths).transpose(1, 2))

    @torch.no_grad()
    def extend(self, u: Tensor) -> Tensor:
        return self.layer.mixed(self.states.extend(u.transpose(1, 2)).transpose(1, 2))

    @torch.no_grad()
    def step(self, u_t: Tensor) -> Tensor:
        return self.layer.mixed(self.states.step(u_t))
