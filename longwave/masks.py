"""Which frequencies of a filter a convolution keeps: a `FrequencyMask`, a value that no tensor is part of.

On a grid of N, the frequency of bin j is (j + ¼)/N cycles a sample, j = 0 … N - 1; a real filter cannot tell it from its
negative, and folded to |f| <= ½ the bins stand at (i + ½)/(2N), i = 0 … N - 1: bin j < N/2 is i = 2j, any other
i = 2(N - 1 - j) + 1. A period of L samples has its own frequencies j/L.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from longwave.errors import ArgumentError
from longwave.lengths import mask_grid

# Counts that a refusal names.
_MOST_BLOCKS_NAMED = 64


@dataclass(frozen=True, eq=False, repr=False)
class FrequencyMask:
    """The frequencies of a filter that `long_conv` keeps; make one with `lowpass`, `from_energy`, `from_blocks` or
    `from_bands`.

    With it `long_conv` convolves with the *effective filter*: k in the ring of real polynomials modulo x^2N + 1, its spectrum
    zero wherever the mask keeps nothing. That filter has lags of both signs, so that every output depends on later inputs: of
    a causal model it would read the labels. A causal convolution therefore refuses a mask that was not made with
    `leaks_future=True`; docs/frequency_masks.md has measurements.

    Attributes:
        bands: intervals (low, high) of |f| in cycles a sample, both ends inside, apart from each other and in order.
        blocks, count: of the bins in the bands, those are kept whose index j modulo `count` is in `blocks`.
        leaks_future: whether causal convolutions take it.
        text: all of this as a string; `of_text` reads it. Equal masks have equal texts.

    Raises:
        ArgumentError: a value out of range, or nothing is kept.

    Source: Fu et al. 2023, arXiv 2311.05908, section 3.3 (frequency-sparse convolutions); docs/math.md.
    """

    bands: tuple[tuple[float, float], ...] = ((0.0, 0.5),)
    blocks: tuple[int, ...] = (0,)
    count: int = 1
    leaks_future: bool = False
    text: str = field(init=False, default="")

    def __post_init__(self) -> None:
        if not isinstance(self.leaks_future, bool):
            raise ArgumentError(f"leaks_future is {self.leaks_future!r}; give True or False")
        _set(self, "bands", _merged(_checked_bands(self.bands)))
        _set(self, "blocks", _checked_blocks(self.blocks, self.count))
        # Made here, because a tracer reads attributes and formats no numbers.
        _set(self, "text", json.dumps([self.bands, self.blocks, self.count, self.leaks_future], separators=(",", ":")))

    @classmethod
    def lowpass(cls, keep: float, *, leaks_future: bool = False) -> FrequencyMask:
        """Keep the fraction `keep` of all frequencies, 0 < keep <= 1, from zero on: |f| <= keep/2."""
        return cls(bands=((0.0, _checked_fraction(keep) / 2),), leaks_future=leaks_future)

    @classmethod
    def from_bands(cls, bands: Iterable[tuple[float, float]], *, leaks_future: bool = False) -> FrequencyMask:
        """Keep intervals (low, high) of |f|, 0 <= low <= high <= ½ cycles a sample, both ends inside."""
        return cls(bands=bands, leaks_future=leaks_future)  # type: ignore[arg-type]  # checked and made a tuple there

    @classmethod
    def from_blocks(cls, keep_blocks: Iterable[int], count: int, *, leaks_future: bool = False) -> FrequencyMask:
        """Keep bins j with j mod `count` in `keep_blocks`: what a decimation in frequency can leave out from its first pass
        on. `count` must divide every grid it meets."""
        return cls(blocks=keep_blocks, count=count, leaks_future=leaks_future)  # type: ignore[arg-type]  # as above

    @classmethod
    def from_energy(cls, k: Tensor, keep: float = 0.25, *, leaks_future: bool = False) -> FrequencyMask:
        """Keep the fraction `keep` of the frequencies that hold most of the energy of k (…, K), summed over all of its rows,
        on the grid of K samples; as intervals of |f|, so that the mask applies at any length."""
        keep = _checked_fraction(keep)
        if not isinstance(k, Tensor) or k.dim() < 1 or k.shape[-1] < 1 or not (k.is_floating_point() or k.is_complex()):
            given = f"{k.dtype} of shape {tuple(k.shape)}" if isinstance(k, Tensor) else f"a {type(k).__name__}"
            raise ArgumentError(f"from_energy got {given} as k; give filters (…, K), floating or complex, K at least 1")
        K = k.shape[-1]
        rows = k.detach().to("cpu", torch.complex128 if k.is_complex() else torch.float64).reshape(-1, K)
        rows = torch.view_as_real(rows).movedim(-1, 0).reshape(-1, K) if rows.is_complex() else rows
        if not rows.isfinite().all():
            raise ArgumentError("from_energy got a k that holds NaN or Inf; give filters with finite taps")
        N = mask_grid(K)
        angle = _whole(K).double() * (-math.pi / (2 * N))
        energy = torch.fft.fft(rows * torch.polar(torch.ones_like(angle), angle), n=N).abs().square().sum(dim=0)
        by_frequency = energy.new_empty(N).scatter_(0, folded(N), energy)
        chosen = by_frequency.argsort(descending=True, stable=True)[: max(1, round(keep * N))].tolist()
        return cls(bands=tuple((i / (2 * N), (i + 1) / (2 * N)) for i in chosen), leaks_future=leaks_future)

    @classmethod
    def of_text(cls, text: str) -> FrequencyMask:
        """The mask that has this `text`."""
        return _of_text(text)

    def kept(self, N: int) -> Tensor:
        """Which bins of a grid of N are kept: (N,) bool, bin j in place j, on the CPU. Raises ArgumentError where `count` does
        not divide N."""
        self.check_grid(N)
        return self._contains((2 * folded(N) + 1).double() / (4 * N), N)

    def kept_of_period(self, L: int) -> Tensor:
        """Which frequencies j/L of a period are kept: (L,) bool, j in place j; j and L - j are one frequency.

        Raises ArgumentError where `count` does not divide L, or keeps one of j and L - j and not the other.
        """
        self.check_grid(L)
        j = _whole(L)
        kept = self._contains(torch.minimum(j, L - j) / L, L)
        if not torch.equal(kept, kept.flip(0).roll(1, 0)):
            raise ArgumentError(
                f"{self!r} keeps a bin j of the period {L:,} without L - j, which is the same frequency of a real filter; "
                f"give -b modulo {self.count} with every block b"
            )
        return kept

    def fraction(self, N: int) -> float:
        """How much of a grid of N is kept, 0 to 1."""
        return self.kept(N).double().mean().item()

    def check_some(self, kept: Tensor) -> None:
        """Raises ArgumentError where nothing of a convolution's frequencies is `kept`."""
        if not kept.any():
            raise ArgumentError(f"{self!r} keeps none of the {kept.numel():,} frequencies of this convolution; keep more")

    def check_grid(self, N: int) -> None:
        """Raises ArgumentError where the blocks do not divide a grid of N."""
        if N % self.count:
            counts = [c for c in range(1, min(N, _MOST_BLOCKS_NAMED) + 1) if N % c == 0]
            raise ArgumentError(
                f"{self!r} does not fit a grid of {N:,} frequencies, which {self.count} does not divide; "
                f"use a count of {', '.join(map(str, counts))}{' or more' if N > _MOST_BLOCKS_NAMED else ''}"
            )

    def _contains(self, frequency: Tensor, N: int) -> Tensor:
        low, high = torch.tensor(self.bands, dtype=torch.float64, device="cpu").unbind(1)
        band = torch.searchsorted(low.contiguous(), frequency, right=True) - 1
        inside = (band >= 0) & (frequency <= high[band.clamp(min=0)])
        block = torch.zeros(self.count, dtype=torch.bool, device="cpu")
        block[list(self.blocks)] = True
        return inside & block.repeat(N // self.count)

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, FrequencyMask) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)  # which Python keeps in the string: masks made from a filter may have thousands of bands

    def __repr__(self) -> str:
        leaks = ", leaks_future=True" if self.leaks_future else ""
        if self.count > 1:
            return f"FrequencyMask.from_blocks({list(self.blocks)}, {self.count}{leaks})"
        if len(self.bands) == 1 and self.bands[0][0] == 0:
            return f"FrequencyMask.lowpass({2 * self.bands[0][1]:.12g}{leaks})"
        shown = ", ".join(f"({low:.6g}, {high:.6g})" for low, high in self.bands[:4])
        if len(self.bands) > 4:
            kept = 2 * sum(high - low for low, high in self.bands)
            shown += f", … {len(self.bands):,} bands, {kept:.1%} of all frequencies"
        return f"FrequencyMask.from_bands([{shown}]{leaks})"


@lru_cache(maxsize=256)
def _of_text(text: str) -> FrequencyMask:
    bands, blocks, count, leaks_future = json.loads(text)
    return FrequencyMask(tuple(map(tuple, bands)), tuple(blocks), count, leaks_future)


def folded(N: int) -> Tensor:
    """The place i of each bin j among the frequencies |f| = (i + ½)/(2N)."""
    j = _whole(N)
    return torch.where(2 * j < N, 2 * j, 2 * (N - 1 - j) + 1)


def _whole(N: int) -> Tensor:
    return torch.arange(N, device="cpu")


def _set(mask: FrequencyMask, name: str, value: Any) -> None:
    object.__setattr__(mask, name, value)


def _checked_fraction(keep: Any) -> float:
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise ArgumentError(f"keep is {keep!r}; give the fraction of the frequencies to keep, above 0 and at most 1")
    return float(keep)


def _checked_bands(bands: Any) -> list[tuple[float, float]]:
    if isinstance(bands, str) or not isinstance(bands, Iterable):
        raise ArgumentError(f"bands is {bands!r}; give intervals (low, high) of |f|, as [(0, 0.125)]")
    found = []
    for band in bands:
        pair = tuple(band) if isinstance(band, Sequence) and not isinstance(band, str) else ()
        numbers = [x for x in pair if isinstance(x, int | float) and not isinstance(x, bool)]
        if len(pair) != 2 or len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] <= 0.5:
            raise ArgumentError(f"{band!r} is no band; give (low, high) with 0 <= low <= high <= 0.5 cycles a sample")
        found.append((float(numbers[0]), float(numbers[1])))
    if not found:
        raise ArgumentError("a mask without a band keeps nothing; give at least one interval (low, high) of |f|")
    return found


def _merged(bands: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    merged: list[tuple[float, float]] = []
    for low, high in sorted(bands):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _checked_blocks(blocks: Any, count: Any) -> tuple[int, ...]:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ArgumentError(f"count is {count!r}; give the number of blocks, a whole number from 1 on")
    if isinstance(blocks, str) or not isinstance(blocks, Iterable):
        raise ArgumentError(f"keep_blocks is {blocks!r}; give whole numbers from 0 to {count - 1}")
    found = list(blocks)
    for block in found:
        if isinstance(block, bool) or not isinstance(block, int) or not 0 <= block < count:
            raise ArgumentError(f"keep_blocks holds {block!r}; with count={count} give whole numbers from 0 to {count - 1}")
    if not found:
        raise ArgumentError(f"a mask without a block keeps nothing; give at least one of 0 to {count - 1}")
    return tuple(sorted(set(found)))
