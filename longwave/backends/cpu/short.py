"""`short_conv` as direct sums: from its tensors to the programs of `fir_kernels`, and back to results."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from longwave.backends.cpu import fir_kernels as kernels
from longwave.backends.cpu import fir_program as program
from longwave.backends.cpu import pages, threads
from longwave.backends.cpu.fir_program import Header, Program, Sums
from longwave.backends.cpu.functions import GELU, NO_ACTIVATION, SILU
from longwave.problem import ShortCall

DOUBLE, SINGLE = np.float64(1), np.float32(1)
ACTIVATIONS = {None: NO_ACTIVATION, "silu": SILU, "gelu": GELU}


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


@lru_cache(maxsize=1024)
def _header(s: Shape, gradient: bool, workers: int) -> Header:
    return program.header(
        Sums(
            batch=s.batch,
            channels=s.channels,
            low=0,
            taps=s.taps,
            falling=True,
            groups=s.channels,
            per_sample=False,
            past_start=-s.past,
            u_start=0,
            out_start=0,
            in_first=-s.past,
            in_last=s.length,
            out_first=0,
            out_last=s.length,
            itemsize=s.itemsize,
            side_by_side=s.side_by_side,
            activation=ACTIVATIONS[s.activation],
        ),
        gradient,
        workers,
    )


def forward(call: ShortCall) -> Tensor:
    header = _header(_shape(call), False, threads.width())
    y = _empty(call.x)
    block = _program(header, call)
    _signals(block, call, (program.Y, y))
    threads.run(kernels.forward, block.address, _like(call.x), header.units, header.seconds, header.scratch_bytes)
    return y


def backward(needs: tuple[bool, ...], dy: Tensor, call: ShortCall) -> list[Tensor]:
    need_x, need_w, need_bias, need_state = needs
    shape = _shape(call)
    header = _header(shape, True, threads.width())
    dx = _empty(call.x) if need_x else None
    dw = _empty(call.w) if need_w else None
    dbias = _empty(call.bias) if need_bias and call.bias is not None else None
    dstate = _empty(call.state) if need_state and call.state is not None else None
    block = _program(header, call)
    _signals(block, call, (program.DY, dy), (program.DU, dx), (program.DPAST, dstate))
    like = _like(call.x)
    partials = None
    if dw is not None or dbias is not None:
        partials = torch.empty(header.partials_bytes, dtype=torch.uint8, device="cpu")
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
    return pages.with_large_pages(torch.empty(like.shape, dtype=like.dtype, device="cpu"))
