"""From tensors to the kernels of the direct sums: which tile, which pointers and strides, how many programs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longwave import dtypes
from longwave.backends.triton import fir_kernels as kernels
from longwave.backends.triton import launch_table
from longwave.backends.triton.fir_plan import CHAINS, power, span_of
from longwave.backends.triton.launch_table import Key, on

# Samples of a tile of the result, and of those that lie side by side in memory where neighbours are channels.
TILE, CHANNELS_SIDE_BY_SIDE = 512, 64
# Taps that are unrolled, and one chain of fma.
MOST_AT_ONCE = 8
# Sums of a tile of a filter's gradient.
TILE_OF_SUMS = 2048
GATHER_CHAINS, GATHER_ELEMENTS = 32, 32
# The arithmetic type.
WIDE = {torch.float32: kernels.FLOAT32, torch.float64: kernels.FLOAT64}
# Products are rounded where the kernels round them: fma is written where it is meant.
FUSION = False


class Signal(NamedTuple):
    """What is convolved, on tensors (B, H, ·) of any strides: x[n] · gate[n] for 0 <= n < length, before it the past."""

    x: Tensor
    gate: Tensor | None = None
    past: Tensor | None = None
    circular: bool = False

    @property
    def length(self) -> int:
        return self.x.shape[2]


class Taps(NamedTuple):
    """Filters (G, K) or (B, G, K), and whether they are stored with their lags falling."""

    k: Tensor
    falling: bool = False

    @property
    def number(self) -> int:
        return self.k.shape[-1]

    @property
    def groups(self) -> int:
        return self.k.shape[-2]

    def strided(self) -> tuple[Tensor, int, int, int]:
        """A view of the tap with the smallest lag of each filter, and the strides of batch, filters and taps."""
        *b, g, s = self.k.stride()
        first, step = (self.number - 1, -s) if self.falling else (0, s)
        return self.k[..., first:], b[0] if b else 0, g, step

    def turned(self) -> Taps:
        """The filters of the transposed convolution."""
        return Taps(self.k, not self.falling)


def convolve(
    y: Tensor,
    signal: Signal,
    taps: Taps,
    *,
    shift: int,
    present: int = 0,
    activation: Any = kernels.LINEAR,
    times: Tensor | None = None,
    second: tuple[Tensor, Tensor] | None = None,
    skip: Tensor | None = None,
    bias: Tensor | None = None,
) -> None:
    """Write y (B, H, count), and `second`: a result, and what z is multiplied by there. The kernel says what they are."""
    B, H, count = y.shape
    time, channels = tile(H, count, side_by_side(signal.x))
    k, *tap_strides = taps.strided()
    into, by = second or (None, None)
    past = signal.past
    programs = B * -(-H // channels) * -(-count // time)
    with on(y.device):
        launch_table.start(
            kernels.fir_kernel, (programs,), key("fir", signal.x.dtype, taps.number), y.device,
            y, into, signal.x, signal.gate, past, times, by, k, skip, bias,
            *_strides(y, into, signal.x, signal.gate, past, times, by), *tap_strides, _step(skip), _step(bias),
            H, H // taps.groups, count, shift % signal.length if signal.circular else shift, present, signal.length,
            0 if past is None else past.shape[2],
            WIDE=WIDE[dtypes.arithmetic(signal.x.dtype)],
            K=taps.number, ACTIVATION=activation, CIRCULAR=signal.circular, GATED=signal.gate is not None,
            PAST=past is not None, TIMES=times is not None, SECOND=second is not None, SKIP=skip is not None,
            BIAS=bias is not None, AT_ONCE=at_once(taps.number), TIME=time, CHANNELS=channels, fusion=FUSION,
        )  # fmt: skip


def add_sums(
    total: Taps,
    g: Tensor,
    gate: Tensor | None,
    signal: Signal | None,
    *,
    shift: int = 0,
) -> None:
    """total[…, i] += Σ_j g[j] · gate[j] · v[j + shift - i], over a filter's channels and (if it has none of its own) samples;
    without a signal the sum of g. `total` has the arithmetic type."""
    B, H, count = g.shape
    K = total.number
    span = span_of(count)
    spans = -(-count // span)
    channels, block = sums_tile(K, side_by_side(g), H)
    partial = torch.empty((B, spans, H, K), dtype=total.k.dtype, device=g.device)
    x, x_gate, past = (g, None, None) if signal is None else signal[:3]
    circular = signal is not None and signal.circular
    programs = B * spans * -(-H // channels) * -(-K // block)
    to, b, group, step = total.strided()
    per_sample = total.k.dim() == 3
    each = H // total.groups
    with on(g.device):
        launch_table.start(
            kernels.fir_sums_kernel, (programs,), key("fir_sums", g.dtype, K), g.device,
            partial, g, gate, x, x_gate, past, *_strides(g, gate, x, x_gate, past),
            H, count, shift % x.shape[2] if circular else shift, x.shape[2], 0 if past is None else past.shape[2], spans,
            WIDE=WIDE[total.k.dtype],
            K=K, ONES=signal is None, CIRCULAR=circular, G_GATED=gate is not None, GATED=x_gate is not None,
            PAST=past is not None, SPAN=span, CHAINS=CHAINS, LOG_CHAINS=CHAINS.bit_length() - 1, TAPS=block,
            CHANNELS=channels, fusion=FUSION,
        )  # fmt: skip
        gathered = ((B if per_sample else 1) * -(-(total.groups * K) // GATHER_ELEMENTS),)
        launch_table.start(
            kernels.fir_gather_kernel, gathered, Key.of("fir_gather", total.k.dtype), g.device,
            to, partial, b, group, step, H, spans, (1 if per_sample else B) * spans * each, each,
            K=K, CHAINS=GATHER_CHAINS, LOG_CHAINS=GATHER_CHAINS.bit_length() - 1, ELEMENTS=GATHER_ELEMENTS,
            fusion=FUSION,
        )  # fmt: skip


def key(kernel: str, dtype: torch.dtype, K: int) -> Key:
    """Of a kernel with K taps, by the power of two that they are within."""
    return Key.of(kernel, dtype, power(K))


def side_by_side(x: Tensor) -> bool:
    """Whether neighbours in memory are channels."""
    return x.stride(1) == 1 != x.stride(2)


@lru_cache(maxsize=256)
def tile(H: int, count: int, channels_first: bool) -> tuple[int, int]:
    """Samples and channels of a tile of the result: no matter to its bits."""
    if channels_first:
        channels = min(CHANNELS_SIDE_BY_SIDE, power(H))
        return min(TILE // channels, power(count)), channels
    time = min(TILE, power(count))
    return time, min(TILE // time, power(H))


@lru_cache(maxsize=256)
def sums_tile(K: int, channels_first: bool, H: int) -> tuple[int, int]:
    """Channels and taps of a tile of a filter's gradient: no matter to its bits."""
    channels = min(8, power(H)) if channels_first else 1
    return channels, min(power(K), TILE_OF_SUMS // (CHAINS * channels))


def at_once(K: int) -> int:
    """Taps of a chain: as even parts of all as there are."""
    return -(-K // -(-K // MOST_AT_ONCE))


def _strides(*tensors: Tensor | None) -> Sequence[int]:
    return [stride for x in tensors for stride in ((0, 0, 0) if x is None else x.stride())]


def _step(x: Tensor | None) -> int:
    return 0 if x is None else x.stride(0)
