"""Implicit filters: a small network of the tap's position instead of a parameter for every tap."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from longwave.errors import ArgumentError
from longwave.nn.decode import PART
from longwave.nn.residual import CHECKPOINT
from longwave.transforms import must_be_seen_through


class Sine(nn.Module):
    """sin(w · x) with one learned frequency w for each of `width` features.

    A larger w lets the network behind it vary faster from tap to tap. Source: Hyena (arXiv 2302.10866), section 3.3.
    """

    def __init__(self, width: int, frequency: float) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.full((width,), float(frequency)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width), in the wider of `x`'s and the parameter's dtype."""
        return torch.sin(self.frequency * x)


class HyenaFilter(nn.Module):
    """`channels` filters as one network of position, under an exponential decay.

        k[h, s] = decay[h, s] · MLP(features(s))[h]        decay[h, s] = exp(-rate[h] · s / (max_length - 1))

    `features(s)` holds p = s / (max_length - 1) and, for B = (features - 1) / 2 frequencies f from 0 to B - 1 cycles in
    `max_length`, cos(2π f p) and -sin(2π f p). The rates run linearly over the channels, from the one that has fallen
    to 1/100 after the share `fast_decay` of `max_length` to the one that does so after `slow_decay`; they are not
    trained.

    Args:
        channels: H, at least 1.
        max_length: the number of taps that positions are measured by; shorter filters are its first taps.
        features: 1 + 2 B, odd and at least 3.
        width: the MLP's hidden width.
        inner_layers: hidden layers after the first.
        frequency: start of the sine activations' w.
        fast_decay: share of `max_length` after which the fastest channel is at 1/100, greater than 0.
        slow_decay: the same for the slowest.

    Raises:
        ArgumentError: a size or share out of range.

    Source: Poli et al. 2023 (arXiv 2302.10866), section 3.3 and appendix D.3; HyenaDNA (arXiv 2306.15794).
    """

    # Its weights set the filter's frequencies, not its size: decay would smooth it (HyenaDNA trains without it too).
    optimizer_options: ClassVar[dict[str, dict[str, float]]] = {"*": {"weight_decay": 0.0}}

    def __init__(
        self,
        channels: int,
        max_length: int,
        *,
        features: int = 5,
        width: int = 64,
        inner_layers: int = 2,
        frequency: float = 10.0,
        fast_decay: float = 0.3,
        slow_decay: float = 1.5,
    ) -> None:
        super().__init__()
        if min(channels, max_length, width) < 1 or inner_layers < 0:
            raise ArgumentError(
                "HyenaFilter needs channels, max_length and width >= 1 and inner_layers >= 0, "
                f"but got {channels}, {max_length}, {width} and {inner_layers}"
            )
        if features < 3 or features % 2 == 0:
            raise ArgumentError(f"HyenaFilter needs an odd number of features >= 3, but got {features}")
        if not 0 < fast_decay <= slow_decay:
            raise ArgumentError(
                f"HyenaFilter needs 0 < fast_decay <= slow_decay (shares of max_length), got {fast_decay}, {slow_decay}"
            )
        self.channels, self.max_length, self.features = channels, max_length, features
        self.fast_decay, self.slow_decay = fast_decay, slow_decay
        self.layers = nn.ModuleList(nn.Linear(features if i == 0 else width, width) for i in range(inner_layers + 1))
        self.activations = nn.ModuleList(Sine(width, frequency) for _ in range(inner_layers + 1))
        self.out = nn.Linear(width, channels, bias=False)

    def positions(self, first: int, stop: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The positions p of taps `first` to `stop` - 1, 0 at the first of all and 1 at tap `max_length` - 1."""
        return torch.arange(first, stop, device=device, dtype=dtype) / max(self.max_length - 1, 1)

    def forward(self, taps: int | None = None) -> Tensor:
        """The first `taps` taps (all `max_length` without it).

        Returns:
            (channels, taps), float32 under autocast too (float64 where the parameters are): a filter in 16 bits would
            lose more than the convolution does.

        Raises:
            ArgumentError: `taps` is not between 1 and `max_length`.
        """
        taps = self.max_length if taps is None else taps
        if not 1 <= taps <= self.max_length:
            raise ArgumentError(f"HyenaFilter was asked for {taps} taps; it has 1 to {self.max_length}")
        tensors = self._tensors()
        if taps <= PART:
            return self._span(0, taps, *tensors)
        spans = [(first, min(first + PART, taps)) for first in range(0, taps, PART)]
        if not torch.is_grad_enabled() or must_be_seen_through():  # transforms of `torch.func` refuse a checkpoint
            return torch.cat([self._span(*span, *tensors) for span in spans], dim=1)
        # Inside, the network holds several times what it gives: it is computed again, a part at a time, from the same tensors,
        # which may no longer be the layer's (`torch.func.functional_call`).
        return torch.cat([checkpoint(self._span, *span, *tensors, **CHECKPOINT) for span in spans], dim=1)

    def _tensors(self) -> list[Tensor]:
        """The weight of `out`; then of every layer weight, bias and the frequency of what follows."""
        layers = zip(self.layers, self.activations, strict=True)
        return [self.out.weight, *(tensor for pair in layers for module in pair for tensor in module.parameters())]

    def _span(self, first: int, stop: int, weight: Tensor, *network: Tensor) -> Tensor:
        """Taps `first` to `stop` - 1, (channels, stop - first), of `_tensors`."""
        dtype = torch.promote_types(weight.dtype, torch.float32)
        with torch.autocast(weight.device.type, enabled=False):
            p_K = self.positions(first, stop, device=weight.device, dtype=dtype)
            bands = (self.features - 1) // 2
            # 1e-4 in place of 0 cycles, as published: a constant feature would be a second bias.
            f = torch.linspace(1e-4, bands - 1, bands, device=weight.device, dtype=dtype)
            angle_KB = 2 * math.pi * p_K[:, None] * f
            x = torch.cat([p_K[:, None], angle_KB.cos(), -angle_KB.sin()], dim=1)
            for W, b, w in zip(network[::3], network[1::3], network[2::3], strict=True):
                x = torch.sin(w * nn.functional.linear(x, W.to(dtype), b.to(dtype)))
            # Slower channels last; ln(100) is the fall to 1/100.
            rate_H = math.log(100) * torch.linspace(
                1 / self.fast_decay, 1 / self.slow_decay, self.channels, device=weight.device, dtype=dtype
            )
            return (weight.to(dtype) @ x.T) * torch.exp(-rate_H[:, None] * p_K)
