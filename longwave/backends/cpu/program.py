"""Programs: what a kernel is told (words.py), made once for a problem and its strides, and run with any tensors' addresses."""

from __future__ import annotations

import ctypes
import itertools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longwave.backends.cpu import jit, transform, words
from longwave.backends.cpu.simd import BFLOAT16, CACHE_LINE, FLOAT16, FLOAT32, FLOAT64, STORED_BYTES
from longwave.backends.cpu.tables import Tables
from longwave.ring import Segment

# The longest row that is asked for before its turn: W of them fill half of a second-level cache of 512 KiB.
AHEAD_BYTES = 2**15
CODE = {torch.float64: FLOAT64, torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}

# A tensor's dtype and strides: with the problem, all that a program depends on.
Form = tuple[torch.dtype, tuple[int, ...]]


def form(x: Tensor | None) -> Form | None:
    return None if x is None else (x.dtype, x.stride())


class View(NamedTuple):
    """The tensor number `slot` of a call, from a sample on, with strides in bytes along (batch, channels, time)."""

    slot: int
    start: int
    strides: tuple[int, int, int]
    code: int
    repeats: int = 1
    moves: bool = False  # with the window


def view(slot: int, form: Form, first: int = 0, repeats: int = 1, moves: bool = False) -> View:
    """Of a (B, H, ·) tensor; one of (H, ·) is the same for the whole batch, and one of (H,) has one sample."""
    dtype, strides = form
    code = CODE[dtype]
    size = STORED_BYTES[code]
    padded = (0, *strides, 0) if len(strides) == 1 else (0,) * (3 - len(strides)) + strides
    b, h, t = (size * stride for stride in padded)
    return View(slot, first * t, (b, h, t), code, repeats, moves)


class Move(NamedTuple):
    """Samples of a tensor (times those of a gate) that enter or leave the ring in segments; `add` onto what is there, times a
    number a row if `scale` has them."""

    x: View
    gate: View | None
    segments: Sequence[Segment]
    add: bool = False
    scale: View | None = None


class Program:
    """The block of words for a kernel, but for the addresses of tensors; keeps alive what it points to."""

    def __init__(self, tables: Tables, base: int, like: Any, **header: int) -> None:
        self.keep: list[Any] = [tables]
        self.placed: list[tuple[int, int, int]] = []
        self.tables = tables
        self.views: dict[View, int] = {}
        self.segments: list[int] = []
        self.words = [0] * words.SEGMENTS
        self.set(
            N=tables.N,
            DEPTH=len(tables.radices),
            BASE=base,
            FIRST_LEVEL=1,
            WEIGHTS=tables.weights.ctypes.data,
            SCALED=tables.scaled_weights.ctypes.data,
            ENDS=jit.pointer(transform.ends, like),
            WALK=jit.pointer(transform.walk, like),
        )
        self.set(**{"SIDES": 1, "LOOP_WINDOWS": 1, "LANE_WINDOWS": 1, **header})
        n = tables.N
        for level, r in enumerate(tables.radices):
            twiddles = tables.twiddles[level].ctypes.data if level < len(tables.twiddles) else 0
            at = words.LEVELS + level * words.LEVEL_WORDS
            self.words[at : at + words.LEVEL_WORDS] = [n, r, twiddles]
            n //= r

    def set(self, **header: int) -> None:
        """Write words of the header, by their names in words.py."""
        for name, value in header.items():
            self.words[getattr(words, name)] = value

    def point(self, **tables: Any) -> None:
        """Write the addresses of arrays into words of the header, 0 for None."""
        self.keep.append(tables)
        self.set(**{name: 0 if table is None else table.ctypes.data for name, table in tables.items()})

    def place(self, word: int, slot: int, start: int = 0) -> None:
        """Say that a word of the header takes the address of the tensor number `slot` of a call, from a byte on."""
        self.placed.append((word, slot, start))

    def move(self, which: int, moves: Iterable[Move]) -> None:
        """Fill one of the lists."""
        first = len(self.segments) // words.SEGMENT_WORDS
        planes = 1
        for move in moves:
            x = self._number(move.x)
            gate, scale = (-1 if view is None else self._number(view) for view in (move.gate, move.scale))
            for s in move.segments:
                planes = max(planes, s.plane + 1)
                self.segments += [x, gate, s.i, s.length, s.plane, s.row, s.sign, int(move.add), s.low, s.high, scale]
        count = len(self.segments) // words.SEGMENT_WORDS - first
        if count > words.MAX_SEGMENTS or len(self.views) > words.MAX_VIEWS:
            raise RuntimeError(f"{count} segments of {len(self.views)} tensors do not fit into a program")
        at = words.LISTS + which * words.LIST_WORDS
        self.words[at : at + words.LIST_WORDS] = [first, count, planes]

    def stream(self, x: View, samples: int) -> None:
        """Say that x is read by the sample, `samples` of every row, so that the next rows can be brought before their turn."""
        base, size = self.words[words.BASE], STORED_BYTES[x.code]
        row_bytes = samples * size
        # Bursts of requests stand between the passes inside a block of the walk; what a cache cannot hold is not asked for.
        blocks = itertools.accumulate(self.tables.radices[:-2], operator.floordiv, initial=self.tables.N)
        bursts = 2 * (sum(n <= base for n in blocks) - int(base >= self.tables.N)) * (self.tables.N // base)
        if x.strides[2] == size and bursts > 0 and row_bytes <= AHEAD_BYTES:
            self.set(AHEAD=self._number(x), AHEAD_LINES=-(-row_bytes // (CACHE_LINE * bursts)))

    def script(self, steps: Sequence[tuple[int, int, int, int]]) -> None:
        """Fill the script: (when, kind, list, matrix) a step."""
        for i, step in enumerate(steps):
            at = words.SCRIPT + i * words.SCRIPT_WORDS
            self.words[at : at + words.SCRIPT_WORDS] = step
        self.set(STEPS=len(steps))

    def block(self) -> Block:
        """The finished block."""
        self.set(VIEW_COUNT=len(self.views))
        views = ((words.VIEWS + number * words.VIEW_WORDS + words.ADDRESS, x.slot, x.start) for x, number in self.views.items())
        all_words = self.words + self.segments
        kind = ctypes.c_int64 * len(all_words)
        return Block(kind, bytes(kind(*all_words)), (*views, *self.placed), tuple(self.keep))

    def _number(self, x: View) -> int:
        if x not in self.views:
            at = words.VIEWS + len(self.views) * words.VIEW_WORDS
            self.words[at : at + words.VIEW_WORDS] = [0, *x.strides, x.code, x.repeats, int(x.moves)]
            self.views[x] = len(self.views)
        return self.views[x]


@dataclass(frozen=True, eq=False)
class Block:
    """A program without addresses: `places` say which word takes the address of which tensor of a call, from which byte on."""

    kind: Any
    template: bytes
    places: tuple[tuple[int, int, int], ...]
    keep: tuple[Any, ...]

    def filled(self, tensors: Sequence[Tensor | None]) -> Any:
        """An array of integers, with the addresses of a call's tensors; it must live while the kernel runs."""
        block = self.kind.from_buffer_copy(self.template)
        for at, slot, start in self.places:
            x = tensors[slot]
            block[at] = 0 if x is None else x.data_ptr() + start
        return block


def address(block: Any) -> int:
    return ctypes.addressof(block)
