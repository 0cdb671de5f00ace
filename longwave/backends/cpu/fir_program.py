"""What the kernels of the direct sums are told: a block of 64-bit integers, a header and then the tensors.

Times are those of `problem.py`: the input begins at `PAST_START` with the history and at `U_START` with u, the result at
`OUT_START`, and the windows (first, last) say which of their samples take part.
"""

from __future__ import annotations

from array import array

from torch import Tensor

from longwave.backends.cpu.program import CODE

INT = 8  # bytes
# The header. A forward unit is a chunk of time, a strip of channels and a sample of the batch; a backward one has a span of
# chunks. `ROW` bytes
# a row of samples in scratch memory, `TABLE_ROW` one of taps, `PARTIAL_ROW` one of totals.
(
    CHANNELS, LOW, TAP_COUNT, FALLING, REPEATS, ACTIVATION, PAST_START, U_START, OUT_START, IN_FIRST, IN_LAST, OUT_FIRST,
    OUT_LAST, FIRST, LAST, CHUNK, SPAN, SPANS, STRIP, ROW, TABLE_ROW, PARTIALS, PARTIAL_ROW, BATCH, GROUPS,
    PER_SAMPLE,
) = range(26)  # fmt: skip
HEADER = 26
# The tensors. An address of 0 stands for none.
U, PREGATE, PAST, TAPS, SKIP, BIAS, Y, POSTGATE, DY, DU, DPREGATE, DPAST, DPOSTGATE, DTAPS, DSKIP, DBIAS = range(16)
ADDRESS, STRIDE_B, STRIDE_H, STRIDE_T, STORED = range(5)
VIEW_WORDS = 5
WORDS = HEADER + 16 * VIEW_WORDS


def header(*words: int) -> array[int]:
    """A block without tensors, to make programs from."""
    return array("q", words + (0,) * (WORDS - len(words)))


class Program:
    """A block of integers that is filled in. The tensors must outlive its use."""

    __slots__ = ("words",)

    def __init__(self, words: array[int]) -> None:
        self.words = words[:]

    def view(self, which: int, x: Tensor, b: int, h: int, t: int) -> None:
        """A tensor, and its strides of the batch, the channels and time in elements."""
        size, at = x.element_size(), HEADER + which * VIEW_WORDS
        self.words[at : at + VIEW_WORDS] = array("q", (x.data_ptr(), b * size, h * size, t * size, CODE[x.dtype]))

    @property
    def address(self) -> int:
        return self.words.buffer_info()[0]
