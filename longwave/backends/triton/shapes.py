"""Which matrix products a transform of N points is: integers, functions of the length and of how wide operands are."""

from __future__ import annotations

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


# The most points whose kernels keep to their registers, by whether operands are 32 bits wide. Compiled for sm_80 to sm_90:
# 16-bit operands take 230 registers a thread at 4,096 points, 32-bit ones 232 at 2,048 and spill beyond.
LONGEST = {False: 4096, True: 2048}
_COLUMNS = ((16, 1), (32, 1), (64, 1), (16, 16))
FUSED = {
    wide: tuple(Shape(BLOCK * m, n2, n3) for n2, n3 in _COLUMNS for m in range(1, 9) if BLOCK * m * n2 * n3 <= longest)
    for wide, longest in LONGEST.items()
}
# Rows of split transforms, the most that an outer product has, and what outer products but the first have.
INNER = {False: (Shape(32, 32), Shape(64, 32), Shape(16, 16, 16)), True: (Shape(32, 32), Shape(64, 32))}
WIDEST, NEXT = 128, 64
# What a pass through memory costs beside arithmetic, in flop a point, so that lengths can be compared.
PASS_FLOP = 2000


@lru_cache(maxsize=65536)
def fused_shape(n: int, wide: bool) -> Shape | None:
    """The least work for at least n points in registers, or None where they hold no so many."""
    return min((s for s in FUSED[wide] if n <= s.N), key=lambda s: (s.N * s.flop(), s), default=None)


@lru_cache(maxsize=65536)
def split_shape(n: int, wide: bool) -> tuple[tuple[int, ...], Shape]:
    """(outer DFTs through memory, rows in registers) of the least work for at least n points; as few outer DFTs as go."""
    later: tuple[int, ...] = ()
    while len(later) < 8:
        found = []
        for inner in INNER[wide]:
            first = max(2, -(-n // (math.prod(later) * inner.N)))
            if first <= WIDEST:
                found.append(((first, *later), inner))
        if found:
            return min(found, key=lambda split: (math.prod(split[0]) * split[1].N * split_flop(*split), split))
        later = (NEXT, *later)
    raise ArgumentError(f"a transform of {n:,} points is longer than any memory; split the sequence")


def split_flop(outer: tuple[int, ...], inner: Shape, passes: bool = True) -> int:
    """Work a point: products of whole blocks, and, with `passes`, those through memory: one for each outer DFT and one for
    the rows."""
    first, *later = ((BLOCK * -(-length // BLOCK)) ** 2 // length for length in outer)
    return 8 * first + 16 * sum(later) + inner.flop(2) + passes * PASS_FLOP * (len(outer) + 1)


def factored(N: int, wide: bool) -> tuple[tuple[int, ...], Shape]:
    """(outer DFTs, rows in registers) for at least N points."""
    fused = fused_shape(N, wide)
    return ((), fused) if fused is not None else split_shape(N, wide)


def _length(wide: bool, n: int) -> int:
    outer, shape = factored(n, wide)
    return math.prod(outer) * shape.N


# By whether operands are wide: the length of the transform that serves n points.
TRANSFORM_LENGTH = {wide: partial(_length, wide) for wide in LONGEST}
