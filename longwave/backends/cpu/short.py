"""`short_conv` as direct sums: from its tensors to the programs of `fir_kernels`, and back to results."""

from __future__ import annotations

from array import array
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from longwave.backends.cpu import fir_kernels as kernels
from longwave.backends.cpu import fir_program as program
from longwave.backends.cpu import pages, threads
from longwave.backends.cpu.fir_program import Program
from longwave.backends.cpu.functions import GELU, NO_ACTIVATION, SILU
from longwave.backends.cpu.simd import vector_bytes
from longwave.problem import ShortCall

DOUBLE, SINGLE = np.float64(1), np.float32(1)
ACTIVATIONS = {None: NO_ACTIVATION, "silu": SILU, "gelu": GELU}
# Samples of a row that are summed while a first-level cache holds them, and the ones that a unit of a filter's gradient has.
CHUNK, SPAN = 1024, 4096
# Channels of a strip where neighbours in memory are channels: two lines of a cache in float32.
STRIP = 32
# Nanoseconds a unit, and a sample of the arithmetic with so many taps, on one thread: for `threads`.
NS_UNIT, NS_SAMPLE, NS_TAP, NS_ACTIVATION = 300.0, 0.6, 0.04, 1.5


class Shape(NamedTuple):
    """What a program's header depends on."""

    batch: int
    channels: int
    length: int
    taps: int
    past: int
    activation: str | None
    side_by_side: bool  # whether neighbours in memory are channels
    itemsize: int  # of the arithmetic type


class Header(NamedTuple):
    """The words that no address is in, and what `threads` is told."""

    words: array[int]
    units: int
    spans: int
    seconds: float
    scratch_bytes: int


@lru_cache(maxsize=1024)
def _header(s: Shape, gradient: bool) -> Header:
    first = -s.past if gradient else 0
    length = s.length - first
    span = SPAN if gradient else CHUNK
    spans = -(-length // span)
    strip = min(STRIP if s.side_by_side else max(1, 512 // length), s.channels)
    strips = -(-s.channels // strip)
    reach = min(CHUNK, length) + _reach(s, gradient)
    row, table = kernels.row_bytes(reach, s.itemsize), kernels.row_bytes(s.taps, s.itemsize)
    words = program.header(
        s.channels, 0, s.taps, 1, 1, ACTIVATIONS[s.activation], -s.past, 0, 0, -s.past, s.length, 0, s.length, first, s.length,
        CHUNK, span, spans, strip, row, table, 0, kernels.partial_row(s.taps), s.batch, s.channels, 0,
    )  # fmt: skip
    units = s.batch * strips * spans
    work = NS_SAMPLE + NS_TAP * s.taps * s.itemsize / vector_bytes() * 8 + NS_ACTIVATION * (s.activation is not None)
    seconds = 1e-9 * (units * NS_UNIT + s.batch * s.channels * length * work * (3 if gradient else 1))
    return Header(words, units, spans, seconds, strip * (table + 3 * row))


def _reach(s: Shape, gradient: bool) -> int:
    """How far a row of scratch memory reaches beyond a chunk: into its past, and for gradients its future."""
    return (2 * s.taps if gradient else s.taps) + kernels.SUM_LANES


def forward(call: ShortCall) -> Tensor:
    header = _header(_shape(call), False)
    y = _empty(call.x)
    block = _program(header, call)
    _signals(block, call, (program.Y, y))
    threads.run(kernels.forward, block.address, _like(call.x), header.units, header.seconds, header.scratch_bytes)
    return y


def backward(needs: tuple[bool, ...], dy: Tensor, call: ShortCall) -> list[Tensor]:
    need_x, need_w, need_bias, need_state = needs
    shape = _shape(call)
    header = _header(shape, True)
    dx = _empty(call.x) if need_x else None
    dw = _empty(call.w) if need_w else None
    dbias = _empty(call.bias) if need_bias and call.bias is not None else None
    dstate = _empty(call.state) if need_state and call.state is not None else None
    block = _program(header, call)
    _signals(block, call, (program.DY, dy), (program.DU, dx), (program.DPAST, dstate))
    like = _like(call.x)
    partials = None
    if dw is not None or dbias is not None:
        partials = torch.empty(shape.batch * shape.channels * header.spans * kernels.partial_row(shape.taps), dtype=torch.uint8)
        block.words[program.PARTIALS] = partials.data_ptr()
        if dw is not None:
            block.view(program.DTAPS, dw, 0, shape.taps, 1)
        if dbias is not None:
            block.view(program.DBIAS, dbias, 0, 1, 0)
    threads.run(kernels.backward, block.address, like, header.units, header.seconds, header.scratch_bytes)
    if partials is not None:
        threads.run(kernels.gather, block.address, like, shape.channels, 0.3e-9 * partials.numel(), 8 * shape.taps)
    return [grad for grad in (dx, dw, dbias, dstate) if grad is not None]


def _shape(call: ShortCall) -> Shape:
    x, w, _, state, activation, channels_last = call
    first, second = x.shape[-2:]
    length, channels = (first, second) if channels_last else (second, first)
    strides = x.stride()
    time, channel = (strides[-2], strides[-1]) if channels_last else (strides[-1], strides[-2])
    past = 0 if state is None else w.shape[1] - 1
    itemsize = 8 if x.dtype == torch.float64 else 4
    batch = x.shape[0] if x.dim() == 3 else 1
    side_by_side = channels_last or channel == 1 != time
    return Shape(batch, channels, length, w.shape[1], past, activation, side_by_side, itemsize)


def _program(header: Header, call: ShortCall) -> Program:
    block = Program(header.words)
    _signals(block, call, (program.U, call.x), (program.PAST, call.state))
    w, bias = call.w, call.bias
    block.view(program.TAPS, w, 0, w.stride(0), w.stride(1))
    if bias is not None:
        block.view(program.BIAS, bias, 0, bias.stride(0), 0)
    return block


def _signals(block: Program, call: ShortCall, *signals: tuple[int, Tensor | None]) -> None:
    for which, x in signals:
        if x is not None and x.numel():
            *b, h, t = x.stride()
            if call.channels_last:
                h, t = t, h
            block.view(which, x, b[0] if b else 0, h, t)


def _like(x: Tensor) -> Any:
    return DOUBLE if x.dtype == torch.float64 else SINGLE


def _empty(like: Tensor) -> Tensor:
    return pages.with_large_pages(torch.empty(like.shape, dtype=like.dtype))
