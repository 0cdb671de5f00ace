"""What a kernel is told: the layout of a program, one block of 64-bit integers with the places of everything in it.

header      sizes and addresses of tables
levels      (rows n of a block, radix, address of its twiddles) a pass, outermost first
lists       (first segment, number of segments, planes in use) for each kind of move
script      (when, kind, list, matrix) for each step of `six_step`
views       tensors as addresses and strides in bytes, all of the shape (B, H, ·)
segments    runs of samples that a move is made of
"""

from __future__ import annotations

INT = 8  # bytes

# The header, in integers from the start. `AHEAD`: a view whose rows are asked for before their turn, so many cache lines at
# a time; `ENDS` and `WALK`: the compiled functions of transform.py.
N, DEPTH, BASE, FIRST_LEVEL, CHANNELS, ROWS, BATCH, CHUNKS, VIEW_COUNT, AHEAD, AHEAD_LINES, ENDS, WALK = range(13)
WEIGHTS, SCALED = range(13, 15)
# Tiles that a unit of `fused` takes together, side by side in one cache line of a tensor, and the bytes from one's transform
# to the next one's.
SIDES, SIDE_BYTES = range(28, 30)
# Of `windows`: how many the loop over the batch has for each sample, how many the lanes have for each row (1: theirs is the
# loop's), the first of them, and the samples from one to the next.
LOOP_WINDOWS, LANE_WINDOWS, FIRST_WINDOW, HOP = range(30, 34)
# Of a filter's gradient: where the products of two spectra go instead of being added up (0: they are added up), and for the
# launch that adds them up how many there are for each filter, and a table of where they stand.
PRODUCTS, TERMS, OFFSETS = range(34, 37)
# Filters that were transformed before: where their spectra are, or 0; and whether D is still to be added to spectra.
SPECTRA, LIFTS = range(37, 39)
# Of a frequency mask, or 0: for every block of BASE rows, and for every block of 16, what is kept of it (a word, a byte); the
# places where those keep too much, their number, and a factor for each of their lanes (in `six_step` in every tile); and
# whether anything of a tile's rows is kept (a word).
KEPT_BLOCKS, KEPT_SIXTEEN, ROUGH_PLACES, ROUGH_COUNT, ROUGH_LANES, KEPT_TILES = range(39, 45)
# Whether results are stored past the caches.
STREAMS = 45
# Of `six_step`: columns of the matrix (0: there is none), the program for its rows, the table of turns and its two lengths,
# bytes between rows of a matrix and between matrices, their address (0: in the thread's scratch memory), the number of
# steps, and the step, sample and channel of a launch that makes one step alone.
COLUMNS, ROW_PROGRAM, TURNS, TURNS_HIGH, TURNS_LOW, ROW_STEP, MATRIX_BYTES, MATRICES, STEPS, STEP = range(15, 25)
SAMPLE, CHANNEL, IS_FIRST = range(25, 28)
HEADER = 48

LEVEL_WORDS, LIST_WORDS, SCRIPT_WORDS, VIEW_WORDS, SEGMENT_WORDS = 3, 3, 4, 7, 11
MAX_LEVELS, MAX_LISTS, MAX_STEPS, MAX_VIEWS, MAX_SEGMENTS = 48, 8, 12, 16, 16  # segments of one list
LEVELS = HEADER
LISTS = LEVELS + MAX_LEVELS * LEVEL_WORDS
SCRIPT = LISTS + MAX_LISTS * LIST_WORDS
VIEWS = SCRIPT + MAX_STEPS * SCRIPT_WORDS
SEGMENTS = VIEWS + MAX_VIEWS * VIEW_WORDS

# The lists; LIFT: D, where it is added to spectra and not to the taps.
TAPS, INPUT, OUTPUT, DZ, DX, DPOSTGATE, DK, LIFT = range(8)
# Words of a view: address, strides in bytes, stored type, neighbouring channels that share a row, and whether it moves with
# the window.
ADDRESS, STRIDE_B, STRIDE_H, STRIDE_T, STORED, REPEATS, MOVES = range(VIEW_WORDS)
# Words of a segment: `COUNT` samples from `FIRST` on, in the rows from `ROW` on of a plane, times `SIGN`; with HIGH > 0,
# `FIRST` moves with the window, and only samples from LOW to HIGH - 1 are there. With ADD they are added to what is there, in a
# list of results before those are stored; times a number a row, if there is a view SCALE of one (otherwise -1).
VIEW, GATE, FIRST, COUNT, PLANE, ROW, SIGN, ADD, LOW, HIGH, SCALE = range(SEGMENT_WORDS)
# Words of a step, when it is made (before the first sample, for each, after the last), and its kinds.
WHEN, KIND, LIST, MATRIX = range(SCRIPT_WORDS)
BEFORE, EACH, AFTER = range(3)
COLUMNS_IN, COLUMNS_OUT, ROWS_FILTER, ROWS_LIFT, ROWS_MULTIPLY, ROWS_BACKWARD, ROWS_LAST = range(7)
# The matrices: of the filters, of the input, of the gradient that comes in, of the filters' gradient.
OF_TAPS, OF_INPUT, OF_DZ, OF_SUM = range(4)

# What a walk through the frequencies does, as a sum. To the frequencies go the filters s, the input x and the gradient z that
# comes in; there the filters' gradient begins as z · conj(x), or that is added to it; back to the samples go x · s, z · conj(s)
# and the filters' gradient alone.
FILTERS_IN, INPUT_IN, GRADIENT_IN, SUM_BEGINS, SUM_GROWS, RESULT_OUT, GRADIENT_OUT, SUM_OUT = (2**i for i in range(8))
# What becomes of a block at the frequencies: multiply, transform only, or the inverse with one of the products.
MULTIPLY, TRANSFORM, INVERT_PRODUCT, INVERT_CONJUGATE, INVERT_ALONE = range(5)
