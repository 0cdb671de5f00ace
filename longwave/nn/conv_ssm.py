"""`ConvSSM`: a state space over time for each pixel, between convolutions over the plane."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn.long_conv import LongConvOp
from longwave.nn.s5 import S5, hippo
from longwave.nn.state_space import discretised
from longwave.nn.states_stream import StatesStream
from longwave.ops.exponentials import all_states
from longwave.ops.long_conv import long_conv


class ConvSSM(nn.Module):
    """Videos to videos: states are images, and each of their pixels runs through time by itself.

        x_t = exp(A dt) ∘ x_{t-1} + b ∘ (B ∗ u_t)        y_t = 2 Re(C ∗ x_t) + D ∗ u_t

    ∗ is a two-dimensional convolution with zeros around the image; A is diagonal, as in `S5`. States of all times are made by
    one long convolution of state · height · width channels, in groups that share a filter.

    Parameters (float32): `log_dt`, `log_decay`, `frequency` (state / 2,) as in `S5`; `B` (state / 2, channels, k, k, 2) and
    `C` (channels, state / 2, k, k, 2), real and imaginary parts, of variance 1 / inputs before the change to eigenvectors;
    `D` (channels, channels, k, k), of the same variance.

    Args:
        channels: of the images.
        state: state images, even.
        kernel: k of B, C and D, odd.
        dt_min, dt_max: frames' distance in the states' units.
        backend: the long convolution's backend; `auto` chooses.
        conv: the long convolution to call; a replacement keeps the signature of `longwave.long_conv`.

    Raises:
        ArgumentError: a size out of range.

    Source: Smith et al. 2023, Convolutional State Space Models (arXiv 2310.19694), equations 4 to 7; their Moving-MNIST
    model has 256 channels, state 256 and k = 3, with a residual network in the place of D.
    """

    optimizer_options: ClassVar = S5.optimizer_options

    def __init__(
        self,
        channels: int,
        state: int,
        *,
        kernel: int = 3,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
    ) -> None:
        super().__init__()
        if min(channels, state, kernel) < 1 or state % 2 or kernel % 2 == 0:
            raise ArgumentError(
                f"ConvSSM needs channels >= 1, an even state and an odd kernel, but got {channels}, {state} and {kernel}"
            )
        if not 0 < dt_min <= dt_max:
            raise ArgumentError(f"ConvSSM needs 0 < dt_min <= dt_max, but got {dt_min} and {dt_max}")
        self.channels, self.state, self.kernel, self.backend, self.conv = channels, state, kernel, backend, conv
        a, vectors = hippo(state)
        window = (kernel, kernel)
        self.log_dt = nn.Parameter(torch.empty(state // 2).uniform_(math.log(dt_min), math.log(dt_max)))
        self.log_decay = nn.Parameter((-a.real).log().float())
        self.frequency = nn.Parameter(a.imag.float())
        fan_in = channels * kernel**2
        B = torch.randn(state, channels, *window, dtype=torch.float64) * fan_in**-0.5
        C = torch.randn(channels, state, *window, dtype=torch.complex128) * (state * kernel**2) ** -0.5
        self.B = nn.Parameter(torch.view_as_real(torch.einsum("np,ncij->pcij", vectors.conj(), B.to(vectors.dtype))).float())
        self.C = nn.Parameter(torch.view_as_real(torch.einsum("cnij,np->cpij", C, vectors).contiguous()).float())
        self.D = nn.Parameter(torch.randn(channels, channels, *window) * fan_in**-0.5)

    def forward(self, u: Tensor, state: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Frames and what is remembered of them; a frame or some at a time, with the state handed on, give the same.

        Args:
            u: (B, T, channels, height, width).
            state: (B, state / 2, height, width), complex: x before the first frame, 0 without it.
            cu_seqlens: as in `longwave.long_conv`: u is (1, total, ...), and its videos are apart; without a state.

        Returns:
            y, of u's shape, and x after the last frame, of state's shape, complex64 (complex128 in float64).

        Raises:
            ArgumentError: a wrong shape or dtype, or both a state and `cu_seqlens`.
        """
        if u.ndim != 5 or u.shape[2] != self.channels:
            raise ArgumentError(f"ConvSSM takes (B, T, {self.channels}, height, width), but got {tuple(u.shape)}")
        images, P = u.shape[-2:], self.state // 2
        wanted = (u.shape[0], P, *images)
        if state is not None and (state.shape != wanted or not state.is_complex()):
            raise ArgumentError(f"the state is {state.dtype} {tuple(state.shape)}; give a complex one of shape {wanted}")
        flat = None if state is None else torch.cat([state.real, state.imag], dim=1).flatten(2)
        y, x = self._through(u, flat, cu_seqlens, self.backend)
        last = x[:, -1].unflatten(-1, images)
        return y, torch.complex(last[:, :P], last[:, P:])

    def stream(
        self,
        batch_size: int,
        height: int,
        width: int,
        *,
        max_length: int | None = None,
        max_rollback: int = 0,
        backend: str | None = None,
        after: Callable[[Tensor], Tensor] | None = None,
    ) -> ConvSSMStream:
        """This layer for frames that come one by one, each as channels · height · width numbers; `after` is applied to results.

        Raises:
            ArgumentError: a size is out of range.
        """
        chosen = self.backend if backend is None else backend
        return ConvSSMStream(
            self, batch_size, (height, width), chosen, max_length=max_length, max_rollback=max_rollback, after=after
        )  # fmt: skip

    def _through(self, u: Tensor, state: Tensor | None, cu_seqlens: Tensor | None, backend: str) -> tuple[Tensor, Tensor]:
        """Frames like u, and all states (B, T, state, height · width), real parts first; from one state (B, state, ...) on."""
        N, T, _, height, width = u.shape
        with torch.autocast(u.device.type, enabled=False):
            wide = torch.promote_types(self.D.dtype, torch.float32)
            frames = u.to(wide).flatten(0, 1)
            a = torch.complex(-self.log_decay.double().exp(), self.frequency.double())
            log_z, b = discretised(a, self.log_dt.double().exp(), "zoh")
            # In real numbers: inductor (PyTorch 2.13) takes the gradient of a convolution for complex weights in a wrong order.
            re, im = (part.view(-1, 1, 1, 1) for part in (b.real, b.imag))
            B, C = self.B.double(), 2 * self.C.double()
            B = torch.cat([re * B[..., 0] - im * B[..., 1], re * B[..., 1] + im * B[..., 0]])
            v = F.conv2d(frames, B.to(wide), padding="same")
            lead = None if state is None else state.to(wide)
            x = all_states(
                log_z, v.reshape(N, T, self.state, height * width), lead, cu_seqlens=cu_seqlens, backend=backend, conv=self.conv
            )  # fmt: skip
            images = x.reshape(N * T, self.state, height, width)
            y = F.conv2d(images, torch.cat([C[..., 0], -C[..., 1]], dim=1).to(wide), padding="same")
            y = y + F.conv2d(frames, self.D.to(wide), padding="same")
            return y.reshape(u.shape).to(u.dtype), x

    def extra_repr(self) -> str:
        return f"channels={self.channels}, state={self.state}, kernel={self.kernel}"


class ConvSSMStream(StatesStream):
    """What `ConvSSM.stream` opens."""

    def __init__(self, layer: ConvSSM, batch_size: int, size: tuple[int, int], backend: str, **options: Any) -> None:
        pixels = math.prod(size)
        super().__init__(layer.channels * pixels, (layer.state, pixels), batch_size, device=layer.D.device, **options)
        self.layer, self.size, self.backend = layer, size, backend

    def advance(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, states = self.layer._through(u.unflatten(-1, (self.layer.channels, *self.size)), state, None, self.backend)
        return y.flatten(2), states
