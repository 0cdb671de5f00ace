"""Vectors for Numba: write a step as Python over vectors, and it becomes straight-line LLVM code.

Numba compiles loops but not vectors of a chosen width, and its vectoriser misses butterflies. So loops stay in Numba
(`moves.py`, `transform.py` and the kernels) and what happens inside one is *traced*: `@traced` calls the Python function once,
at compile time, with a `Lanes` that knows the arithmetic type and the width, and every operation on its values appends an
LLVM instruction.

    @traced
    def scale(t, x, factor):                     # x: an address; factor: an address
        t.store(x, t.load(x) * t.splat(factor))

    scale(like, x, factor)                       # in Numba; `like` is a float32 or float64 of any value and chooses the type

There are no fast-math flags, and what fuses is an explicit `fma`: every width gives the same bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from longwave.backends.cpu.simd import (
    BFLOAT16,
    CACHE_LINE,
    CODES,
    FLOAT32,
    FLOAT64,
    I8,
    I16,
    I32,
    I64,
    STORED,
    arithmetic_code,
    vector_bytes,
    with_arguments,
)


class Vec:
    """A vector value while it is traced."""

    __slots__ = ("t", "value")

    def __init__(self, t: Lanes, value: ir.Value) -> None:
        self.t, self.value = t, value

    def __add__(self, other: Vec) -> Vec:
        return Vec(self.t, self.t.builder.fadd(self.value, other.value))

    def __sub__(self, other: Vec) -> Vec:
        return Vec(self.t, self.t.builder.fsub(self.value, other.value))

    def __mul__(self, other: Vec) -> Vec:
        return Vec(self.t, self.t.builder.fmul(self.value, other.value))

    def __neg__(self) -> Vec:
        return Vec(self.t, self.t.builder.fneg(self.value))


def fma(a: Vec, b: Vec, c: Vec) -> Vec:
    """a·b + c, rounded once."""
    t = a.t
    name = f"llvm.fma.v{t.width}{t.scalar.intrinsic_name}"
    module = t.builder.module
    function = module.globals.get(name) or ir.Function(module, ir.FunctionType(t.vector, [t.vector] * 3), name)
    return Vec(t, t.builder.call(function, [a.value, b.value, c.value]))


class Complex:
    """A vector of complex numbers: two vectors. A product costs two multiplications and two fma."""

    __slots__ = ("im", "re")

    def __init__(self, re: Vec, im: Vec) -> None:
        self.re, self.im = re, im

    def __add__(self, other: Complex) -> Complex:
        return Complex(self.re + other.re, self.im + other.im)

    def __sub__(self, other: Complex) -> Complex:
        return Complex(self.re - other.re, self.im - other.im)

    def __mul__(self, w: Complex) -> Complex:
        return Complex(fma(self.re, w.re, -(self.im * w.im)), fma(self.re, w.im, self.im * w.re))

    def times_conj(self, w: Complex) -> Complex:
        """self · conj(w)."""
        return Complex(fma(self.re, w.re, self.im * w.im), fma(self.im, w.re, -(self.re * w.im)))

    def __neg__(self) -> Complex:
        return Complex(-self.re, -self.im)

    def turned(self, sign: int) -> Complex:
        """self · i for sign = +1, self · -i for sign = -1."""
        return Complex(-self.im, self.re) if sign > 0 else Complex(self.im, -self.re)

    def scaled(self, factor: Vec) -> Complex:
        return Complex(self.re * factor, self.im * factor)


class Address:
    """An integer (an address, an index) while it is traced."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Address | int) -> Address:
        return Address(self.builder, self.builder.add(self.value, _int(other)))

    def __sub__(self, other: Address | int) -> Address:
        return Address(self.builder, self.builder.sub(self.value, _int(other)))

    def __mul__(self, other: Address | int) -> Address:
        return Address(self.builder, self.builder.mul(self.value, _int(other)))

    def __floordiv__(self, other: Address | int) -> Address:
        """For what is not negative."""
        return Address(self.builder, self.builder.udiv(self.value, _int(other)))

    def at_most(self, other: Address) -> Address:
        b = self.builder
        return Address(b, b.select(b.icmp_signed("<", self.value, other.value), self.value, other.value))

    def at_least(self, other: Address | int) -> Address:
        b = self.builder
        return Address(b, b.select(b.icmp_signed(">", self.value, _int(other)), self.value, _int(other)))

    __radd__, __rmul__ = __add__, __mul__


def _int(x: Address | int) -> ir.Value:
    return x.value if isinstance(x, Address) else ir.Constant(I64, x)


class Lanes:
    """The operations of one arithmetic type at one width; `E` bytes an element, `plane` a vector, `row` a
    complex vector."""

    def __init__(self, builder: ir.IRBuilder, arithmetic: types.Float, width: int | None = None) -> None:
        self.builder = builder
        self.code = arithmetic_code(arithmetic)
        self.scalar, self.E = STORED[self.code]
        self.width = vector_bytes() // self.E if width is None else width
        self.vector = ir.VectorType(self.scalar, self.width)
        self.plane = self.width * self.E
        self.row = 2 * self.plane

    def one_lane(self) -> Lanes:
        """The same operations on single numbers: exactly what the vectors do, for rows that do not fill one."""
        return Lanes(self.builder, types.float64 if self.code == FLOAT64 else types.float32, 1)

    def vectors(self, count: Address) -> Address:
        """How many vectors hold so many numbers."""
        return (count + (self.width - 1)) // self.width

    # Control: loops that run, and choices that are made, when the step runs.

    @contextmanager
    def loop(self, start: Address | int, stop: Address | int) -> Iterator[Address]:
        """`with t.loop(a, b) as i`: the block is run for i = a … b - 1."""
        with cgutils.for_range(self.builder, _int(stop), start=_int(start)) as counter:
            yield Address(self.builder, counter.index)

    def cases(self, chosen: Address, among: Iterable[int]) -> Iterator[int]:
        """`for c in t.cases(x, values)`: the block is traced once for every value, and the one that equals x is run."""
        b = self.builder
        end = b.append_basic_block("end")
        switch = b.switch(chosen.value, end)
        for value in among:
            block = b.append_basic_block(f"case{value}")
            switch.add_case(ir.Constant(I64, value), block)
            b.position_at_end(block)
            yield value
            b.branch(end)
        b.position_at_end(end)

    def stored(self, code: Address) -> Iterator[int]:
        """`for stored in t.stored(code)`: the cases of what a tensor's samples may be."""
        return self.cases(code, CODES[self.code])

    # Memory. Samples may stand at any multiple of their size; scratch memory is aligned.

    def load(self, at: Address, aligned: bool = False) -> Vec:
        return Vec(self, self._read(at, self.vector, self.width * self.E if aligned else self.E))

    def store(self, at: Address, x: Vec, aligned: bool = False) -> None:
        self._write(at, x.value, self.width * self.E if aligned else self.E)

    def load_complex(self, at: Address) -> Complex:
        """A row of scratch memory: W real parts, W imaginary parts."""
        return Complex(self.load(at, aligned=True), self.load(at + self.plane, aligned=True))

    def store_complex(self, at: Address, z: Complex) -> None:
        self.store(at, z.re, aligned=True)
        self.store(at + self.plane, z.im, aligned=True)

    def where(self, chosen: Vec, x: Vec) -> Vec:
        """x in the lanes where `chosen` is not zero, and zeros elsewhere."""
        zero = self.constant(0.0)
        return Vec(self, self.builder.select(self.builder.fcmp_unordered("!=", chosen.value, zero.value), x.value, zero.value))

    def splat(self, at: Address) -> Vec:
        """The number at an address, in every lane."""
        return self._spread(self._read(at, self.scalar, self.E))

    def splat_complex(self, at: Address) -> Complex:
        return Complex(self.splat(at), self.splat(at + self.E))

    def constant(self, x: float) -> Vec:
        return Vec(self, ir.Constant(self.vector, [ir.Constant(self.scalar, x)] * self.width))

    def from_int(self, x: Address) -> Vec:
        """An integer as a number, in every lane."""
        return self._spread(self.builder.sitofp(x.value, self.scalar))

    def prefetch(self, at: Address, to_write: bool = False) -> None:
        """Ask for a cache line before it is needed; any address will do."""
        b = self.builder
        pointer = I8.as_pointer()
        name = "llvm.prefetch.p0"
        kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
        function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
        b.call(function, [b.inttoptr(at.value, pointer), *(ir.Constant(I32, x) for x in (int(to_write), 3, 1))])

    def read_int(self, at: Address) -> Address:
        return Address(self.builder, self._read(at, I64, 8))

    def read_byte(self, at: Address) -> Address:
        return Address(self.builder, self.builder.zext(self._read(at, I8, 1), I64))

    def load_stored(self, at: Address, code: int) -> Vec:
        """Samples of the stored type, converted to the arithmetic type."""
        b, (kind, size) = self.builder, STORED[code]
        x = self._read(at, ir.VectorType(kind, self.width), size)
        if code == BFLOAT16:
            bits = ir.VectorType(I32, self.width)
            shift = ir.Constant(bits, [16] * self.width)
            x, code = b.bitcast(b.shl(b.zext(x, bits), shift), ir.VectorType(STORED[FLOAT32][0], self.width)), FLOAT32
        if STORED[code][1] < self.E:
            x = b.fpext(x, self.vector)
        return Vec(self, x)

    def store_stored(self, at: Address, x: Vec, code: int) -> None:
        """Samples converted to the stored type, rounded once, to nearest even; NaN stays NaN."""
        b, (kind, size) = self.builder, STORED[code]
        value = x.value
        if code == BFLOAT16:
            value = self._to_bfloat16(value)
        elif size < self.E:
            value = b.fptrunc(value, ir.VectorType(kind, self.width))
        self._write(at, value, size)

    def stream_stored(self, at: Address, x: Vec, code: int) -> None:
        """As `store_stored`; what fills a cache line goes past the caches: it is not read first, and what they hold stays."""
        b = self.builder
        if STORED[code][1] * self.width != CACHE_LINE:
            self.store_stored(at, x, code)
            return
        with b.if_else(self._begins_line(at)) as (whole, parts):
            with whole:
                self.store_stored(at, x, code)
                store = b.block.instructions[-1]
                store.align = CACHE_LINE
                store.set_metadata("nontemporal", b.module.add_metadata([ir.Constant(I32, 1)]))
            with parts:
                self.store_stored(at, x, code)

    @contextmanager
    def unless_streamed(self, at: Address) -> Iterator[None]:
        """The block is run where `stream_stored` would go through the caches."""
        with self.builder.if_then(self.builder.not_(self._begins_line(at))):
            yield

    def _begins_line(self, at: Address) -> ir.Value:
        b = self.builder
        return b.icmp_unsigned("==", b.and_(at.value, _int(CACHE_LINE - 1)), _int(0))

    def fence(self) -> None:
        """What was stored past the caches is there for other threads from here on."""
        b, name = self.builder, "llvm.x86.sse.sfence"
        if "x86" not in binding.get_process_triple():
            b.fence("seq_cst")
            return
        b.call(b.module.globals.get(name) or ir.Function(b.module, ir.FunctionType(ir.VoidType(), []), name), [])

    # Shuffles.

    def transposed(self, rows: Sequence[Vec]) -> list[Vec]:
        """W vectors of W elements as a matrix, transposed in registers.

        Rounds inside 128-bit quarters are unpacks, which move a row bit to the lowest column bit; rounds between quarters
        swap a row bit with its column bit. The first kind leaves the low bits in reverse order, undone in the numbering.
        """
        W, quarter = self.width, min(self.width, 16 // self.E)
        slots, span = list(rows), 1
        while span < W:
            if span < quarter:
                low = _unpack(W, quarter, span, 0), _unpack(W, quarter, span, 1)
            else:
                low = _swap(W, span, 0), _swap(W, span, 1)
            for i in range(W):
                if not i & span:
                    a, b = slots[i], slots[i + span]
                    slots[i], slots[i + span] = self._shuffle(a, b, low[0]), self._shuffle(a, b, low[1])
            span *= 2
        low_bits = quarter.bit_length() - 1
        out: list[Vec] = list(slots)
        for slot in range(W):
            low_part = slot % quarter
            reverse = int(f"{low_part:0{low_bits}b}"[::-1], 2) if low_bits else 0
            out[slot - low_part + reverse] = slots[slot]
        return out

    def _shuffle(self, a: Vec, b: Vec, mask: Sequence[int]) -> Vec:
        return Vec(self, self.builder.shuffle_vector(a.value, b.value, ir.Constant(ir.VectorType(I32, self.width), list(mask))))

    def _spread(self, x: ir.Value) -> Vec:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, x, ir.Constant(I32, 0))
        return Vec(
            self, self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, self.width), [0] * self.width))
        )

    def _to_bfloat16(self, value: ir.Value) -> ir.Value:
        b, kind = self.builder, ir.VectorType(I32, self.width)

        def number(n: int) -> ir.Constant:
            return ir.Constant(kind, [n] * self.width)

        bits = b.bitcast(value, kind)
        even = b.and_(b.lshr(bits, number(16)), number(1))
        rounded = b.lshr(b.add(b.add(bits, number(0x7FFF)), even), number(16))
        quiet = b.or_(b.lshr(bits, number(16)), number(0x40))  # the sum above would carry some NaNs to -0 or infinity
        chosen = b.select(b.fcmp_unordered("uno", value, value), quiet, rounded)
        return b.trunc(chosen, ir.VectorType(I16, self.width))

    def _read(self, at: Address, kind: ir.Type, align: int) -> ir.Value:
        value = self.builder.load(self.builder.inttoptr(at.value, kind.as_pointer()))
        value.align = align
        return value

    def _write(self, at: Address, value: ir.Value, align: int) -> None:
        self.builder.store(value, self.builder.inttoptr(at.value, value.type.as_pointer())).align = align


def _unpack(W: int, quarter: int, span: int, high: int) -> list[int]:
    """`punpckl/h` of groups of `span` elements: alternate groups of a and b from one half of every quarter."""
    mask = []
    for q in range(0, W, quarter):
        for g in range(quarter // (2 * span)):
            start = q + high * quarter // 2 + g * span
            mask += [*range(start, start + span), *range(W + start, W + start + span)]
    return mask


def _swap(W: int, span: int, high: int) -> list[int]:
    """Even blocks of a beside even blocks of b (high = 0), or the odd ones (high = 1)."""
    if high:
        return [i + span if not i & span else W + i for i in range(W)]
    return [i if not i & span else W + i - span for i in range(W)]


def traced(step: Callable[..., None]) -> Any:
    """A Numba function (like, *integers) from a Python function (t: Lanes, *integers: Address)."""

    def definition(typingctx: Any, like: Any, *integers: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:
            step(Lanes(builder, signature.args[0]), *[Address(builder, value) for value in values[1:]])
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * len(integers)), codegen

    definition.__name__ = step.__name__
    with_arguments(definition, *inspect.signature(step).parameters)
    return intrinsic(definition)
