"""Who owns which samples and channels, in integers: spans of ranks, windows of them, shards of channels."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Piece(NamedTuple):
    """`length` samples of rank `owner`, from its sample `offset` on; below 0 they are its history's."""

    owner: int
    offset: int
    length: int


@dataclass(frozen=True)
class Spans:
    """Rank r owns `lengths[r]` samples, after those of all ranks before it; rank 0 owns `history` samples before 0 as well.
    What lies outside is zero, or repeats with the period `total` if `circular`."""

    lengths: tuple[int, ...]
    history: int = 0
    circular: bool = False

    @cached_property
    def starts(self) -> tuple[int, ...]:
        return (0, *itertools.accumulate(self.lengths[:-1]))

    @property
    def total(self) -> int:
        return sum(self.lengths)

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Who owns the samples [start, stop), in order; all of them exist."""
        while start < stop:
            if start < 0 and not self.circular:
                owner, offset, left = 0, start, -start
            else:
                place = start % self.total
                owner = bisect.bisect_right(self.starts, place) - 1  # the last that begins here: those before it are empty
                offset = place - self.starts[owner]
                left = self.lengths[owner] - offset
            length = min(left, stop - start)
            yield Piece(owner, offset, length)
            start += length


class Window(NamedTuple):
    """Samples [start, stop) that a rank needs, between `zeros_before` and `zeros_after` ones that are zero."""

    start: int
    stop: int
    zeros_before: int = 0
    zeros_after: int = 0


NO_WINDOW = Window(0, 0)


def around(spans: Spans, rank: int, before: int, after: int, bounds: tuple[int, ...] | None = None) -> tuple[Window, Window]:
    """What rank needs of others for lags that reach `before` samples back and `after` ahead: the windows before and after its
    span. With the `bounds` of packed documents (and `after` = 0) none reaches out of the document that the span begins in."""
    start, length = spans.starts[rank], spans.lengths[rank]
    if not length:
        return NO_WINDOW, NO_WINDOW
    stop = start + length
    if spans.circular:
        return Window(start - before, start), Window(stop, stop + after)
    first = -spans.history
    if bounds is not None:
        number = bisect.bisect_right(bounds, start) - 1
        first = bounds[number] if number else first
    low, high = max(first, start - before), min(stop + after, spans.total)
    return Window(low, start, zeros_before=before - (start - low)), Window(stop, high, zeros_after=after - (high - stop))


def documents_of(spans: Spans, rank: int, bounds: tuple[int, ...]) -> tuple[int, ...]:
    """The boundaries of packed documents within the span of a rank, from its own sample 0 on."""
    start, length = spans.starts[rank], spans.lengths[rank]
    inner = bounds[bisect.bisect_right(bounds, start) : bisect.bisect_left(bounds, start + length)]
    return 0, *(b - start for b in inner), length


def shares(count: int, parts: int) -> tuple[int, ...]:
    """`count` things dealt to `parts` as evenly as may be, the first ones with one more."""
    each, more = divmod(count, parts)
    return tuple(each + (part < more) for part in range(parts))


class Shards(NamedTuple):
    """Channels of each rank, cut into `chunks`: `sizes[rank][chunk]`, contiguous, in order of ranks and then of chunks."""

    sizes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, channels: int, ranks: int, chunks: int, unit: int = 1) -> Shards:
        """Filters that are shared by `unit` neighbouring channels stay whole where there are enough of them."""
        unit = unit if channels // unit >= ranks else 1
        groups = shares(channels // unit, ranks)
        return cls(tuple(tuple(unit * n for n in shares(own, chunks)) for own in groups))

    @property
    def flat(self) -> list[int]:
        return [size for sizes in self.sizes for size in sizes]

    def of_rank(self, rank: int) -> int:
        return sum(self.sizes[rank])

    def start(self, rank: int) -> int:
        return sum(map(sum, self.sizes[:rank]))
