"""One piece of a convolution in the frequency domain, by `torch.fft`: the three products and how taps are placed.

Everything here is a differentiable expression without writes in place, on rows of shape (B, C, ·) in arithmetic precision.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave.dtypes import conj
from longwave.planner import Piece, Placement
from longwave.problem import Problem


class Spectra:
    """The spectra of one piece, each computed when first asked for: V of the input, Z of the output's gradient, S of the
    filters. `x` holds the piece's input samples, `dz` the gradient of its output, `k` (·, G, K) its filters."""

    def __init__(
        self,
        problem: Problem,
        piece: Piece,
        x: Tensor | None = None,
        dz: Tensor | None = None,
        k: Tensor | None = None,
        S: Tensor | None = None,
    ) -> None:
        self.problem, self.at = problem, piece.at
        self.x, self.dz, self.k = x, dz, k
        self.in_len = piece.in_slice.stop - piece.in_slice.start
        self.out_len = piece.out_slice.stop - piece.out_slice.start
        if S is not None:
            self.S = S

    @cached_property
    def V(self) -> Tensor:
        return self._transform(_placed(_given(self.x), self.at.in_at))

    @cached_property
    def Z(self) -> Tensor:
        return self._transform(_placed(_given(self.dz), self.at.out_at))

    @cached_property
    def S(self) -> Tensor:
        k = _given(self.k)
        return self._transform(spread_taps(k.flip(-1) if self.problem.reverse else k, self.at))

    def y(self) -> Tensor:
        """Σ_s k[s] x[t - lag(s)] for the piece's outputs."""
        return span(self._inverse(_times(self.V, self.S)), slice(self.at.out_at, self.at.out_at + self.out_len))

    def dx(self) -> Tensor:
        """Σ_s conj(k[s]) dz[i + lag(s)] for the piece's inputs."""
        return span(self._inverse(_times(self.Z, conj(self.S))), slice(self.at.in_at, self.at.in_at + self.in_len))

    def W(self, groups: int) -> Tensor:
        """The spectrum of the filters' gradient, summed over what shares a filter."""
        W = self.Z * conj(self.V)
        if self.problem.segments is not None or not self.problem.per_sample:
            W = W.sum(dim=0, keepdim=self.problem.per_sample)
        return W if W.shape[-2] == groups else W.reshape(*W.shape[:-2], groups, -1, W.shape[-1]).sum(dim=-2)

    def taps(self, W: Tensor) -> Tensor:
        """Σ_t dz[t] conj(x[t - lag(s)]) for every tap, from its spectrum."""
        dk = gather_taps(self._inverse(W), self.at, self.problem.taps)
        return dk.flip(-1) if self.problem.reverse else dk

    def _transform(self, x: Tensor) -> Tensor:
        if self.problem.complex:
            return torch.fft.fft(x, n=self.at.N)
        return torch.fft.rfft(x, n=self.at.N)

    def _inverse(self, X: Tensor) -> Tensor:
        if self.problem.complex:
            return torch.fft.ifft(X, n=self.at.N)
        return torch.fft.irfft(X, n=self.at.N)


class FilterGradient:
    """Adds up the spectra of one filter gradient while their placement stays the same: one inverse transform serves all."""

    def __init__(self) -> None:
        self._target: Tensor | None = None
        self._spectra: Spectra | None = None
        self._total: Tensor | None = None

    def add(self, target: Tensor, spectra: Spectra, W: Tensor) -> None:
        """Add W, made by `spectra`, to the sum that goes to `target`, a part of the gradient."""
        same = self._spectra is not None and self._spectra.at == spectra.at and not spectra.problem.per_sample
        if same and self._total is not None:
            self._total = self._total + W
            return
        self.flush()
        self._target, self._spectra, self._total = target, spectra, W

    def flush(self) -> None:
        """Transform what is added up, and add it to its target."""
        if self._target is not None and self._spectra is not None and self._total is not None:
            self._target += self._spectra.taps(self._total)
        self._target = self._spectra = self._total = None


def spread_taps(k: Tensor, at: Placement) -> Tensor:
    """Taps in order of rising lag to their places in a row of at most N: each at its lag modulo N."""
    if at.period:
        L = at.period
        turns = -(-k.shape[-1] // L)
        k = F.pad(k, (0, turns * L - k.shape[-1])).unflatten(-1, (turns, L)).sum(dim=-2).roll(at.lag, dims=-1)
        # N longer than the period: lag j is also j - L, so that inputs after the output reach it too.
        return k if at.N == L else torch.cat([F.pad(k, (0, at.N - 2 * L + 1)), k[..., 1:]], dim=-1)
    taps, before_zero = span(k, slice(at.tap_start, at.tap_stop)), max(0, -at.lag)
    if before_zero == 0:
        return F.pad(taps, (at.lag, 0)) if at.lag else taps
    count = at.tap_stop - at.tap_start
    if before_zero >= count:
        return F.pad(taps, (at.N + at.lag, before_zero - count))
    return torch.cat([F.pad(taps[..., before_zero:], (0, at.N - count)), taps[..., :before_zero]], dim=-1)


def gather_taps(row: Tensor, at: Placement, taps: int) -> Tensor:
    """The adjoint of `spread_taps`: from N places back to every tap, zero for the taps that were left out."""
    if at.period:
        L = at.period
        folded = row[..., :L]
        if at.N != L:
            folded = folded + F.pad(row[..., at.N - L + 1 :], (1, 0))
        folded = folded.roll(-at.lag, dims=-1)
        turns = -(-taps // L)
        return torch.cat([folded] * turns, dim=-1)[..., :taps]
    count = at.tap_stop - at.tap_start
    before_zero = min(max(0, -at.lag), count)
    first = at.N + at.lag if before_zero else at.N
    start = max(0, at.lag)
    found = torch.cat([row[..., first : first + before_zero], row[..., start : start + count - before_zero]], dim=-1)
    return F.pad(found, (at.tap_start, taps - at.tap_stop))


def span(x: Tensor, where: slice) -> Tensor:
    """x[..., where], in an operator that batched gradients have a rule for even where it is all of x."""
    return x.narrow(-1, where.start, where.stop - where.start)


def _placed(x: Tensor, at: int) -> Tensor:
    """x from place `at` on; the transform itself fills the places behind it with zeros."""
    return F.pad(x, (at, 0)) if at else x


def _times(V: Tensor, S: Tensor) -> Tensor:
    """V (B, C, ·) times S (·, G, ·): neighbouring channels share a filter."""
    G, C = S.shape[-2], V.shape[-2]
    if G in (1, C):
        return V * S
    return (V.reshape(*V.shape[:-2], G, C // G, V.shape[-1]) * S.unsqueeze(-2)).reshape(V.shape)


def _given(x: Tensor | None) -> Tensor:
    if x is None:
        raise RuntimeError("a spectrum was asked for whose samples were not given")
    return x
