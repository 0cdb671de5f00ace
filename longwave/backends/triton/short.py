"""`short_conv` as direct sums: from its tensors to the kernels of `fir_kernels`, and back to results."""

from __future__ import annotations

import torch
from torch import Tensor

from longwave import dtypes
from longwave.backends.triton import fir_kernels as kernels
from longwave.backends.triton.fir_launch import Signal, Taps, add_sums, convolve
from longwave.problem import ShortCall

ACTIVATIONS = {None: kernels.LINEAR, "silu": kernels.SILU, "gelu": kernels.GELU}
SLOPES = {"silu": kernels.SILU_SLOPE, "gelu": kernels.GELU_SLOPE}


def forward(call: ShortCall) -> Tensor:
    y = torch.empty(call.x.shape, dtype=call.x.dtype, device=call.x.device)
    activation = ACTIVATIONS[call.activation]
    convolve(_as_BHL(y, call), _signal(call), _taps(call.w), shift=0, activation=activation, bias=call.bias)
    return y


def backward(needs: tuple[bool, ...], dy: Tensor, call: ShortCall) -> list[Tensor]:
    need_x, need_w, need_bias, need_state = needs
    x, w, bias, state, activation, _ = call
    g = _as_BHL(dy, call)
    taps = _taps(w)
    if activation is not None:  # times the activation's slope, in the arithmetic type: it is used several times
        g = _as_BHL(torch.empty(x.shape, dtype=dtypes.arithmetic(x.dtype), device=x.device), call)
        convolve(g, _signal(call), taps, shift=0, activation=SLOPES[activation], times=_as_BHL(dy, call), bias=bias)
    grads: list[Tensor] = []
    if need_x:
        grads.append(torch.empty(x.shape, dtype=x.dtype, device=x.device))
        convolve(_as_BHL(grads[-1], call), Signal(g), taps.turned(), shift=taps.number - 1)
    if need_w:
        dw = torch.zeros(w.shape, dtype=dtypes.arithmetic(x.dtype), device=w.device)
        add_sums(_taps(dw), g, None, _signal(call))
        grads.append(dw.to(w.dtype))
    if need_bias and bias is not None:
        dbias = torch.zeros((*bias.shape, 1), dtype=dtypes.arithmetic(x.dtype), device=bias.device)
        add_sums(Taps(dbias), g, None, None)
        grads.append(dbias.squeeze(1).to(bias.dtype))
    if need_state and state is not None:
        grads.append(torch.empty(state.shape, dtype=state.dtype, device=state.device))
        if state.numel():  # the results that a sample before x reaches begin with the first one of x
            convolve(_as_BHL(grads[-1], call), Signal(g), taps.turned(), shift=0)
    return grads


def _signal(call: ShortCall) -> Signal:
    state = call.state
    return Signal(_as_BHL(call.x, call), past=None if state is None or not state.numel() else _as_BHL(state, call))


def _taps(w: Tensor) -> Taps:
    """The last tap weighs the present sample."""
    return Taps(w, falling=True)


def _as_BHL(x: Tensor, call: ShortCall) -> Tensor:
    x = x.transpose(-2, -1) if call.channels_last else x
    return x if x.dim() == 3 else x.unsqueeze(0)
