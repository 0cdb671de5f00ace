"""Elementary functions of vectors, for traced steps: exp, and the activations with their slopes.

What is not a number stays so, infinities follow the formulas, and every width gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from llvmlite import ir

from longwave.backends.cpu.lanes import Vec, fma
from longwave.backends.cpu.simd import FLOAT64, I32, I64

NO_ACTIVATION, SILU, GELU = range(3)

# log(erfc(z) / t) + z² for t = 2 / (2 + z) in [0, 1], as a Chebyshev series in 2t - 1: the coefficients, to 1e-17.
ERFC = (
    -0.651326859890854717, 0.64196979235649026, 0.0194764732041858363, -0.00956151478680863164, -9.46595344482036866e-4,
    3.66839497852761452e-4, 4.25233248069077716e-5, -2.02785781125342432e-5, -1.62429000464702551e-6, 1.3036558355805232e-6,
    1.56264417220661432e-8, -8.52380959149265425e-8, 6.5290544390988515e-9, 5.05934349555146894e-9, -9.91364156493033087e-10,
    -2.27365122293183586e-10, 9.6467911020155268e-11, 2.39403808303911474e-12, -6.8860275264975534e-12,
    8.94487927309072572e-13, 3.13092139934295808e-13, -1.12708223613672524e-13, 3.81090525518923206e-16,
    7.10609761360923699e-15, -1.5230282014571043e-15, -9.457494571291234e-17, 1.21023718922427899e-16,
)  # fmt: skip
LN2_HIGH = {
    True: float.fromhex("0x1.62e42fefap-1"),
    False: float.fromhex("0x1.62e4p-1"),
}  # few bits: its products with small integers are exact
LARGEST = {True: 1.7e308, False: 3.4e38}  # numbers that infinity is above


def quotient(a: Vec, b: Vec) -> Vec:
    return Vec(a.t, a.t.builder.fdiv(a.value, b.value))


def where_below(a: Vec, limit: float, then: Vec, otherwise: Vec) -> Vec:
    """`then` in the lanes where a < limit; NaN is not."""
    b = a.t.builder
    return Vec(a.t, b.select(b.fcmp_ordered("<", a.value, a.t.constant(limit).value), then.value, otherwise.value))


def exp(x: Vec) -> Vec:
    """2^n · exp(r) with |r| <= ln2 / 2; 2^n is applied in two halves, so that what is subnormal or infinite comes out so."""
    t, b = x.t, x.t.builder
    double = t.code == FLOAT64
    least, most = (-746.0, 710.0) if double else (-104.0, 89.0)
    mantissa, bias, kind = (52, 1023, I64) if double else (23, 127, I32)
    x = where_below(x, least, t.constant(least), x)
    x = where_below(-x, -most, t.constant(most), x)
    shift = t.constant(1.5 * 2.0**mantissa)  # a sum with it is rounded to an integer, which its low bits hold
    shifted = fma(x, t.constant(1 / math.log(2)), shift)
    n = shifted - shift
    r = fma(n, t.constant(-LN2_HIGH[double]), x)
    r = fma(n, t.constant(-_ln2_low(double)), r)
    terms = 14 if double else 8
    y = t.constant(1 / math.factorial(terms - 1))
    for i in range(terms - 2, -1, -1):
        y = fma(y, r, t.constant(1 / math.factorial(i)))

    integers = ir.VectorType(kind, t.width)

    def integer(i: int) -> ir.Constant:
        return ir.Constant(integers, [i] * t.width)

    n_bits = b.sub(b.bitcast(shifted.value, integers), b.bitcast(shift.value, integers))
    half = b.ashr(n_bits, integer(1))
    for part in (half, b.sub(n_bits, half)):
        y = y * Vec(t, b.bitcast(b.shl(b.add(part, integer(bias)), integer(mantissa)), t.vector))
    return y


def _ln2_low(double: bool) -> float:
    """ln 2 without its high part; 2.3190468138462996e-17 is what float64 cannot hold of it."""
    return math.log(2) - LN2_HIGH[double] + 2.3190468138462996e-17


def _normal_cdf(y: Vec) -> Vec:
    """½ erfc(-y/√2), to the last bits for positive and negative y."""
    t = y.t
    z = where_below(y, 0.0, -y, y) * t.constant(math.sqrt(0.5))
    s = quotient(t.constant(2.0), t.constant(2.0) + z)
    terms = ERFC if t.code == FLOAT64 else ERFC[:12]
    u2 = fma(s, t.constant(4.0), t.constant(-2.0))
    b1, b2 = t.constant(terms[-1]), t.constant(0.0)
    for c in reversed(terms[1:-1]):
        b1, b2 = fma(u2, b1, t.constant(c) - b2), b1
    series = fma(u2 * t.constant(0.5), b1, t.constant(terms[0]) - b2)
    tail = s * exp(fma(-z, z, series)) * t.constant(0.5)
    return where_below(y, 0.0, tail, t.constant(1.0) - tail)


def silu(y: Vec) -> Vec:
    return quotient(y, y.t.constant(1.0) + exp(-y))


def silu_slope(y: Vec) -> Vec:
    """s · (1 + y · (1 - s)), where 1 - s is not taken from 1."""
    one, e = y.t.constant(1.0), exp(-y)
    s = quotient(one, one + e)
    return s * fma(y, where_below(e, LARGEST[y.t.code == FLOAT64], e * s, one), one)


def gelu(y: Vec) -> Vec:
    return y * _normal_cdf(y)


def gelu_slope(y: Vec) -> Vec:
    t = y.t
    density = exp(y * y * t.constant(-0.5)) * t.constant(1 / math.sqrt(2 * math.pi))
    return fma(y, density, _normal_cdf(y))


# An activation's function and its slope, by code.
ACTIVATIONS: dict[int, tuple[Callable[[Vec], Vec], Callable[[Vec], Vec]]] = {
    SILU: (silu, silu_slope),
    GELU: (gelu, gelu_slope),
}
