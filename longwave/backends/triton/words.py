"""What a kernel is told, as tuples of tensors and integers. A field that is None is left out when the kernel is compiled."""

from __future__ import annotations

from typing import Any, NamedTuple


class View(NamedTuple):
    """A tensor (samples, channels, time) with its strides in elements."""

    pointer: Any
    b: int
    h: int
    t: int


class Place(NamedTuple):
    """Where a tensor's time stands in the ring: position p holds its sample p + start, `hop` later in the next window.

    Positions outside [low, high) are empty. Samples before 0 are those of a history of `before` samples. With `again`,
    position p also holds minus sample p + again, from sample `least` on: negative lags, and lags a period earlier.
    """

    start: int
    length: int
    low: int
    high: int
    hop: int = 0
    before: int = 0
    again: int | None = None
    least: int | None = None


class Signal(NamedTuple):
    """What is transformed: x times its gate, after the history."""

    x: View
    gate: View | None = None
    past: View | None = None


class Results(NamedTuple):
    """Where a result goes: y, times a gate; once more, times another; and where it lies before y, the history's gradient.

    With `skip`, numbers `step` apart for the channels, that times the signal is added, whose sample stands `shift` later than
    that of the result.
    """

    y: View | None
    gate: View | None = None
    y2: View | None = None
    gate2: View | None = None
    past: View | None = None
    again: View | None = None
    skip: Any = None
    step: int = 0
    shift: int = 0


class Rows(NamedTuple):
    """Which rows a launch takes: `across` side by side in tiles, for each of `turns` one after the other, `chunk` a program.

    Rows side by side are channels from `channel` on and turns are windows of samples from `sample`·`windows` on, or the other
    way round. In a split transform each row is `parts` rows side by side.
    """

    across: int
    turns: int
    chunk: int
    sample: int
    channel: int
    windows: int
    parts: int = 1


class Filters(NamedTuple):
    """Spectra (filters, 2 planes, N) with their powers of two: one a group of `repeats` channels, the next sample's `step`
    further on; the memory begins with filter `first`."""

    pointer: Any
    scale: Any
    repeats: int
    step: int
    first: int = 0


class Tables(NamedTuple):
    """DFT matrices and twiddles as real and imaginary parts; g1 is the inverse of f1, its imaginary part negated."""

    f1r: Any
    f1i: Any
    g1r: Any
    g1i: Any
    tr: Any
    ti: Any
    f2r: Any
    f2i: Any
    t2r: Any = None
    t2i: Any = None
    f3r: Any = None
    f3i: Any = None


class Outer(NamedTuple):
    """An outer DFT (bins, points) and its inverse, as in `Tables`, and its twiddles: of tiles of columns, and inside a tile."""

    fr: Any
    fi: Any
    gr: Any
    gi: Any
    high_r: Any
    high_i: Any
    low_r: Any
    low_i: Any
