"""What the direct sums of `long_conv` take, and what they allocate: integers alone, without Triton."""

from __future__ import annotations

import math
from functools import lru_cache

from longwave import dtypes
from longwave.planner import Plan
from longwave.problem import Problem

# Filters of so many taps are summed as they stand, by whether the arithmetic of transforms would be wide. No GPU has timed it:
# by the cost model (`cost`) of an H200 sums are faster up to 8 to 16 taps of 16-bit signals and 16 to 28 of float32 (a long row
# to a short one), on an RTX 4090 up to 28 to 48 and 104 to 156. `longwave tune --device cuda` measures it.
MOST_TAPS = {False: 16, True: 28}
# So are more taps of a handful of samples, while they are fewer products than the least transform has, of 256 points, by its
# 98 kflop and published rates: of so few results rounded products may leave one that is much worse than the rest, and sums in
# float32 do not.
FEW_SAMPLES, MOST_PRODUCTS = 16, 2048
# A filter's gradient is summed over spans of so many samples, in so many chains. Spans of long rows are longer, so that there
# are about so many: what is left of each span waits in memory.
SPAN, MOST_SPANS, LONGEST_SPAN, CHAINS = 4096, 64, 65536, 64


def takes(p: Problem) -> bool:
    """Whether this regime runs a problem: a function of its lags and its lengths alone."""
    if p.circular and (p.taps > p.in_len or (p.in_start, p.in_len) != (p.out_start, p.out_len)):
        return False
    if p.mask is not None or p.segments is not None:
        return False
    samples = max(p.in_len, p.out_len)
    if samples <= FEW_SAMPLES and samples * p.taps <= MOST_PRODUCTS:
        return True
    return p.taps <= MOST_TAPS[p.precision == "high" or p.dtype not in ("float16", "bfloat16")]


def plan(p: Problem) -> Plan:
    item, B, H = dtypes.named(p.dtype).itemsize, p.batch, p.channels
    taps = math.prod((B, p.groups, p.taps) if p.per_sample else (p.groups, p.taps))
    signals = (1 + p.pregate) * (p.in_len - p.history) + p.postgate * p.out_len + p.history
    wide = dtypes.arithmetic(dtypes.named(p.dtype))
    partials = partial_bytes(B, H, p.out_len, p.taps, wide.itemsize)
    sums = wide.itemsize * (taps + p.skip * H)
    return Plan(
        backend="triton",
        algorithm=f"direct, sums over {p.taps} taps in {dtypes.name(wide)}",
        N=0,
        samples_in_flight=B,
        channels_in_flight=H,
        scratch_bytes=0,
        result_bytes=B * H * p.out_len * item,
        backward_bytes=B * H * signals * item + sums + partials,
        flop=2.0 * p.taps * B * H * p.out_len,
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
