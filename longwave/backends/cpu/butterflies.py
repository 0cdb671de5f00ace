"""Discrete Fourier transforms of 1 to 5 complex vectors, as expressions of traced values.

`sign` is that of the exponent: -1 forward, +1 inverse. Each returns its outputs in natural order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from longwave.backends.cpu.lanes import Complex, fma

Points = Sequence[Complex]


def dft1(x: Points, sign: int) -> list[Complex]:
    return list(x)


def dft2(x: Points, sign: int) -> list[Complex]:
    a, b = x
    return [a + b, a - b]


def dft3(x: Points, sign: int) -> list[Complex]:
    a, b, c = x
    t = a.re.t
    half, root = t.constant(-0.5), t.constant(math.sqrt(3) / 2)
    s, d = b + c, (b - c).scaled(root).turned(sign)
    m = Complex(fma(s.re, half, a.re), fma(s.im, half, a.im))
    return [a + s, m + d, m - d]


def dft4(x: Points, sign: int) -> list[Complex]:
    a, b, c, d = x
    s, t, u, v = a + c, a - c, b + d, (b - d).turned(sign)
    return [s + u, t + v, s - u, t - v]


def dft5(x: Points, sign: int) -> list[Complex]:
    a, b, c, d, e = x
    t = a.re.t
    c1, c2 = (t.constant(math.cos(2 * math.pi * q / 5)) for q in (1, 2))
    s1, s2 = (t.constant(math.sin(2 * math.pi * q / 5)) for q in (1, 2))
    p, q, u, v = b + e, c + d, b - e, c - d

    def mixed(f: Complex, k: object, g: Complex, m: object, start: Complex) -> Complex:
        return Complex(fma(f.re, k, fma(g.re, m, start.re)), fma(f.im, k, fma(g.im, m, start.im)))  # type: ignore[arg-type]

    m1, m2 = mixed(p, c1, q, c2, a), mixed(p, c2, q, c1, a)
    r1 = Complex(fma(u.re, s1, v.re * s2), fma(u.im, s1, v.im * s2)).turned(sign)
    r2 = Complex(fma(u.re, s2, -(v.re * s1)), fma(u.im, s2, -(v.im * s1))).turned(sign)
    return [a + p + q, m1 + r1, m2 + r2, m2 - r2, m1 - r1]


DFT: dict[int, Callable[[Points, int], list[Complex]]] = {1: dft1, 2: dft2, 3: dft3, 4: dft4, 5: dft5}


def quarter_turns(z: Complex, count: int) -> Complex:
    """z·i^count."""
    return (z, z.turned(+1), -z, z.turned(-1))[count % 4]


def inverse4_at(p: int, x: dict[int, Complex]) -> Complex:
    """Output p of the inverse transform of 4 points of which only some are not zero, by their places."""
    first, *others = (quarter_turns(z, p * q) for q, z in x.items())
    return sum(others, first)
