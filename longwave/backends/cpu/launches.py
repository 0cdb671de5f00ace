"""Launches: kernels with their finished programs, to be run with any tensors of the same strides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from longwave.backends.cpu import kept, moves, pages, six_step, threads, words
from longwave.backends.cpu.crossovers import chosen
from longwave.backends.cpu.program import Block, Move, Program, address
from longwave.backends.cpu.tables import factors

# Rows of scratch memory that are taken through all inner passes at once: half of a first-level cache of 32 KiB.
BASE_BYTES = chosen().block_bytes

# The tensors of a call, by their places.
(
    U, K, SKIP, PREGATE, POSTGATE, HISTORY, Y, DY, DU, DPREGATE, DPOSTGATE, DHISTORY, DK, DK_AGAIN, SPECTRA, PRODUCTS, PLACES,
) = range(17)  # fmt: skip

Lists = dict[int, list[Move]]
# The steps of long rows: (when, kind, list, matrix).
Script = tuple[tuple[int, int, int, int], ...]
Tensors = tuple[Tensor | None, ...]


class Launch(Protocol):
    def run(self, tensors: Tensors) -> None: ...


class Dealt(NamedTuple):
    """Independent units of a kernel: a guess at their seconds on one thread, and bytes of scratch memory a thread."""

    units: int
    seconds: float
    each: int

    @property
    def bytes(self) -> int:
        return threads.scratch_bytes(self.units, self.seconds, self.each)


@dataclass(frozen=True, eq=False)
class Tiles:
    """A kernel of fused.py, or whole rows of six_step.py."""

    block: Block
    kernel: Any
    like: Any
    dealt: Dealt

    def run(self, tensors: Tensors) -> None:
        filled = self.block.filled(tensors)
        threads.run(self.kernel, address(filled), self.like, *self.dealt)


@dataclass(frozen=True, eq=False)
class Several:
    """One after the other; with `products_bytes`, that much memory for what the first leave to the last."""

    launches: tuple[Launch, ...]
    products_bytes: int = 0

    def run(self, tensors: Tensors) -> None:
        if self.products_bytes:
            tensors = (*tensors[:PRODUCTS], pages.scratch(self.products_bytes, purpose="products"), *tensors[PRODUCTS + 1 :])
        for launch in self.launches:
            launch.run(tensors)


@dataclass(frozen=True, eq=False)
class RowByRow:
    """six_step.py with all threads in every step of one row after the other."""

    block: Block
    like: Any
    script: Script
    steps: tuple[Dealt, ...]
    rows: tuple[tuple[int, int], ...]  # channels, and the sample that each begins with
    samples: int
    matrices_bytes: int

    def run(self, tensors: Tensors) -> None:
        block = self.block.filled(tensors)
        matrices = pages.scratch(self.matrices_bytes, purpose="matrices")
        block[words.MATRICES] = matrices.data_ptr()
        for h, first in self.rows:
            for b in range(first, first + self.samples):
                for step, (when, *_) in enumerate(self.script):
                    begins, finishes = b == first, b == first + self.samples - 1
                    if when == words.EACH or (when == words.BEFORE and begins) or (when == words.AFTER and finishes):
                        block[words.STEP], block[words.SAMPLE], block[words.CHANNEL] = step, b, h
                        block[words.IS_FIRST] = int(begins)
                        threads.run(six_step.step_of_one_row, address(block), self.like, *self.steps[step])


def chunks(batch: int, tiles: int, workers: int) -> int:
    """Parts of the batch: a tile that is shared computes its filters' spectrum again for each."""
    even = tiles % workers == 0 or tiles >= 4 * workers
    return 1 if even else min(batch, -(-2 * workers // tiles))


def point(block: Program, passes: kept.Kept, rough: kept.Rough) -> None:
    """To what a mask keeps."""
    block.point(KEPT_BLOCKS=passes.blocks, KEPT_SIXTEEN=passes.sixteen, ROUGH_PLACES=rough.places, ROUGH_LANES=rough.lanes)
    block.set(ROUGH_COUNT=rough.places.size)


def use(block: Program, lists: Lists, ready: bool) -> None:
    """With the filters' spectra that a call brings, if they are `ready`; with D added to spectra, if it is in their list."""
    if ready:
        block.place(words.SPECTRA, SPECTRA)
    block.set(LIFTS=int(bool(lists.get(words.LIFT))))


@lru_cache(maxsize=4096)
def base(N: int) -> int:
    """The largest block of a pass that is within BASE_BYTES (or the smallest there is)."""
    n, rows = N, BASE_BYTES // moves.ROW_BYTES
    for r in factors(N)[:-1]:
        if n <= rows:
            break
        n //= r
    return n
