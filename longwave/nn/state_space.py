"""Diagonal state spaces: filters that are sums of a few exponentials, and the layer that convolves with them."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from longwave.errors import ArgumentError
from longwave.nn.long_conv import LongConvOp
from longwave.ops.exponentials import exponential_sums
from longwave.ops.long_conv import long_conv
from longwave.ops.recurrence import RecurrentStream

# Eigenvalues of a state of size N, in units of the time scale: decay and angular frequency of state n.
SPECTRA = {
    "lin": lambda n, N: (torch.full_like(n, 0.5), math.pi * n),
    "inv": lambda n, N: (torch.full_like(n, 0.5), N / math.pi * (N / (2 * n + 1) - 1)),
    "real": lambda n, N: (n + 1, torch.zeros_like(n)),
}
DISCRETISATIONS = ("zoh", "bilinear")


def discretised(a: Tensor, dt: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """The continuous states x' = a x + u, sampled every dt: logarithms of the step and factors of the input.

    Args:
        a: (..., N), complex128, real parts below 0.
        dt: (..., 1) or (..., N), float64.
        method: `zoh` (the input is constant between samples) or `bilinear` (the trapezoid rule).

    Returns:
        log_z and b, each (..., N) and complex128: x_t = exp(log_z) x_{t-1} + b u_t.
    """
    x = a * dt
    if method == "zoh":
        return x, (torch.exp(x) - 1) / a
    return torch.log((1 + x / 2) / (1 - x / 2)), dt / (1 - x / 2)


class StateSpaceFilter(nn.Module):
    """Filters of `channels` diagonal state spaces of size `state`.

        k[h, l] = Re Σ_n C[h, n] b[h, n] z[h, n]^l        z, b = discretised(A[h, n], dt[h])

    A = -exp(log_decay) + i · frequency. Complex eigenvalues stand for pairs of conjugates: state / 2 of them, counted twice.
    No array of (channels, state, taps) is ever made (`longwave.ops.exponentials`).

    Parameters (float32): `log_dt` (channels,), uniform between the logarithms of dt_min and dt_max; `log_decay` and
    `frequency` (channels, states), as `spectrum` says; `C` (channels, states, 2), real and imaginary parts, N(0, 1/2) each.
    With "real", `frequency` is absent and C is (channels, states), N(0, 1). B of the papers is 1: it would only scale C.

    Args:
        channels: H, at least 1.
        state: N, at least 1; even unless the spectrum is "real".
        spectrum: "lin" (A_n = -1/2 + iπn), "inv" (A_n = -1/2 + i N/π (N/(2n+1) - 1)) or "real" (A_n = -(n + 1)).
        discretisation: "zoh" or "bilinear".
        dt_min, dt_max: samples' distance in the states' units; 1/dt is about how many samples a filter spans.

    Raises:
        ArgumentError: a size or name out of range.

    Source: Gu et al. 2022, On the Parameterization and Initialization of Diagonal State Space Models (arXiv 2206.11893).
    """

    # Steps that change a time scale a little change a filter much: S4 trains these slowly and without decay.
    optimizer_options: ClassVar[dict[str, dict[str, float]]] = {
        name: {"lr_scale": 0.1, "weight_decay": 0.0} for name in ("log_dt", "log_decay", "frequency")
    } | {"C": {"lr_scale": 1.0, "weight_decay": 0.0}}

    def __init__(
        self,
        channels: int,
        state: int = 64,
        *,
        spectrum: str = "lin",
        discretisation: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        if spectrum not in SPECTRA or discretisation not in DISCRETISATIONS:
            raise ArgumentError(
                f"StateSpaceFilter got spectrum {spectrum!r} and discretisation {discretisation!r}; "
                f"use one of {', '.join(SPECTRA)} and one of {', '.join(DISCRETISATIONS)}"
            )
        if min(channels, state) < 1 or (spectrum != "real" and state % 2):
            raise ArgumentError(
                f"StateSpaceFilter needs channels >= 1 and an even state (any with spectrum 'real'), got {channels} and {state}"
            )
        if not 0 < dt_min <= dt_max:
            raise ArgumentError(f"StateSpaceFilter needs 0 < dt_min <= dt_max, but got {dt_min} and {dt_max}")
        self.channels, self.state, self.spectrum, self.discretisation = channels, state, spectrum, discretisation
        states = state if spectrum == "real" else state // 2
        decay, frequency = SPECTRA[spectrum](torch.arange(states, dtype=torch.float64), state)
        self.log_dt = nn.Parameter(torch.empty(channels).uniform_(math.log(dt_min), math.log(dt_max)))
        self.log_decay = nn.Parameter(decay.log().float().repeat(channels, 1))
        if spectrum == "real":
            self.register_parameter("frequency", None)
            self.C = nn.Parameter(torch.randn(channels, states))
        else:
            self.frequency = nn.Parameter(frequency.float().repeat(channels, 1))
            self.C = nn.Parameter(torch.randn(channels, states, 2) * 0.5**0.5)

    def recurrence(self, *, time_scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """log_z and c, (channels, states) and complex128: k[l] = Re Σ_n c[n] exp(log_z[n] l).

        `time_scale` multiplies dt: the same filters of continuous time, sampled so many times as coarsely.
        """
        decay = self.log_decay.double().exp()
        frequency = torch.zeros_like(decay) if self.frequency is None else self.frequency.double()
        a = torch.complex(-decay, frequency)
        log_z, b = discretised(a, (self.log_dt.double().exp() * time_scale).unsqueeze(-1), self.discretisation)
        if self.frequency is None:
            return log_z, self.C.double() * b
        return log_z, 2 * torch.view_as_complex(self.C.double()) * b

    def forward(self, taps: int, *, time_scale: float = 1.0) -> Tensor:
        """The first `taps` taps.

        Returns:
            (channels, taps), float32 under autocast too (float64 where the parameters are).

        Raises:
            ArgumentError: `taps` is below 1.
        """
        if taps < 1:
            raise ArgumentError(f"StateSpaceFilter was asked for {taps} taps; ask for at least 1")
        log_z, c = self.recurrence(time_scale=time_scale)
        return exponential_sums(log_z, c, taps, dtype=torch.promote_types(self.log_dt.dtype, torch.float32))

    def extra_repr(self) -> str:
        return f"channels={self.channels}, state={self.state}, {self.spectrum!r}, {self.discretisation!r}"


class StateSpaceConv1d(nn.Module):
    """Depthwise convolution with filters of diagonal state spaces, as long as the input, and a skip `D`.

        y[b, h] = conv(u[b, h], k[h]) + D[h] · u[b, h]

    Parameters: `filter` (and `filter_rev`), a `StateSpaceFilter`; `D` (channels,), N(0, 1).

    Args:
        channels: H, at least 1.
        state: N, the size of a state space.
        two_sided: a second filter over what comes after, as `k_rev` of `longwave.long_conv`.
        layout: `BHL` or `BLH`.
        backend: the backend's name; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.
        taps: of the filters, whatever the input: those of whole sequences, where inputs are spans of them, which `conv` puts
            together.
        filter_options: keywords of `StateSpaceFilter`.

    Raises:
        ArgumentError: a size or name out of range.

    Source: Gu et al. 2022 (arXiv 2206.11893).
    """

    def __init__(
        self,
        channels: int,
        state: int = 64,
        *,
        two_sided: bool = False,
        layout: str = "BLH",
        backend: str = "auto",
        conv: LongConvOp = long_conv,
        taps: int | None = None,
        **filter_options: str | float,
    ) -> None:
        super().__init__()
        self.taps = taps
        self.channels, self.layout, self.backend, self.conv = channels, layout, backend, conv
        self.filter = StateSpaceFilter(channels, state, **filter_options)  # type: ignore[arg-type]
        self.filter_rev = StateSpaceFilter(channels, state, **filter_options) if two_sided else None  # type: ignore[arg-type]
        self.D = nn.Parameter(torch.randn(channels))

    def forward(
        self,
        u: Tensor,
        *,
        pregate: Tensor | None = None,
        postgate: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        time_scale: float = 1.0,
    ) -> Tensor:
        """Convolve `u`, (B, H, L) or (B, L, H) by `layout`, any real floating dtype, with filters of L taps; gates and
        documents as in `longwave.long_conv`, `time_scale` as in `StateSpaceFilter.recurrence`.

        Returns:
            A tensor of `u`'s shape and dtype.

        Raises:
            ArgumentError: whatever `longwave.long_conv` refuses.
        """
        taps = self.taps or u.shape[1 if self.layout == "BLH" else 2]
        return self.conv(
            u,
            self.filter(taps, time_scale=time_scale),
            self.D,
            k_rev=None if self.filter_rev is None else self.filter_rev(taps, time_scale=time_scale),
            mode="causal",
            pregate=pregate,
            postgate=postgate,
            cu_seqlens=cu_seqlens,
            layout=self.layout,
            backend=self.backend,
        )

    def stream(
        self,
        batch_size: int,
        *,
        max_length: int | None = None,
        max_rollback: int = 0,
        backend: str | None = None,
        time_scale: float = 1.0,
    ) -> RecurrentStream:
        """This convolution for samples that come one by one, of the parameters as they are now; `RecurrentStream` says what
        the options mean, and takes (B, H, T) and (B, H) whatever the layout.

        Raises:
            ArgumentError: the filter is two-sided, or a size is out of range.
        """
        if self.filter_rev is not None:
            raise ArgumentError("a two-sided filter looks ahead and cannot be streamed; make the layer with two_sided=False")
        with torch.no_grad():
            log_z, c = self.filter.recurrence(time_scale=time_scale)
        return RecurrentStream(
            log_z, c, self.D, batch_size=batch_size, dtype=self.D.dtype, max_length=max_length, max_rollback=max_rollback,
            backend=self.backend if backend is None else backend,
        )  # fmt: skip
