"""What the direct sums of `long_conv` take, and what they allocate: integers alone, without Triton."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from longwave import dtypes
from longwave.planner import Plan
from longwave.problem import Problem

# Filters of so many taps are summed as they stand, by whether the arithmetic of transforms would be wide. No GPU has timed it:
# by the cost model (`cost`) of an H200 sums are faster up to 8 to 16 taps of 16-bit signals and 16 to 28 of float32 (a long row
# to a short one), on an RTX 4090 up to 28 to 48 and 104 to 156. `longwave tune --device cuda` measures it.
MOST_TAPS = {False: 16, True: 28}
SIXTEEN_BITS = ("float16", "bfloat16")
# So is a handful of samples under any taps, of which few meet a sample: of so few results rounded products may leave one that
# is much worse than the rest, and sums in float32 do not.
FEW_SAMPLES = 16
# A filter's gradient is summed over spans of so many samples, in so many chains. Spans of long rows are longer, so that there
# are about so many: what is left of each span waits in memory.
SPAN, MOST_SPANS, LONGEST_SPAN, CHAINS = 4096, 64, 65536, 64


def takes(p: Problem) -> bool:
    """Whether this regime runs a problem: a function of its lags and its lengths alone."""
    if p.circular and (p.taps > p.in_len or (p.in_start, p.in_len) != (p.out_start, p.out_len)):
        return False
    if p.mask is not None or p.segments is not None:
        return False
    return max(p.in_len, p.out_len) <= FEW_SAMPLES or p.taps <= MOST_TAPS[p.precision == "high" or p.dtype not in SIXTEEN_BITS]


def reached(p: Problem) -> tuple[Problem, slice]:
    """The problem of the taps alone that meet a sample, and where those are as they are stored; the others are not read, and
    their gradients are zeros. One where none does, and all of them where they meet samples again and again."""
    lo, hi = p.lags
    first = max(lo, p.out_start - (p.in_start + p.in_len) + 1)
    last = min(hi, p.out_start + p.out_len - 1 - p.in_start)
    if p.circular:
        return p, slice(0, p.taps)
    if first > last:
        return replace(p, taps=1), slice(0, 1)
    at, taps = hi - last if p.reverse else first - lo, last - first + 1
    return replace(p, taps=taps, lag0=last if p.reverse else first), slice(at, at + taps)


def plan(p: Problem) -> Plan:
    item, B, H, K = dtypes.named(p.dtype).itemsize, p.batch, p.channels, reached(p)[0].taps
    taps = math.prod((B, p.groups, p.taps) if p.per_sample else (p.groups, p.taps))
    signals = (1 + p.pregate) * (p.in_len - p.history) + p.postgate * p.out_len + p.history
    wide = dtypes.arithmetic(dtypes.named(p.dtype))
    partials = partial_bytes(B, H, p.out_len, K, wide.itemsize)
    sums = wide.itemsize * (taps + p.skip * H)
    return Plan(
        backend="triton",
        algorithm=f"direct, sums over {K} taps in {dtypes.name(wide)}",
        N=0,
        samples_in_flight=B,
        channels_in_flight=H,
        scratch_bytes=0,
        result_bytes=B * H * p.out_len * item,
        backward_bytes=B * H * signals * item + sums + partials,
        flop=2.0 * K * B * H * p.out_len,
        predicted_ms=None,
        predicted_for="",
        problem=p,
    )


@lru_cache(maxsize=256)
def span_of(count: int) -> int:
    """Samples of a span: of the order of a filter's gradient, and so a function of the length alone."""
    length = power(count)
    return max(CHAINS, min(length, SPAN), min(length // MOST_SPANS, LONGEST_SPAN))


def partial_bytes(B: int, H: int, count: int, K: int, item: int) -> int:
    """What `add_sums` allocates, in an arithmetic type of `item` bytes."""
    return item * B * -(-count // span_of(count)) * H * K


def power(n: int) -> int:
    """The smallest power of two from n on."""
    return 1 << (n - 1).bit_length()
