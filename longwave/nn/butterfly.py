"""`ButterflyConv1d`: a convolution through transforms whose factors are learned, and begin as the Fourier transform's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from longwave.errors import ArgumentError


class Butterfly(nn.Module):
    """A linear map of N = n_1 · … · n_p complex points, as p learned matrices of n_i × n_i points between fixed twiddles.

    It begins as the discrete Fourier transform, whose frequencies come in the order of the factors' digits (a pointwise product
    does not mind), or as the inverse of that. What is learned is the difference from the Fourier matrices: weight decay draws
    towards them.

    Parameters (float32): `delta` i (n_i, n_i, 2), real and imaginary parts, zeros.

    Args:
        sizes: n_1, …, n_p, each at least 1.
        inverse: begin as the inverse transform, from the order that the other one leaves.

    Raises:
        ArgumentError: no size, or one below 1.

    Source: Fu et al. 2023 (arXiv 2302.06646), the learned extension of FlashButterfly; order-p Monarch matrices are those of
    arXiv 2310.12109.
    """

    def __init__(self, sizes: Sequence[int], *, inverse: bool = False) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1:
            raise ArgumentError(f"Butterfly needs sizes of at least 1, but got {tuple(sizes)}")
        self.sizes, self.inverse, self.points = tuple(sizes), inverse, math.prod(sizes)
        self.delta = nn.ParameterList(torch.zeros(n, n, 2) for n in sizes)

    def forward(self, z: Tensor) -> Tensor:
        """(…, N) complex to the same, complex128 where parameters are float64.

        Raises:
            ArgumentError: another number of points.
        """
        if z.shape[-1] != self.points:
            raise ArgumentError(f"Butterfly takes (…, {self.points}), but got {tuple(z.shape)}")
        stages = range(len(self.sizes))
        for i in reversed(stages) if self.inverse else stages:
            n, rest = self.sizes[i], math.prod(self.sizes[i + 1 :])
            F = self._matrix(i).to(z.dtype)
            x = z.unflatten(-1, (-1, n, rest))
            if rest == 1:
                z = (x.squeeze(-1) @ F.T).flatten(-2)
                continue
            twiddles = waves(n, rest, n * rest, self._sign, z.device).to(z.dtype)
            z = (F @ (x * twiddles) if self.inverse else (F @ x) * twiddles).flatten(-3)
        return z

    @property
    def _sign(self) -> int:
        return 1 if self.inverse else -1

    def _matrix(self, i: int) -> Tensor:
        n, delta = self.sizes[i], self.delta[i]
        F = waves(n, n, n, self._sign, delta.device) / (n if self.inverse else 1)
        return F + torch.view_as_complex(delta.to(torch.promote_types(delta.dtype, torch.float32)))

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}, inverse={self.inverse}"


def waves(a: int, b: int, points: int, sign: int, device: torch.device) -> Tensor:
    """exp(sign · 2πi · j · l / points) for j below a and l below b, (a, b) complex128."""
    turns = torch.outer(torch.arange(a, device=device), torch.arange(b, device=device)) % points
    angle = sign * 2 * math.pi * turns.double() / points
    return torch.complex(torch.cos(angle), torch.sin(angle))


def factors(points: int, order: int) -> list[int]:
    """`order` sizes, nearly equal, whose product is at least `points` and hardly more."""
    sizes = []
    for left in range(order, 0, -1):
        n = max(round(points ** (1 / left)), 1)
        n += n**left < points
        sizes.append(n)
        points = -(-points // n)
    return sizes


class ButterflyConv1d(nn.Module):
    """Depthwise convolution through three learned transforms: of the input, of the filter, and back; and a skip `D`.

        y = Re( conj(w) · B_back( B_u(w · u) · B_k(w · k) ) ) + D · u        w[n] = exp(-iπ n / 2N)

    As made, the three are Fourier transforms of N points, N >= `max_length`, and y is the causal (or two-sided) convolution of
    `FilterConv1d` but for rounding (measured to 16,384 points: 5e-7 of its norm in float32). Once they are trained it is a
    linear map that is none: **every result then depends on the whole input, the future too**, and packed documents or streams
    have no meaning.

    Args:
        filter: makes the filters, causal or `two_sided`, as in `FilterConv1d`.
        order: matrices in each transform, at least 1; with more of them they are smaller.

    Raises:
        ArgumentError: an order out of range.

    Source: Fu et al. 2023 (arXiv 2302.06646), on the right-angle transform (docs/math.md), which takes N points for N samples
    and as many zeros.
    """

    def __init__(self, filter: nn.Module, *, order: int = 2) -> None:
        super().__init__()
        if order < 1:
            raise ArgumentError(f"ButterflyConv1d needs an order of at least 1, but got {order}")
        self.filter, self.two_sided = filter, bool(getattr(filter, "two_sided", False))
        self.channels, self.max_length = cast(int, filter.channels), cast(int, filter.max_length)
        sizes = factors(self.max_length, order)
        self.of_input, self.of_filter, self.back = Butterfly(sizes), Butterfly(sizes), Butterfly(sizes, inverse=True)
        self.D = nn.Parameter(torch.randn(self.channels))

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """(B, L, channels) to the same, L at most `max_length`.

        Raises:
            ArgumentError: another number of channels, a longer input, or packed documents.
        """
        if u.ndim != 3 or u.shape[2] != self.channels or u.shape[1] > self.max_length:
            raise ArgumentError(
                f"ButterflyConv1d takes (B, L, {self.channels}) with L at most {self.max_length}, for which its transforms are "
                f"made, but got {tuple(u.shape)}"
            )
        if cu_seqlens is not None:
            raise ArgumentError(
                "learned transforms do not take packed documents (cu_seqlens); give every document a row of its own"
            )
        L, N = u.shape[1], self.back.points
        dtype = torch.promote_types(self.D.dtype, torch.float32)
        with torch.autocast(u.device.type, enabled=False):
            angle = torch.arange(N, device=u.device, dtype=torch.float64) * (math.pi / (2 * N))
            cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
            v = nn.functional.pad(u.transpose(1, 2).to(dtype), (0, N - L))
            taps, before = self.filter(L).to(dtype), L - 1 if self.two_sided else 0
            k = nn.functional.pad(taps[:, before : before + L], (0, N - L))
            # Lag -s is i times index N - s, where x^N = -i.
            earlier = nn.functional.pad(taps[:, :before], (N - before, 0))
            spectrum = self.of_filter(_turned(k, earlier, cos, sin))
            z = self.back(self.of_input(_turned(v, torch.zeros_like(v), cos, sin)) * spectrum)
            y = (z.real * cos - z.imag * sin)[..., :L].transpose(1, 2)
            return (y + self.D.to(dtype) * u.to(dtype)).to(u.dtype)

    def stream(self, batch_size: int, **options: object) -> None:
        """Raises ArgumentError: learned transforms see the whole input."""
        raise ArgumentError("learned transforms look ahead and cannot be streamed; call them on whole inputs")


def _turned(real: Tensor, imaginary: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(real + i · imaginary) · (cos - i · sin)."""
    return torch.complex(real * cos + imaginary * sin, imaginary * cos - real * sin)
