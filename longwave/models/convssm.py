"""ConvSSM for video: a state space over time for each pixel of a smaller image, and convolutions over the plane around it.

A position is a frame. Frames go through a convolution that makes them smaller, blocks of a `ConvSSM`, a convolution of its
result and a norm, and a convolution that makes them as large as before, with so many features a pixel.
Source: Smith et al. 2023, Convolutional State Space Models (arXiv 2310.19694).

The preset `convssm-moving-mnist` has the sizes of the authors' program (64 × 64 pixels, 16 × 16 inside, 8 blocks of 256
channels and 256 states, kernels of 3, 32 groups, 300 frames). What differs: their encoder and decoder are residual networks of
64, 128 and 256 channels, here one convolution each on pixels that stand side by side; their D is part of the residual network
behind the state space; heads come from outside, on 64 features a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.models import SequenceModel, check_config
from longwave.nn.conv_ssm import ConvSSM, ConvSSMStream
from longwave.nn.inputs import Inputs, check_inputs, check_kind
from longwave.nn.long_conv import LongConvOp


@dataclass(frozen=True)
class ConvSSMConfig:
    """Sizes of a `ConvSSMModel`; every field survives JSON and TOML."""

    d_model: int  # of a frame: as many features of each pixel
    layers: int
    filter_length: int  # frames the model is made for; filters are as long as the input
    vocabulary: int = 0  # of tokens, each of which is read as an image of features
    predicted: int = 0
    values: int = 4_096  # of a frame: side · side, of one colour
    side: int = 64
    pool: int = 4  # by which images are smaller inside
    channels: int = 256
    state: int = 256
    groups: int = 32
    kernel: int = 3
    dt_min: float = 1e-3
    dt_max: float = 0.1

    def __post_init__(self) -> None:
        check_config(self, "side", "pool", "channels", "state", "groups", "kernel")
        pixels = self.side**2
        if self.d_model % pixels or self.values not in (0, pixels) or self.side % self.pool:
            raise ArgumentError(
                f"frames of {self.side} x {self.side} pixels have {pixels:,} values and a d_model that {pixels:,} divides, and "
                f"pool divides their side, but got {self.values:,}, {self.d_model:,} and {self.pool}"
            )
        if self.channels % self.groups:
            raise ArgumentError(f"channels are multiples of groups, but got {self.channels} and {self.groups}")


PRESETS: dict[str, ConvSSMConfig] = {
    "convssm-tiny": ConvSSMConfig(
        d_model=16 * 32**2, layers=2, filter_length=20, values=32**2, side=32, pool=2, channels=32, state=32, groups=4
    ),
    "convssm-moving-mnist": ConvSSMConfig(d_model=64 * 64**2, layers=8, filter_length=300),
}


class _Plane(nn.Module):
    """Modules of images (n, channels, side, side), for those of any shape before that is flattened, (..., channels · side²)."""

    def __init__(self, side: int, *steps: nn.Module) -> None:
        super().__init__()
        self.side, self.steps = side, nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        images = x.reshape(-1, x.shape[-1] // self.side**2, self.side, self.side)
        seen: Tensor = self.steps(images)
        return seen.flatten(1).unflatten(0, x.shape[:-1])


class _Norm(nn.LayerNorm):
    """Of the channels of each pixel, (..., channels · side²); in its parameters' precision under autocast too."""

    def forward(self, x: Tensor) -> Tensor:
        # By hand: of a transposed gradient, tracing and running `F.layer_norm` make strides that differ.
        images = x.unflatten(-1, (self.normalized_shape[0], -1)).to(self.weight.dtype)
        variance, mean = torch.var_mean(images, dim=-2, correction=0, keepdim=True)
        normed = (images - mean) * torch.rsqrt(variance + self.eps)
        return (normed * self.weight.unsqueeze(-1) + self.bias.unsqueeze(-1)).flatten(-2)


class _Frames(nn.Module):
    """Frames (B, T, side²), or tokens (B, T), to small images (B, T, channels · (side / pool)²)."""

    def __init__(self, config: ConvSSMConfig) -> None:
        super().__init__()
        check_kind(config.vocabulary, config.values)
        self.d_model, self.values = config.d_model, config.values
        self.tokens = Inputs(config.d_model, vocabulary=config.vocabulary) if config.vocabulary else None
        depth = config.d_model // config.side**2 if config.vocabulary else 1
        shrunk = nn.PixelUnshuffle(config.pool)
        self.encode = _Plane(config.side, shrunk, _around(depth * config.pool**2, config.channels, config.kernel))

    @property
    def weight(self) -> Tensor:
        """The images of tokens, (vocabulary, d_model)."""
        return next(self.parameters()).new_empty(0, self.d_model) if self.tokens is None else self.tokens.weight

    def forward(self, inputs: Tensor) -> Tensor:
        if self.tokens is None:
            check_inputs(inputs, 0, self.values)
        encoded: Tensor = self.encode(inputs if self.tokens is None else self.tokens(inputs))
        return encoded


class _Residual(nn.Module):
    """GELU(y + GELU(norm(W ∗ GELU(norm(y))))), over an image."""

    def __init__(self, config: ConvSSMConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(config.groups, config.channels) for _ in range(2))
        self.conv = _around(config.channels, config.channels, config.kernel)

    def forward(self, y: Tensor) -> Tensor:
        first, second = self.norms
        return F.gelu(y + F.gelu(second(self.conv(F.gelu(first(y))))))


class _Mixer(nn.Module):
    def __init__(self, config: ConvSSMConfig, backend: str, conv: LongConvOp) -> None:
        super().__init__()
        self.side = config.side // config.pool
        self.states = ConvSSM(
            config.channels,
            config.state,
            kernel=config.kernel,
            dt_min=config.dt_min,
            dt_max=config.dt_max,
            backend=backend,
            conv=conv,
        )
        self.after = _Plane(self.side, _Residual(config))

    def forward(self, x: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        frames = x.unflatten(-1, (self.states.channels, self.side, self.side))
        mixed: Tensor = self.after(self.states(frames, cu_seqlens=cu_seqlens)[0].flatten(2))
        return mixed

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> ConvSSMStream:
        return self.states.stream(
            batch_size,
            self.side,
            self.side,
            max_length=max_length,
            max_rollback=max_rollback,
            backend=backend,
            after=self.after,
        )


class _Block(nn.Module):
    def __init__(self, config: ConvSSMConfig, backend: str, conv: LongConvOp) -> None:
        super().__init__()
        self.mixer_norm = nn.Identity()
        self.mixer = _Mixer(config, backend, conv)
        self.feed = _Norm(config.channels)

    def forward(self, x: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        mixed: Tensor = self.feed(x + self.mixer(x, cu_seqlens))
        return mixed


class _Features(nn.Module):
    """Small images (..., channels · (side / pool)²) to features of every pixel, (..., side² · features), normed."""

    def __init__(self, config: ConvSSMConfig) -> None:
        super().__init__()
        features = config.d_model // config.side**2
        grown = _around(config.channels, features * config.pool**2, config.kernel)
        self.decode = _Plane(config.side // config.pool, grown, nn.PixelShuffle(config.pool))
        self.norm, self.pixels = nn.LayerNorm(features), config.side**2

    def forward(self, x: Tensor) -> Tensor:
        features = self.decode(x).unflatten(-1, (-1, self.pixels)).transpose(-1, -2)
        normed: Tensor = self.norm(features.to(self.norm.weight.dtype)).flatten(-2)
        return normed


class ConvSSMModel(SequenceModel):
    """Frames (B, T, side²), or tokens (B, T), to hidden states (B, T, d_model): features of every pixel; causal in time.

    Attributes:
        places: pixels of a frame.
    """

    def reader(self, config: ConvSSMConfig) -> Inputs:
        return cast(Inputs, _Frames(config))

    def build(self, config: ConvSSMConfig, backend: str, conv: LongConvOp) -> None:
        self.places = config.side**2
        self.blocks = nn.ModuleList(_Block(config, backend, conv) for _ in range(config.layers))
        self.norm = _Features(config)


def _around(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding="same")


Config, Model = ConvSSMConfig, ConvSSMModel
