"""`HyperZZW`: a mixer whose filters a network makes of coordinates, and of the sample that they are for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn.long_conv import LongConvOp
from longwave.ops.long_conv import long_conv


class CoordinateNetwork(nn.Module):
    """Values for `channels` at points between -1 and 1, by a network of products of sines, with or without a context.

        h_1 = sin(A_1 c + a_1)
        h_(i+1) = (W_i h_i + b_i) ⊙ sin(A_(i+1) c + a_(i+1)) ⊙ (V_i p + d_i)          i = 1 … layers
        k = W_out h + b_out

    c is the coordinate, and p (width,) the context at that point; without a context its factor is left out. A_i begin as
    N(0, 1) times 2π · `frequency` · γ, γ drawn from Gamma(6 / i, 1), so that later layers begin slower; b and d begin as ones.

    Args:
        channels: results a point.
        width: of the hidden layers.
        layers: hidden ones after the first, at least 1.
        frequency: of the sines, in cycles over the coordinates.
        context: whether there is a p.
        scale: W_out begins smaller by this factor.

    Raises:
        ArgumentError: a size out of range.

    Source: Zhang 2024 (arXiv 2401.17948); Romero et al. 2021, FlexConv (arXiv 2110.08059), whose MAGNet it is.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 32,
        layers: int = 2,
        frequency: float = 1.0,
        context: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if min(channels, width, layers) < 1:
            raise ArgumentError(
                f"CoordinateNetwork needs channels, width and layers of at least 1, but got {channels}, {width} and {layers}"
            )
        self.waves = nn.ModuleList(nn.Linear(1, width) for _ in range(layers + 1))
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.context = nn.ModuleList(nn.Linear(width, width) for _ in range(layers)) if context else None
        self.out = nn.Linear(width, channels)
        with torch.no_grad():
            for i, wave in enumerate(cast(Iterable[nn.Linear], self.waves)):
                gamma = torch.distributions.Gamma(6.0 / (i + 1), 1.0).sample((width, 1)).to(wave.weight.device)
                wave.weight.copy_(2 * math.pi * frequency * gamma * torch.randn(width, 1, device=wave.weight.device))
                nn.init.zeros_(wave.bias)
            for linear in [*self.hidden, *(self.context or [])]:
                nn.init.kaiming_uniform_(linear.weight, nonlinearity="linear")
                nn.init.ones_(linear.bias)
            nn.init.kaiming_uniform_(self.out.weight, nonlinearity="linear")
            self.out.weight.mul_(scale)
            nn.init.zeros_(self.out.bias)

    def forward(self, points: int, context: Tensor | None = None) -> Tensor:
        """Values at `points` places from -1 to 1, (points, channels); (B, …) of them with a `context` (B, points, width)."""
        weight = self.out.weight
        c = torch.linspace(-1, 1, points, device=weight.device, dtype=weight.dtype).unsqueeze(-1)
        h = torch.sin(self.waves[0](c))
        for i, hidden in enumerate(self.hidden):
            h = hidden(h) * torch.sin(self.waves[i + 1](c))
            if self.context is not None:
                h = h * self.context[i](context)
        values: Tensor = self.out(h)
        return values


class HyperZZW(nn.Module):
    """A sequence mixer of two products of activations and of weights that a network makes: every sample has filters of its own.

        local:   p = GELU(W_f · (W_r · pool(u)))          pool: means of u over `taps` equal parts
                 k = network_k(p)                         (B, d_model, taps), a filter for every sample
                 y_l = conv(u, k)                         as long as u, tap (taps - 1) // 2 at the position itself
        global:  y_g = (g ⊙ u) ⊙ (W_m u + b_m)            g = network_g(), (d_model, L)
        y = out_proj([y_l, y_g])

    Both see both sides: filters depend on the whole sample, so that packed documents and streams have no meaning.

    Args:
        d_model: channels.
        taps: of the filters, at least 1.
        width: hidden width of the two networks and of the context.
        layers: hidden layers of the two networks after the first.
        frequency: of the sines that they begin with.
        backend: the convolution's backend; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.

    Raises:
        ArgumentError: a size out of range.

    Source: Zhang 2024, HyperZ·Z·W Operator Connects Slow-Fast Networks for Full Context Interaction (arXiv 2401.17948), in one
    dimension: the operator of its local and of its global branches. Its Terminator has nine of them, gates between them and
    standardisations, which are not here; there all samples of a batch share the context of a filter, here none does.
    """

    def __init__(
        self,
        d_model: int,
        taps: int,
        *,
        width: int = 32,
        layers: int = 2,
        frequency: float = 1.0,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
    ) -> None:
        super().__init__()
        if d_model < 1 or taps < 1:
            raise ArgumentError(f"HyperZZW needs d_model and taps >= 1, but got {d_model} and {taps}")
        self.d_model, self.taps, self.backend, self.conv = d_model, taps, backend, conv
        self.reduce = nn.Linear(d_model, width)
        self.context = nn.Linear(width, width)
        options: dict[str, Any] = {"width": width, "layers": layers, "frequency": frequency}
        self.local_network = CoordinateNetwork(d_model, context=True, scale=taps**-0.5, **options)
        self.global_network = CoordinateNetwork(d_model, **options)
        self.mix = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(2 * d_model, d_model)

    def filters(self, u: Tensor) -> Tensor:
        """A filter for every sample and channel of `u` (B, L, d_model): (B, d_model, taps), float32 under autocast too."""
        with torch.autocast(u.device.type, enabled=False):
            pooled = F.adaptive_avg_pool1d(u.to(self.reduce.weight.dtype).transpose(1, 2), self.taps)
            p = F.gelu(self.context(self.reduce(pooled.transpose(1, 2))))
            return self.local_network(self.taps, p).transpose(1, 2)

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Mix `u` (B, L, d_model) along L; the result has its shape.

        Raises:
            ArgumentError: `u` is not (B, L, d_model), documents are packed, or the convolution refuses it.
        """
        if u.ndim != 3 or u.shape[-1] != self.d_model:
            raise ArgumentError(f"HyperZZW takes (B, L, {self.d_model}), but got {tuple(u.shape)}")
        if cu_seqlens is not None:
            raise ArgumentError("HyperZZW does not take packed documents (cu_seqlens); give every document a row of its own")
        local = self.conv(u, self.filters(u), mode="same", layout="BLH", backend=self.backend)
        with torch.autocast(u.device.type, enabled=False):
            g = self.global_network(u.shape[1])
        return self.out_proj(torch.cat([local, (g * u) * self.mix(u)], dim=-1))
