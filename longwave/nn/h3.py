"""`H3`: a shift state space and a diagonal one between multiplicative gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from longwave.errors import ArgumentError
from longwave.nn.decode import LayerStream
from longwave.nn.long_conv import LongConvOp
from longwave.nn.short_conv import ShortConv1d, ShortConvOp
from longwave.nn.state_space import StateSpaceFilter
from longwave.ops.long_conv import long_conv
from longwave.ops.recurrence import RecurrentStream
from longwave.ops.short_conv import short_conv
from longwave.ops.stream import Stream


class H3(nn.Module):
    """A causal sequence mixer that can compare tokens: heads of d = head_dim channels, of queries, keys and values.

        [q, k, v] = u W + b        s_t = Σ_{i<N} C[i] · k_{t-i}        y_t = q_t · (SSM(s vᵀ) + D s vᵀ)_t        out = y W' + b'

    The shift state space of size N, whose matrix moves samples along and whose output matrix is C, is a short convolution of N
    taps for each channel (its skip connection is the first of them). s vᵀ are d · d channels of a head, all under the one
    filter of that head's diagonal state space; with head_dim = 1 they are one channel and both products are gates of one call.

    Args:
        d_model: channels of input and result.
        state: N of both state spaces, up to 256.
        head_dim: d; it divides d_model.
        backend: the convolution's backend; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.
        short: the short convolution to call; a replacement keeps the signature of `longwave.short_conv`.
        taps: of the filters, whatever the input: those of whole sequences, where inputs are spans of them, which both operators
            put together.
        filter_options: keywords of `StateSpaceFilter`.

    Raises:
        ArgumentError: a size out of range.

    Source: Fu et al. 2022, Hungry Hungry Hippos (arXiv 2212.14052), section 3.1 and algorithm 1.
    """

    def __init__(
        self,
        d_model: int,
        state: int = 64,
        *,
        head_dim: int = 1,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
        short: ShortConvOp = short_conv,
        taps: int | None = None,
        **filter_options: str | float,
    ) -> None:
        super().__init__()
        if d_model < 1 or head_dim < 1 or d_model % head_dim:
            raise ArgumentError(f"H3 needs d_model >= 1 and a head_dim that divides it, but got {d_model} and {head_dim}")
        self.d_model, self.head_dim, self.heads = d_model, head_dim, d_model // head_dim
        self.backend, self.conv, self.taps = backend, conv, taps
        self.in_proj = nn.Linear(d_model, 3 * d_model)
        self.shift = ShortConv1d(d_model, state, bias=False, layout="BLH", conv=short)
        self.filter = StateSpaceFilter(self.heads, state, **filter_options)  # type: ignore[arg-type]
        self.D = nn.Parameter(torch.randn(self.heads))
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Mix `u` (B, L, d_model) along L, documents apart with `cu_seqlens`; the result has its shape.

        Raises:
            ArgumentError: `u` is not (B, L, d_model), or a convolution refuses it.
        """
        if u.ndim != 3 or u.shape[-1] != self.d_model:
            raise ArgumentError(f"H3 takes (B, L, {self.d_model}), but got {tuple(u.shape)}")
        q, k, v = self.in_proj(u).chunk(3, dim=-1)
        k = self.shift(k, cu_seqlens=cu_seqlens)
        taps = self.filter(self.taps or u.shape[1])
        if self.head_dim == 1:
            y = self.conv(
                v, taps, self.D, pregate=k, postgate=q, cu_seqlens=cu_seqlens, layout="BLH", backend=self.backend
            )  # fmt: skip
            return self.out_proj(y)
        kv = self.conv(
            self.outer(k, v), taps, self.D.repeat_interleave(self.head_dim**2), cu_seqlens=cu_seqlens, layout="BLH",
            backend=self.backend,
        )  # fmt: skip
        return self.out_proj(self.read(q, kv))

    def outer(self, k: Tensor, v: Tensor) -> Tensor:
        """Keys times values, head by head: (..., d_model) each to (..., heads · d · d)."""
        heads = (self.heads, self.head_dim)
        return (k.unflatten(-1, heads).unsqueeze(-1) * v.unflatten(-1, heads).unsqueeze(-2)).flatten(-3)

    def read(self, q: Tensor, kv: Tensor) -> Tensor:
        """Queries applied to what is stored: (..., d_model) and (..., heads · d · d) to (..., d_model)."""
        d = self.head_dim
        return (q.unflatten(-1, (self.heads, d, 1)) * kv.unflatten(-1, (self.heads, d, d))).sum(-2).flatten(-2)

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> H3Stream:
        """This layer for positions that come one by one: the shift as a `longwave.Stream`, the diagonal state space by its
        recurrence.

        Raises:
            ArgumentError: a size is out of range.
        """
        return H3Stream(self, batch_size, max_length, max_rollback, self.backend if backend is None else backend)


class H3Stream(LayerStream):
    """What `H3.stream` opens."""

    def __init__(self, layer: H3, batch_size: int, max_length: int | None, max_rollback: int, backend: str) -> None:
        self.layer = layer
        dtype = layer.in_proj.weight.dtype
        with torch.no_grad():
            log_z, c, D = (x.repeat_interleave(layer.head_dim**2, dim=0) for x in (*layer.filter.recurrence(), layer.D))
            shift = layer.shift.weight.flip(-1)
        self.shift = Stream(
            shift, batch_size=batch_size, dtype=dtype, max_length=max_length, max_rollback=max_rollback, backend=backend
        )
        self.long = RecurrentStream(
            log_z, c, D, batch_size=batch_size, dtype=dtype, max_length=max_length, max_rollback=max_rollback, backend=backend
        )
        self.streams = [self.shift, self.long]

    @torch.no_grad()
    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        return self._gated(u, lambda stream, x: stream.prefill(x.transpose(1, 2), lengths).transpose(1, 2))

    @torch.no_grad()
    def extend(self, u: Tensor) -> Tensor:
        return self._gated(u, lambda stream, x: stream.extend(x.transpose(1, 2)).transpose(1, 2))

    @torch.no_grad()
    def step(self, u_t: Tensor) -> Tensor:
        return self._gated(u_t, lambda stream, x: stream.step(x))

    def _gated(self, u: Tensor, run: Callable[[Stream | RecurrentStream, Tensor], Tensor]) -> Tensor:
        q, k, v = self.layer.in_proj(u).chunk(3, dim=-1)
        kv = run(self.long, self.layer.outer(run(self.shift, k), v))
        out: Tensor = self.layer.out_proj(self.layer.read(q, kv))
        return out
