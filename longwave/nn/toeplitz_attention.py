"""`ToeplitzAttention`: kernelised attention with a learned bias for every relative position, by long convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn.decode import LayerStream
from longwave.nn.long_conv import LongConvOp
from longwave.ops.long_conv import long_conv
from longwave.ops.stream import Stream

# Features convolved at a time: each takes heads · (head width + 1) channels of memory.
FEATURES = 8


class ToeplitzAttention(nn.Module):
    """A sequence mixer: attention whose weights are a product of features times a Toeplitz matrix.

        q, k, v = in_proj(u)                                       each (B, L, heads, d_model / heads)
        z_i = Σ_j e^(b[i - j]) φ(q_i)·φ(k_j) v_j  /  Σ_j e^(b[i - j]) φ(q_i)·φ(k_j)
        y = out_proj(z)
        φ(x) = e^(-1/2) / √m · [e^(w_1·x̂), …, e^(w_m·x̂)]            x̂ = x / ‖x‖

    j runs over the past and the present, or over everything with `two_sided`, at a distance below `max_length`: further
    positions have no weight. For every feature the sums over j are convolutions of φ(k) v and of φ(k) with the filter e^b of
    their head, and φ(q) is a gate after them: O(L log L) work where attention takes O(L²). Rounding is relative to the
    largest sums, so that where they grow along a long sequence the first positions know fewer digits.

    Parameters (float32): `b` (heads, max_length), lags 0, 1, …, and with `two_sided` `b_rev` (heads, max_length - 1), lags -1,
    -2, …; zeros. Buffer: `directions` (heads, m, d_model / heads), the w, N(0, 1), which are not trained.

    Args:
        d_model: channels, a multiple of `heads`.
        max_length: lags that have weight, on each side.
        heads: at least 1.
        features: m, at least 1.
        two_sided: whether positions see what comes after them.
        backend: the convolution's backend; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.
        split: whether inputs are spans of longer sequences, which `conv` puts together.

    Raises:
        ArgumentError: a size out of range.

    Source: Luo et al. 2021, Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding (arXiv
    2106.12566): normalised, with the positive random features of Performer (arXiv 2009.14794).
    """

    # Ten times the rate: biases begin as zeros and are of the order of one. Copying the token five before, `toeplitz-tiny`
    # (AdamW, 3e-3) is at 0.57 nats after 50 steps, and at 1.20 without.
    optimizer_options: ClassVar[dict[str, dict[str, float]]] = {
        "b": {"lr_scale": 10.0, "weight_decay": 0.0},
        "b_rev": {"lr_scale": 10.0, "weight_decay": 0.0},
    }

    directions: Tensor

    def __init__(
        self,
        d_model: int,
        max_length: int,
        *,
        heads: int = 4,
        features: int = 32,
        two_sided: bool = False,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
        split: bool = False,
    ) -> None:
        super().__init__()
        if min(d_model, max_length, heads, features) < 1 or d_model % heads:
            raise ArgumentError(
                "ToeplitzAttention needs sizes >= 1 and d_model a multiple of heads, "
                f"but got d_model {d_model}, max_length {max_length}, {heads} heads and {features} features"
            )
        self.d_model, self.max_length, self.heads, self.features = d_model, max_length, heads, features
        self.width, self.backend, self.conv, self.split = d_model // heads, backend, conv, split
        self.in_proj = nn.Linear(d_model, 3 * d_model)
        self.b = nn.Parameter(torch.zeros(heads, max_length))
        self.b_rev = nn.Parameter(torch.zeros(heads, max_length - 1)) if two_sided else None
        self.register_buffer("directions", torch.randn(heads, features, self.width))
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Mix `u` (B, L, d_model) along L, documents apart with `cu_seqlens`; the result has its shape.

        Raises:
            ArgumentError: `u` is not (B, L, d_model), or the convolution refuses it.
        """
        if u.ndim != 3 or u.shape[-1] != self.d_model:
            raise ArgumentError(f"ToeplitzAttention takes (B, L, {self.d_model}), but got {tuple(u.shape)}")
        taps = self.max_length if self.split else min(u.shape[1], self.max_length)
        filter = torch.exp(self.b[:, :taps])
        # Lag 0 counts in k_rev too, and has its weight already.
        filter_rev = None if self.b_rev is None else F.pad(torch.exp(self.b_rev[:, : taps - 1]), (1, 0))
        q, k, v = self.projected(u)
        sums = torch.zeros((), device=u.device)
        for q_part, k_part in zip(q.split(FEATURES, dim=-1), k.split(FEATURES, dim=-1), strict=True):
            y = self.conv(
                self.keyed(k_part, v), filter, mode="causal", k_rev=filter_rev, cu_seqlens=cu_seqlens, layout="BLH",
                backend=self.backend,
            )  # fmt: skip
            sums = sums + self.queried(y, q_part)
        return self.divided(sums)

    def projected(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """φ(q) and φ(k), (…, heads, m), and v with a one behind it, (…, heads, width + 1), float32 under autocast too."""
        q, k, v = self.in_proj(u).to(self.b.dtype).unflatten(-1, (3, self.heads, self.width)).unbind(-3)
        with torch.autocast(u.device.type, enabled=False):
            scale = math.exp(-0.5) * self.features**-0.5
            phi_q, phi_k = (
                scale * torch.exp(torch.einsum("...he,hme->...hm", F.normalize(x, dim=-1), self.directions)) for x in (q, k)
            )
        return phi_q, phi_k, F.pad(v, (0, 1), value=1.0)

    def keyed(self, phi_k: Tensor, v: Tensor) -> Tensor:
        """φ(k) v, the channels of a head side by side: (…, heads · features · (width + 1))."""
        return (phi_k.unsqueeze(-1) * v.unsqueeze(-2)).flatten(-3)

    def queried(self, y: Tensor, phi_q: Tensor) -> Tensor:
        """The sum over features of φ(q) y: numerators and, last, denominators, (…, heads, width + 1)."""
        return (y.unflatten(-1, (self.heads, phi_q.shape[-1], -1)) * phi_q.unsqueeze(-1)).sum(dim=-2)

    def divided(self, sums: Tensor) -> Tensor:
        """The result of numerators and denominators; zeros before out_proj where nothing has been summed."""
        numerators, denominators = sums.split([self.width, 1], dim=-1)
        return self.out_proj((numerators / (denominators + (denominators == 0))).flatten(-2))

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> ToeplitzStream:
        """This layer for positions that come one by one; `longwave.Stream` says what the options mean.

        Raises:
            ArgumentError: the layer is two-sided, or a size is out of range.
        """
        return ToeplitzStream(self, batch_size, max_length, max_rollback, backend)


class ToeplitzStream(LayerStream):
    """What `ToeplitzAttention.stream` opens: all features of all heads as one `longwave.Stream`."""

    def __init__(
        self, layer: ToeplitzAttention, batch_size: int, max_length: int | None, max_rollback: int, backend: str | None
    ) -> None:
        if layer.b_rev is not None:
            raise ArgumentError("two-sided attention looks ahead and cannot be streamed; call it on whole inputs")
        self.layer = layer
        options: dict[str, Any] = {"batch_size": batch_size, "max_length": max_length, "max_rollback": max_rollback}
        self.sums = Stream(
            torch.exp(layer.b.detach()),
            channels=layer.heads * layer.features * (layer.width + 1),
            dtype=layer.b.dtype,
            backend=layer.backend if backend is None else backend,
            **options,
        )
        self.streams = [self.sums]

    @torch.no_grad()
    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        q, k, v = self.layer.projected(u)
        y = self.sums.prefill(self.layer.keyed(k, v).transpose(1, 2), lengths).transpose(1, 2)
        return self.layer.divided(self.layer.queried(y, q))

    @torch.no_grad()
    def extend(self, u: Tensor) -> Tensor:
        q, k, v = self.layer.projected(u)
        y = self.sums.extend(self.layer.keyed(k, v).transpose(1, 2)).transpose(1, 2)
        return self.layer.divided(self.layer.queried(y, q))

    @torch.no_grad()
    def step(self, u_t: Tensor) -> Tensor:
        q, k, v = self.layer.projected(u_t)
        return self.layer.divided(self.layer.queried(self.sums.step(self.layer.keyed(k, v)), q))
