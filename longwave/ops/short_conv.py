"""`short_conv`: the short depthwise convolution that stands before the long one in Hyena, H3 and Mamba."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave import dtypes
from longwave.errors import ArgumentError
from longwave.ops.transforms import without_autocast
from longwave.problem import LAYOUTS, check_tensor

MAX_TAPS = 256
REAL_DTYPES = tuple(dtype for dtype in dtypes.SIGNAL_DTYPES if not dtype.is_complex)
ACTIVATIONS = {None: lambda y: y, "silu": F.silu, "gelu": F.gelu}


def short_conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    layout: str = "BHL",
    state: Tensor | None = None,
) -> Tensor:
    """Convolve every channel of `x` with its own short causal filter, and apply an activation.

        y[t] = activation(Σ_{j=0..K-1} w[K-1-j] · x[t-j] + bias)

    Args:
        x: (B, H, L), or (B, L, H) with `layout="BLH"`, either without B; any strides. float64, float32, bfloat16, float16.
        w: (H, K), float32 or x's dtype, 1 <= K <= 256, in the order of `torch.nn.Conv1d`: `w[:, -1]` weighs the present
            sample.
        bias: (H,), float32 or x's dtype.
        activation: None, "silu" or "gelu" (the exact one).
        layout: "BHL" or "BLH", of x, state and result.
        state: (B, H, K-1) in x's layout, x's dtype: the samples before x; zeros without it.

    Returns:
        x's shape and dtype, contiguous in `layout`. 16-bit input is computed in float32 and rounded once; autocast changes
        nothing.

    Raises:
        ArgumentError: a wrong shape, dtype, device or value.

    Equivalent to:
        activation(F.conv1d(x, w[:, None], bias, padding=K - 1, groups=H)[..., :L])

    Source: the depthwise convolutions of Poli et al. 2023, arXiv 2302.10866, section 3.
    """
    _check(x, w, bias, activation, layout, state)
    wide = dtypes.arithmetic(x.dtype)
    K = w.shape[1]
    signal = x.transpose(-2, -1) if layout == "BLH" else x
    if state is None:
        signal = F.pad(signal.to(wide), (K - 1, 0))
    else:
        before = state.transpose(-2, -1) if layout == "BLH" else state
        signal = torch.cat([before.to(wide), signal.to(wide)], dim=-1)
    with without_autocast(x.device):
        y = F.conv1d(signal, w.to(wide).unsqueeze(1), None if bias is None else bias.to(wide), groups=w.shape[0])
        y = ACTIVATIONS[activation](y).to(x.dtype)
    return y.transpose(-2, -1).contiguous() if layout == "BLH" else y.contiguous()


def _check(x: Tensor, w: Tensor, bias: Tensor | None, activation: str | None, layout: str, state: Tensor | None) -> None:
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise ArgumentError(f"layout={layout!r} is unknown; choose one of {', '.join(map(repr, LAYOUTS))}")
    if not isinstance(activation, str | None) or activation not in ACTIVATIONS:
        raise ArgumentError(f"activation={activation!r} is unknown; choose one of {', '.join(map(repr, ACTIVATIONS))}")
    check_tensor("x", x, x, REAL_DTYPES, beside="x")
    for name, tensor in (("w", w), ("bias", bias), ("state", state)):
        if tensor is not None or name == "w":
            check_tensor(name, tensor, x, (x.dtype,) if name == "state" else (torch.float32, x.dtype), beside="x")
    if x.dim() not in (2, 3) or 0 in x.shape:
        raise ArgumentError(f"x has shape {tuple(x.shape)}; give (B, H, L), or (B, L, H) with layout='BLH', none of them 0")
    H = x.shape[-2] if layout == "BHL" else x.shape[-1]
    if w.dim() != 2 or w.shape[0] != H or not 1 <= w.shape[1] <= MAX_TAPS:
        raise ArgumentError(
            f"w has shape {tuple(w.shape)}; with {H} channels it must be ({H}, K) with K from 1 to {MAX_TAPS}; longer "
            "filters go to longwave.long_conv"
        )
    if bias is not None and bias.shape != (H,):
        raise ArgumentError(f"bias has shape {tuple(bias.shape)}; give one value a channel, shape ({H},)")
    if state is not None:
        lead, before = x.shape[:-2], w.shape[1] - 1
        shape = (*lead, H, before) if layout == "BHL" else (*lead, before, H)
        if state.shape != shape:
            raise ArgumentError(f"state has shape {tuple(state.shape)}; it holds the K-1 samples before x, shape {shape}")
