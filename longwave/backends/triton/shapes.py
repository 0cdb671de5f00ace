"""Which matrix products a transform of N points is: integers, functions of the length and of how wide operands are."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache, partial

from longwave.errors import ArgumentError

# The smallest side of a matrix that tensor cores multiply; so many frequencies of N1 go through everything at a time.
BLOCK = 16
# Points that a tile has at least: of shorter transforms it holds several rows.
TILE = 1024


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """A transform in registers, of N1·N2·N3 points (N3 = 1: order 2). N1 is a multiple of 16, the others are powers of two."""

    N1: int
    N2: int
    N3: int = 1

    @property
    def N(self) -> int:
        return self.N1 * self.N2 * self.N3

    @property
    def blocks(self) -> int:
        return self.N1 // BLOCK

    @property
    def rows(self) -> int:
        """Rows in a tile."""
        return max(1, TILE // (1 << (self.N - 1).bit_length()))

    def flop(self, planes: int = 1) -> int:
        """Of the products a point, there and back; `planes` of the ring in use: real or complex samples."""
        return 8 * planes * self.N1 + 16 * (self.N2 + (self.N3 if self.N3 > 1 else 0))

    def __str__(self) -> str:
        return "·".join(str(n) for n in (self.N1, self.N2, self.N3) if n > 1)


# By whether operands are 32 bits wide: columns (N2, N3) and the most of N1 whose kernels keep to their registers, compiled for
# sm_90.
_COLUMNS = {False: (((16, 1), 80), ((32, 1), 128), ((64, 1), 64), ((16, 16), 16)), True: (((16, 1), 48), ((32, 1), 64))}
FUSED = {
    wide: tuple(Shape(n1, *columns) for columns, most in _COLUMNS[wide] for n1 in range(BLOCK, most + 1, BLOCK))
    for wide in _COLUMNS
}
# Of rows that have both planes of the ring to hold (`full`, a history); longer ones are split: 16·16·16 would spill 416 bytes a
# thread, which is more traffic than that of a split. 64·32 of float32 spills 40 (88 with gates), which is much less.
BOTH = {
    False: (*(Shape(n1, 16) for n1 in (16, 32, 48)), *(Shape(n1, 32) for n1 in range(32, 113, BLOCK))),
    True: (Shape(16, 16), Shape(32, 16), Shape(32, 32), Shape(48, 32), Shape(64, 32)),
}
# Transforms of windows, and of split rows, which have both planes too.
WINDOWS = {
    False: (Shape(16, 16), Shape(32, 16), Shape(48, 16), Shape(32, 32), Shape(48, 32)),
    True: (Shape(16, 16), Shape(32, 16), Shape(32, 32), Shape(48, 32)),
}
INNER = {False: (Shape(32, 32), Shape(64, 32)), True: (Shape(32, 32), Shape(48, 32))}
# The most that an outer product has, and what outer products but the first may have.
WIDEST, NEXT = 128, (64, 128)
# The longest transform: its ring has positions that 32 bits count.
LONGEST = 2**29
# What the reshuffling of an order more costs beside its arithmetic, in flop a point: an estimate, no GPU has timed it.
ORDER_FLOP = 300
# What a pass through memory costs, likewise.
PASS_FLOP = 2000


@lru_cache(maxsize=65536)
def fused_shape(n: int, wide: bool, planes: int = 1) -> Shape | None:
    """The least work for at least n points in registers, or None where they hold no so many."""
    able = (s for s in (BOTH if planes > 1 else FUSED)[wide] if n <= s.N)
    return min(able, key=lambda s: (s.N * (s.flop(planes) + ORDER_FLOP * (s.N3 > 1)), s), default=None)


def used(wide: bool, planes: int = 1) -> list[Shape]:
    """The transforms in registers of all lengths, the longest first."""
    longest = max(shape.N for shape in (BOTH if planes > 1 else FUSED)[wide])
    found = {fused_shape(n, wide, planes) for n in range(1, longest + 1)}
    return sorted((shape for shape in found if shape is not None), key=lambda shape: -shape.N)


@lru_cache(maxsize=65536)
def split_shape(n: int, wide: bool) -> tuple[tuple[int, ...], Shape]:
    """(outer DFTs through memory, rows in registers) of the least work for at least n points; as few outer DFTs as go."""
    for levels in range(4):
        found: list[tuple[tuple[int, ...], Shape]] = []
        for later, inner in itertools.product(itertools.product(NEXT, repeat=levels), INNER[wide]):
            first = max(2, -(-n // (math.prod(later) * inner.N)))
            if first <= WIDEST:
                found.append(((first, *later), inner))
        found = [split for split in found if math.prod(split[0]) * split[1].N <= LONGEST]
        if found:
            return min(found, key=lambda split: (math.prod(split[0]) * split[1].N * split_flop(*split), split))
    raise ArgumentError(
        f"it transforms up to {LONGEST:,} points at a time, and {n:,} were asked for; backend='plain' takes them"
    )


def split_flop(outer: tuple[int, ...], inner: Shape, passes: bool = True) -> int:
    """Work a point: products of whole blocks, and, with `passes`, those through memory: one for each outer DFT and one for
    the rows."""
    first, *later = map(_side, outer)
    return 8 * first + 16 * sum(later) + inner.flop(2) + passes * PASS_FLOP * (len(outer) + 1)


def _side(length: int) -> int:
    """Products a point of a DFT whose matrix has whole blocks."""
    return (BLOCK * -(-length // BLOCK)) ** 2 // length


def first_side(outer: tuple[int, ...], inner: Shape) -> int:
    """Products a point of the DFT that sees samples."""
    return _side(outer[0]) if outer else inner.N1


def factored(N: int, wide: bool, planes: int = 1) -> tuple[tuple[int, ...], Shape]:
    """(outer DFTs, rows in registers) for at least N points, of one plane of the ring or of both."""
    fused = fused_shape(N, wide, planes)
    return ((), fused) if fused is not None else split_shape(N, wide)


def _length(wide: bool, planes: int, n: int) -> int:
    outer, shape = factored(n, wide, planes)
    return math.prod(outer) * shape.N


# By whether operands are wide, and the planes in use: the length of the transform that serves n points.
TRANSFORM_LENGTH = {(wide, planes): partial(_length, wide, planes) for wide in FUSED for planes in (1, 2)}
