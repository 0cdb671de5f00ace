"""What a convolution should take on a GPU that need not be here: a model, from published rates and nothing measured.

In the form of equation 2 of Fu et al. 2023 (arXiv 2311.05908), every stage i of a transform takes the time of its arithmetic
and that of its traffic, one after the other:

    seconds = Σ_i ( flop_i / γ(unit_i) + Σ_level bytes_i(level) / ω(level) )

with γ the rate of the unit that does the arithmetic and ω the bandwidth of the memory that the traffic meets. Launches are left
out: on small problems they take longer than everything here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from longwave import dtypes
from longwave.backends.triton import plans
from longwave.backends.triton.fir_plan import reached, takes
from longwave.backends.triton.layouts import layout
from longwave.errors import ArgumentError, UnsupportedError
from longwave.planner import Plan
from longwave.problem import Problem

# Arithmetic: tensor cores on 16-bit operands, on TF32, and everything else in float32. Memory: the part's own, its L2 cache,
# and what is in a multiprocessor.
UNITS, LEVELS = ("tensor16", "tf32", "float32"), ("memory", "l2", "shared")
# float32 goes as three products of TF32.
TF32_PRODUCTS = 3
SIGNALS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Part:
    """A GPU: dense rates in flop/s, bandwidths in bytes/s, and where they come from."""

    title: str
    architecture: str
    tensor16: float
    tf32: float
    float32: float
    memory: float
    l2: float
    shared: float
    source: str


def _shared(multiprocessors: int, hertz: float) -> float:
    """128 bytes a clock and multiprocessor: CUDA C++ Programming Guide, "Shared Memory" of compute capability 5.x and later."""
    return 128 * multiprocessors * hertz


# The L2 of A100 reads 5,120 bytes a clock (NVIDIA A100 whitepaper, 2020); for GH100 the same width at 1.755 GHz is the 9.0 TB/s
# of doi:10.1016/j.ultsonch.2023.106546, table 3. No figure was found for Ada: its L2 counts as memory.
PARTS = {
    "h200": Part(
        "NVIDIA H200 SXM", "sm_90", 989.4e12, 494.7e12, 66.9e12, 4.8e12, 8.99e12, _shared(132, 1.83e9),
        "NVIDIA H100 whitepaper, and H200 datasheet for its memory",
    ),
    "h100": Part(
        "NVIDIA H100 SXM", "sm_90", 989.4e12, 494.7e12, 66.9e12, 3.35e12, 8.99e12, _shared(132, 1.83e9),
        "NVIDIA H100 datasheet and whitepaper",
    ),
    "a100": Part(
        "NVIDIA A100 SXM 80 GB", "sm_80", 312e12, 156e12, 19.5e12, 2.039e12, 7.22e12, _shared(108, 1.41e9),
        "NVIDIA A100 datasheet and whitepaper",
    ),
    "4090": Part(
        "NVIDIA GeForce RTX 4090", "sm_89", 165.2e12, 82.6e12, 82.6e12, 1.008e12, 1.008e12, _shared(128, 2.52e9),
        "NVIDIA Ada whitepaper, float32 accumulation",
    ),
}  # fmt: skip


class Stage(NamedTuple):
    """A step of everything that a call does: its arithmetic, on which unit, and its traffic at each level in bytes. `factor` is
    the side of its matrices, or 0."""

    name: str
    factor: int
    flop: float
    unit: str
    memory: float = 0
    l2: float = 0
    shared: float = 0


class Transform(NamedTuple):
    """A row: DFTs through memory, the sides of the matrices that are multiplied in a multiprocessor, how many windows it is
    taken in, each a transform of its own, and whether what goes in, what comes out and the filter use both planes of the
    ring."""

    outer: tuple[int, ...]
    inner: tuple[int, ...]
    windows: int = 1
    upper: tuple[bool, bool, bool] = (False, False, False)

    @property
    def length(self) -> int:
        return math.prod(self.outer) * math.prod(self.inner)


def seconds(stages: Iterable[Stage], part: Part) -> float:
    return sum(stage_seconds(stage, part) for stage in stages)


def stage_seconds(stage: Stage, part: Part) -> float:
    traffic = sum(getattr(stage, level) / getattr(part, level) for level in LEVELS)
    rate: float = getattr(part, stage.unit)
    return stage.flop / rate + traffic


def _side(length: int) -> float:
    """Of a DFT's matrix, which has whole blocks of 16: products a point."""
    return (16 * -(-length // 16)) ** 2 / length


def stages(p: Problem, t: Transform | None = None) -> list[Stage]:
    """Of a forward, by the transform t of its rows; by sums where few taps are summed as they stand."""
    p = p if t is not None else reached(p)[0]
    rows, filters = p.batch * p.channels, p.groups * (p.batch if p.per_sample else 1)
    item, tap_item = dtypes.named(p.dtype).itemsize, dtypes.named(p.filter_dtype).itemsize
    u = p.in_len - p.history
    read = rows * item * (u * (1 + p.pregate) + p.history + p.out_len * p.postgate)
    written, taps = rows * item * p.out_len, filters * p.taps * tap_item
    moved = [Stage("read", 0, 0, "float32", memory=read + taps), Stage("write", 0, 0, "float32", memory=written)]
    if t is None:
        sums = Stage("sums", p.taps, 2.0 * rows * p.out_len * p.taps, "float32", shared=float(rows * item * p.out_len * p.taps))
        return [moved[0], sums, moved[1]]
    wide, N = p.dtype == "float32" or p.precision == "high", t.length
    z = 8 if wide else 4  # bytes of a complex point

    def products(of: int, wide: bool, *upper: bool) -> list[Stage]:
        """The transform of `of` rows, as many ways as `upper` says: a matrix product with complex operands is 8 flop a point
        and side; the first sees real samples, which is half, but where they are in both planes."""
        found, ways = [], len(upper)
        unit, times, z = ("tf32", TF32_PRODUCTS, 8) if wide else ("tensor16", 1, 4)
        for i, side in enumerate((*t.outer, *t.inner)):
            flop = (4 * (ways + sum(upper)) if i == 0 else 8 * ways) * times * _side(side) * of * N
            through = {"memory": 2.0 * ways * z * of * N} if i < len(t.outer) else {"shared": 2.0 * ways * z * of * N}
            found.append(Stage("DFT through memory" if i < len(t.outer) else "DFT", side, flop, unit, **through))
        weights = len(t.outer) + len(t.inner) - 1
        return [*found, Stage("weights", 0, 6.0 * ways * weights * of * N, "float32")]

    *both, of_filter = t.upper
    transforms = rows * t.windows
    spectra = [s._replace(name=f"filters: {s.name}") for s in products(filters, True, of_filter)]
    # Written and read in float32, and once more rounded; every row reads that of its filter out of the second-level cache.
    kept = Stage(
        "filters: spectra", 0, 6.0 * transforms * N, "float32",
        memory=2.0 * (8 if wide else 8 + z) * filters * N, l2=float(z * transforms * N),
    )  # fmt: skip
    return [moved[0], *spectra, kept, *products(transforms, wide, *both), moved[1]]


def transform_of(p: Problem) -> Transform | None:
    """That of a problem's rows, or None where its taps are summed as they stand."""
    if takes(p):
        return None
    at = layout(p)
    upper = at.source_upper, at.target_upper, at.filter_upper
    return Transform(at.outer, tuple(n for n in (at.shape.N1, at.shape.N2, at.shape.N3) if n > 1), at.windows or 1, upper)


def plan(p: Problem, name: str) -> Plan:
    """The backend's own plan with the time that the model predicts for a part, stage by stage.

    Raises UnsupportedError for a dtype, and a length, that the backend leaves to others.
    """
    part = PARTS[name]
    if p.dtype not in SIGNALS or p.filter_dtype not in SIGNALS:
        raise UnsupportedError(
            f"there is no cost model of {p.dtype} with filters of {p.filter_dtype} on device={name!r}; use "
            f"{', '.join(SIGNALS)}, or device='cuda' with backend='plain'"
        )
    try:
        found = together(stage for one in plans.parts(p) for stage in stages(one, transform_of(one)))
    except ArgumentError as error:
        raise UnsupportedError(
            f"backend='triton', of which device={name!r} is a model, cannot run this call: {error}"
        ) from None
    return replace(
        plans.plan(p),
        predicted_ms=1e3 * seconds(found, part),
        predicted_for=f"a model of the {part.title} from published rates; not measured",
        why=("modelled from lengths and published rates", *table(found, part)),
    )


def together(stages: Iterable[Stage]) -> list[Stage]:
    """Those of one name, side and unit as one: the same step of several convolutions."""
    found: dict[tuple[str, int, str], Stage] = {}
    for s in stages:
        key = s.name, s.factor, s.unit
        of = found.get(key, Stage(s.name, s.factor, 0, s.unit))
        found[key] = s._replace(
            flop=of.flop + s.flop, memory=of.memory + s.memory, l2=of.l2 + s.l2, shared=of.shared + s.shared
        )
    return list(found.values())


def table(stages: Iterable[Stage], part: Part) -> tuple[str, ...]:
    """A line a stage: side of its matrices, Gflop, unit, MB at each level, and ms."""
    lines = [f"{'stage':<28}{'side':>5}{'Gflop':>9} {'unit':<9}{'MB memory':>11}{'l2':>10}{'shared':>11}{'ms':>10}"]
    for s in stages:
        lines.append(
            f"{s.name:<28}{s.factor or '':>5}{s.flop / 1e9:>9.3g} {s.unit if s.flop else '':<9}{s.memory / 1e6:>11.4g}"
            f"{s.l2 / 1e6:>10.4g}{s.shared / 1e6:>11.4g}{1e3 * stage_seconds(s, part):>10.3g}"
        )
    return tuple(lines)
