"""Direct sums as kernels: one makes results and gradients of signals, one gradients of filters, one adds up the latter.

A result's sample j, of channel h and sample b of the batch, is

    z[j] = Σ_i tap[i] · v[j + shift - i] + skip · v[j + present] + bias,      i = 0 … K-1

with v[n] = x[n] · gate[n] for 0 <= n < x_len, the past's last samples for n < 0, and zero elsewhere (or x with its period).
Sums are chains of explicit fma in one order, whatever the tiles and strides: their bits depend on K alone. Compile without
fusing: a product that must not be rounded is written as an fma.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

# An activation, or its slope.
LINEAR, SILU, GELU, SILU_SLOPE, GELU_SLOPE = (tl.constexpr(code) for code in range(5))
# Arithmetic types.
FLOAT32, FLOAT64 = tl.constexpr(tl.float32), tl.constexpr(tl.float64)
# Local indices are int32, and windows are cut to what a tile with its taps can reach.
FAR = tl.constexpr(2**30)


@triton.jit
def _near(n):
    """A distance, as int32: beyond FAR they are all the same to a tile."""
    return tl.minimum(tl.maximum(n, -FAR), FAR).to(tl.int32)


@triton.jit
def _activated(z, ACTIVATION: tl.constexpr):
    if ACTIVATION == SILU:
        z = z / (1.0 + tl.exp(-z))
    elif ACTIVATION == SILU_SLOPE:
        s = 1.0 / (1.0 + tl.exp(-z))
        z = s * tl.fma(z, 1.0 - s, 1.0)
    elif ACTIVATION == GELU:
        z = z * (0.5 + 0.5 * tl.erf(z * 0.7071067811865476))
    elif ACTIVATION == GELU_SLOPE:
        z = 0.5 + 0.5 * tl.erf(z * 0.7071067811865476) + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)
    return z


@triton.jit
def _signal(x_p, gate_p, past_p, x_t, gate_t, n, there, low, high, past_low, period,
            WIDE: tl.constexpr, CIRCULAR: tl.constexpr, GATED: tl.constexpr, PAST: tl.constexpr):  # fmt: skip
    """v in the arithmetic type, where the pointers point: the local indices n are inside of [low, high), or of [past_low, low)
    if there is a past."""
    inside = there
    if CIRCULAR:
        turns = (tl.where(n < low, period, 0) - tl.where(n >= high, period, 0)).to(tl.int64)
        x_p += turns * x_t
        if GATED:
            gate_p += turns * gate_t
    else:
        inside = there & (n >= low) & (n < high)
    v = tl.load(x_p, mask=inside, other=0.0).to(WIDE)
    if GATED:
        v *= tl.load(gate_p, mask=inside, other=0.0).to(WIDE)
    if PAST:
        v += tl.load(past_p, mask=there & (n >= past_low) & (n < low), other=0.0).to(WIDE)
    return v


@triton.jit(do_not_specialize=["tap_b", "per_group", "shift", "present", "x_len", "past_len"])
def fir_kernel(
    y_ptr, second_ptr, x_ptr, gate_ptr, past_ptr, times_ptr, second_times_ptr, tap_ptr, skip_ptr, bias_ptr,
    y_b, y_h, y_t, second_b, second_h, second_t, x_b, x_h, x_t, gate_b, gate_h, gate_t, past_b, past_h, past_t,
    times_b, times_h, times_t, second_times_b, second_times_h, second_times_t, tap_b, tap_g, tap_s, skip_h, bias_h,
    H, per_group, count, shift, present, x_len, past_len,
    WIDE: tl.constexpr, K: tl.constexpr, ACTIVATION: tl.constexpr, CIRCULAR: tl.constexpr, GATED: tl.constexpr,
    PAST: tl.constexpr, TIMES: tl.constexpr, SECOND: tl.constexpr, SKIP: tl.constexpr, BIAS: tl.constexpr,
    AT_ONCE: tl.constexpr, TIME: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """y = activation(z) · times, and second = z · second_times. A program makes TIME samples of CHANNELS channels."""
    strips, spans = tl.cdiv(H, CHANNELS), tl.cdiv(count, TIME)
    program = tl.program_id(0)
    start = (program % spans).to(tl.int64) * TIME
    h = (program // spans % strips) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    b = (program // (spans * strips)).to(tl.int64)
    n = tl.arange(0, TIME)[:, None]
    at, h64, there = start + n, h.to(tl.int64), h < H
    wanted = there & (at < count)

    origin = start + shift
    low, high, past_low = _near(-origin), _near(x_len - origin), _near(-past_len - origin)
    x_p = x_ptr + b * x_b + h64 * x_h + (origin + n) * x_t
    gate_p = x_p
    past_p = x_p
    if GATED:
        gate_p = gate_ptr + b * gate_b + h64 * gate_h + (origin + n) * gate_t
    if PAST:
        past_p = past_ptr + b * past_b + h64 * past_h + (origin + past_len + n) * past_t
    tap_p = tap_ptr + b * tap_b + h64 // per_group * tap_g

    z = tl.zeros((TIME, CHANNELS), WIDE)
    for first in range(0, K, AT_ONCE):
        chain = tl.zeros((TIME, CHANNELS), WIDE)
        for j in tl.static_range(AT_ONCE):
            i = tl.full((1, 1), j, tl.int32) + first
            i64, is_tap = i.to(tl.int64), there & (i < K)
            v = _signal(x_p - i64 * x_t, gate_p - i64 * gate_t, past_p - i64 * past_t, x_t, gate_t, n, wanted & (i < K),
                        low + i, high + i, past_low + i, x_len, WIDE, CIRCULAR, GATED, PAST)  # fmt: skip
            tap = tl.load(tap_p + i64 * tap_s, mask=is_tap, other=0.0).to(WIDE)
            chain = tl.fma(tl.broadcast_to(tap, (TIME, CHANNELS)), v, chain)
        z += chain
    if SKIP:
        now = start + present
        v = _signal(x_p + (now - origin) * x_t, gate_p + (now - origin) * gate_t, past_p, x_t, gate_t, n, wanted,
                    _near(-now), _near(x_len - now), past_low, x_len, WIDE, CIRCULAR, GATED, False)  # fmt: skip
        skip = tl.load(skip_ptr + h64 * skip_h, mask=there, other=0.0).to(WIDE)
        z = tl.fma(tl.broadcast_to(skip, (TIME, CHANNELS)), v, z)
    if BIAS:
        z += tl.load(bias_ptr + h64 * bias_h, mask=there, other=0.0).to(WIDE)

    if SECOND:
        p = second_times_ptr + b * second_times_b + h64 * second_times_h + at * second_times_t
        product = z * tl.load(p, mask=wanted, other=0.0).to(WIDE)
        tl.store(second_ptr + b * second_b + h64 * second_h + at * second_t, product.to(second_ptr.dtype.element_ty), wanted)
    z = _activated(z, ACTIVATION)
    if TIMES:
        p = times_ptr + b * times_b + h64 * times_h + at * times_t
        z *= tl.load(p, mask=wanted, other=0.0).to(WIDE)
    tl.store(y_ptr + b * y_b + h64 * y_h + at * y_t, z.to(y_ptr.dtype.element_ty), wanted)


@triton.jit
def halves_added(sums, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Σ over the last axis of (ROWS, COLUMNS), neighbours first: an order that no layout of threads changes."""
    pairs = tl.reshape(sums, (ROWS, COLUMNS // 2, 2))
    even, odd = tl.split(pairs)
    return even + odd


@triton.jit(do_not_specialize=["shift", "x_len", "past_len", "spans"])
def fir_sums_kernel(
    partial_ptr, g_ptr, g_gate_ptr, x_ptr, gate_ptr, past_ptr,
    g_b, g_h, g_t, g_gate_b, g_gate_h, g_gate_t, x_b, x_h, x_t, gate_b, gate_h, gate_t, past_b, past_h, past_t,
    H, count, shift, x_len, past_len, spans,
    WIDE: tl.constexpr, K: tl.constexpr, ONES: tl.constexpr, CIRCULAR: tl.constexpr, G_GATED: tl.constexpr, GATED: tl.constexpr,
    PAST: tl.constexpr, SPAN: tl.constexpr, CHAINS: tl.constexpr, LOG_CHAINS: tl.constexpr, TAPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """partial[b, span, h, i] = Σ_j g[j] · v[j + shift - i] (of g alone, if ONES) over the samples j of a span.

    They go in CHAINS chains, sample j to chain j modulo CHAINS, and then neighbouring chains are added.
    """
    strips, blocks = tl.cdiv(H, CHANNELS), tl.cdiv(K, TAPS)
    program = tl.program_id(0)
    i = (program % blocks) * TAPS + tl.arange(0, TAPS)[:, None, None]
    h = (program // blocks % strips) * CHANNELS + tl.arange(0, CHANNELS)[None, None, :]
    span = (program // (blocks * strips) % spans).to(tl.int64)
    b = (program // (blocks * strips) // spans).to(tl.int64)
    n = tl.arange(0, CHAINS)[None, :, None]
    start, i64, h64 = span * SPAN, i.to(tl.int64), h.to(tl.int64)
    origin = start + shift
    low, high, past_low = _near(-origin) + i, _near(x_len - origin) + i, _near(-past_len - origin) + i
    g_p = g_ptr + b * g_b + h64 * g_h + (start + n) * g_t
    g_gate_p = g_p
    if G_GATED:
        g_gate_p = g_gate_ptr + b * g_gate_b + h64 * g_gate_h + (start + n) * g_gate_t
    x_p = x_ptr + b * x_b + h64 * x_h + (origin + n - i64) * x_t
    gate_p = x_p
    past_p = x_p
    if GATED:
        gate_p = gate_ptr + b * gate_b + h64 * gate_h + (origin + n - i64) * gate_t
    if PAST:
        past_p = past_ptr + b * past_b + h64 * past_h + (origin + past_len + n - i64) * past_t

    sums = tl.zeros((TAPS, CHAINS, CHANNELS), WIDE)
    for step in range(SPAN // CHAINS):
        ahead = tl.full((1, 1, 1), 0, tl.int32) + step * CHAINS
        first = ahead.to(tl.int64)
        there = (h < H) & (start + first + n < count)
        g = tl.load(g_p + first * g_t, mask=there, other=0.0).to(WIDE)
        if G_GATED:
            g *= tl.load(g_gate_p + first * g_gate_t, mask=there, other=0.0).to(WIDE)
        if ONES:
            sums += g
        else:
            v = _signal(x_p + first * x_t, gate_p + first * gate_t, past_p + first * past_t, x_t, gate_t, n + ahead,
                        there & (i < K), low, high, past_low, x_len, WIDE, CIRCULAR, GATED, PAST)  # fmt: skip
            sums = tl.fma(tl.broadcast_to(g, (TAPS, CHAINS, CHANNELS)), v, sums)

    totals = tl.reshape(tl.permute(sums, (0, 2, 1)), (TAPS * CHANNELS, CHAINS))
    for halving in tl.static_range(LOG_CHAINS):
        totals = halves_added(totals, TAPS * CHANNELS, CHAINS >> halving)
    totals = tl.reshape(totals, (TAPS, CHANNELS))
    i = (program % blocks) * TAPS + tl.arange(0, TAPS)[:, None]
    h = (program // blocks % strips) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    row = (b * spans + span) * H + h
    tl.store(partial_ptr + row * K + i, totals, (i < K) & (h < H))


@triton.jit(do_not_specialize=["H", "spans", "rows", "per_group", "total_b"])
def fir_gather_kernel(
    total_ptr, partial_ptr, total_b, total_g, total_s, H, spans, rows, per_group,
    K: tl.constexpr, CHAINS: tl.constexpr, LOG_CHAINS: tl.constexpr, ELEMENTS: tl.constexpr,
):  # fmt: skip
    """total[b, g, i] += Σ partial over the `rows` of (samples of the batch, spans, channels of a group), summed in float64.

    Row r goes to chain r modulo CHAINS, and then neighbouring chains are added. With one filter for each sample of the batch
    a row of programs takes one sample each.
    """
    groups = H // per_group
    blocks = tl.cdiv(groups * K, ELEMENTS)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    e = (tl.program_id(0) % blocks) * ELEMENTS + tl.arange(0, ELEMENTS)
    g, i = e // K, e % K
    there = e < groups * K
    chain = tl.arange(0, CHAINS)[None, :]
    sums = tl.zeros((ELEMENTS, CHAINS), tl.float64)
    for first in range(0, rows, CHAINS):
        r = first + chain
        h = g[:, None] * per_group + r % per_group
        at = ((b * spans + r // per_group) * H + h) * K + i[:, None]
        sums += tl.load(partial_ptr + at, mask=there[:, None] & (r < rows), other=0.0).to(tl.float64)
    for halving in tl.static_range(LOG_CHAINS):
        sums = halves_added(sums, ELEMENTS, CHAINS >> halving)
    p = total_ptr + b * total_b + g * total_g + i * total_s
    old = tl.load(p, mask=there, other=0.0).to(tl.float64)
    tl.store(p, (old + tl.reshape(sums, (ELEMENTS,))).to(total_ptr.dtype.element_ty), there)
