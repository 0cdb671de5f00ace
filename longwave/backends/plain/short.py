"""`short_conv` in PyTorch's own operators: differentiable to any order, on every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave import dtypes
from longwave.problem import ShortCall


class Activation(NamedTuple):
    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]  # of the gradient and the argument


def _silu_backward(g: Tensor, y: Tensor) -> Tensor:
    """As an expression: PyTorch's own operator has no derivative."""
    s = y.sigmoid()
    return g * (s * (1 + y * (1 - s)))


ACTIVATIONS = {
    None: Activation(lambda y: y, lambda g, y: g),
    "silu": Activation(F.silu, _silu_backward),
    "gelu": Activation(F.gelu, torch.ops.aten.gelu_backward),
}


def short_forward(call: ShortCall) -> Tensor:
    return short_activated(short_sums(call), call)


def short_sums(call: ShortCall) -> Tensor:
    """What the activation is to be taken of, in arithmetic precision and x's layout."""
    signal, taps, bias = _operands(call)
    return _turned(_sums(signal, taps, bias), call)


def short_activated(sums: Tensor, call: ShortCall) -> Tensor:
    return ACTIVATIONS[call.activation].forward(sums).to(call.x.dtype).contiguous()


def short_backward(needs: tuple[bool, ...], dy: Tensor, call: ShortCall) -> list[Tensor]:
    """An expression that can itself be differentiated."""
    signal, taps, bias = _operands(call)
    K = call.w.shape[1]
    g = _turned(dy, call).to(signal.dtype)
    batched = g.dim() == 3
    signal, g = (signal, g) if batched else (signal.unsqueeze(0), g.unsqueeze(0))
    if call.activation is not None:
        y = _sums(signal, taps, bias)
        # What nobody looks at, as the sums across two documents, has no gradient, even where it is no number.
        y = torch.where((g == 0) & ~y.isfinite(), 0, y)
        g = ACTIVATIONS[call.activation].backward(g, y)
    need_x, need_w, need_bias, need_state = needs
    wanted = [need_x or need_state, need_w, need_bias]
    d_signal, d_taps, d_bias = _gradients(g, signal, taps, wanted)
    grads: list[Tensor | None] = [None, d_taps.squeeze(1) if need_w else None, d_bias, None]
    if need_x or need_state:
        d_signal = d_signal if batched else d_signal.squeeze(0)
        grads[0] = _turned(d_signal.narrow(-1, K - 1, d_signal.shape[-1] - K + 1), call)
        grads[3] = _turned(d_signal.narrow(-1, 0, K - 1), call)
    pairs = zip(grads, call.tensors, needs, strict=True)
    return [grad.to(t.dtype).contiguous() for grad, t, need in pairs if need and grad is not None and t is not None]


def _sums(signal: Tensor, taps: Tensor, bias: Tensor | None) -> Tensor:
    if not _rounds(signal, taps):
        return F.conv1d(signal, taps, bias, groups=taps.shape[0])
    return F.conv1d(_twice(signal), _twice(taps, 0), None if bias is None else _twice(bias, 0), groups=2).narrow(-2, 0, 1)


def _gradients(g: Tensor, signal: Tensor, taps: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """Of the signal (B, H, ·), the taps (H, 1, K) and the bias, where they are wanted."""
    alone = _rounds(signal, taps)
    if alone:  # only the first of two equal channels is looked at
        g, signal, taps = F.pad(g, (0, 0, 0, 1)), _twice(signal), _twice(taps, 0)
    H = taps.shape[0]
    found = torch.ops.aten.convolution_backward(g, signal, taps, [H], [1], [0], [1], False, [0], H, wanted)
    if not alone:
        return found
    first = (grad.narrow(dim, 0, 1) if want else grad for grad, dim, want in zip(found, (1, 0, 0), wanted, strict=True))
    d_signal, d_taps, d_bias = first
    return d_signal, d_taps, d_bias


def _rounds(signal: Tensor, taps: Tensor) -> bool:
    """Whether cuDNN may take it, which rounds float32 to TF32 unless it is told not to for the whole process: a single channel
    is no depthwise convolution to PyTorch, which has a kernel of its own for those."""
    return signal.is_cuda and signal.dtype == torch.float32 and taps.shape[0] == 1


def _twice(x: Tensor, dim: int = -2) -> Tensor:
    return torch.cat([x, x], dim=dim)


def _operands(call: ShortCall) -> tuple[Tensor, Tensor, Tensor | None]:
    """What precedes x and x, the taps and the bias, as `F.conv1d` takes them, in arithmetic precision."""
    wide = dtypes.arithmetic(call.x.dtype)
    signal = _turned(call.x, call).to(wide)
    if call.state is None:
        signal = F.pad(signal, (call.w.shape[1] - 1, 0))
    else:
        signal = torch.cat([_turned(call.state, call).to(wide), signal], dim=-1)
    return signal, call.w.to(wide).unsqueeze(1), None if call.bias is None else call.bias.to(wide)


def _turned(x: Tensor, call: ShortCall) -> Tensor:
    return x.transpose(-2, -1) if call.channels_last else x
