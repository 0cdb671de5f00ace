"""Who else is measured on a GPU: other formulas in PyTorch, cuDNN and FlashFFTConv where they are installed, and attention of
the same width for scale.

The gates and D of a rival that has none are PyTorch's products around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave.bench.cases import BACKWARD, Case
from longwave.bench.contestants import FLOOR, Call, Results, Rival, by_formula, under_autograd
from longwave.bench.formula import Arrays, Transform, transform_length
from longwave.errors import UnsupportedError

# Heads of 64 numbers, as is common; beyond this length one call takes minutes.
HEAD, LONGEST_ATTENTION = 64, 65_536

COMPLEX = Transform(
    rfft=lambda x, n, axis: torch.fft.fft(x, n, dim=axis),
    irfft=lambda x, n, axis: torch.fft.ifft(x, n, dim=axis).real,
)


def _cached_spectrum() -> Callable[[Case, Arrays], Call]:
    """For a filter that stays as it is: its spectrum is made before the clock starts."""

    def bind(case: Case, x: Arrays) -> Call:
        _only(case, "BHL", gradients=False)
        n = transform_length(case)
        K_f = torch.fft.rfft(x.k, n)

        def conv(v: Tensor, _: Tensor) -> Tensor:
            return torch.fft.irfft(torch.fft.rfft(v, n) * K_f, n)[..., : case.out_length]

        return under_autograd(case, x, _with_gates(conv, wide=True))

    return bind


def _cudnn() -> Callable[[Case, Arrays], Call]:
    """docs.nvidia.com/deeplearning/cudnn/latest/operations/FFTCausalConv1d.html: causal, taps of the signal's dtype."""

    def bind(case: Case, x: Arrays) -> Call:
        _only(case, "BHL", causal=True)
        import cudnn

        def conv(v: Tensor, k: Tensor) -> Tensor:
            y: Tensor = cudnn.ops.fft_causal_conv1d(v, k.to(v.dtype))
            return y

        return under_autograd(case, x, _with_gates(conv))

    return bind


def _flash_fft_conv() -> Callable[[Case, Arrays], Call]:
    """github.com/HazyResearch/flash-fft-conv: a transform of 2L, a power of two; 16-bit signals, float32 taps, both gates."""

    def bind(case: Case, x: Arrays) -> Call:
        _only(case, "BHL", causal=True)
        if case.L & (case.L - 1) or case.K > case.L or case.dtype == "float32":
            raise UnsupportedError("it takes powers of two, taps up to them, and 16-bit signals")
        from flashfftconv import FlashFFTConv

        module = FlashFFTConv(2 * case.L, dtype=getattr(torch, case.dtype)).to(x.u.device)

        def conv(u: Tensor, k: Tensor, D: Tensor | None, pregate: Tensor | None, postgate: Tensor | None) -> Tensor:
            if pregate is None and postgate is None:
                y = module(u, k)
                return y if D is None else (y + D[:, None] * u).to(u.dtype)
            if D is not None:
                return _with_gates(module)(u, k, D, pregate, postgate)
            gated: Tensor = module(u, k, pregate, postgate)
            return gated

        return under_autograd(case, x, conv)

    return bind


def _attention() -> Callable[[Case, Arrays], Call]:
    def bind(case: Case, x: Arrays) -> Call:
        if case.L > LONGEST_ATTENTION or case.dtype == "float64" or case.layout != "BHL":
            raise UnsupportedError(f"attention is measured up to {LONGEST_ATTENTION:,} samples")
        size = HEAD if case.H % HEAD == 0 else case.H
        heads = x.u.detach().view(case.B, case.H // size, size, case.L).transpose(2, 3).contiguous()
        queries, keys, values = (heads.clone().requires_grad_(case.direction == BACKWARD) for _ in range(3))

        def call() -> Results:
            y = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
            if case.direction == BACKWARD:
                torch.autograd.grad(y, (queries, keys, values), heads)
            return {}

        return call

    return bind


def _with_gates(conv: Callable[[Tensor, Tensor], Tensor], wide: bool = False) -> Callable[..., Tensor]:
    """The whole operator around a convolution; `wide`: in float32, rounded once."""

    def whole(u: Tensor, k: Tensor, D: Tensor | None, pregate: Tensor | None, postgate: Tensor | None) -> Tensor:
        v = u.float() if wide else u
        v = v if pregate is None else v * pregate
        z = conv(v, k)
        if D is not None:
            z = z + D[:, None] * v
        return (z if postgate is None else z * postgate).to(u.dtype)

    return whole


def _only(case: Case, layout: str, *, causal: bool = False, gradients: bool = True) -> None:
    what: dict[str, Any] = {
        f"layout {layout}": case.layout == layout,
        "causal convolutions": case.mode == "causal" or not causal,
        "forwards: a filter that is kept has no gradient": gradients or case.direction != BACKWARD,
    }
    for word, fits in what.items():
        if not fits:
            raise UnsupportedError(f"it takes only {word}")


# Rivals that multiply 16-bit operands are held to what the GPU engine is held to.
GPU_RIVALS = (
    Rival("torch.fft c2c", "torch", lambda: by_formula(COMPLEX), ("cuda",)),
    Rival("torch.fft, cached filter", "torch", _cached_spectrum, ("cuda",)),
    Rival("cuDNN", "cudnn", _cudnn, ("cuda",), backend="triton", install="it comes with nvidia-cudnn-frontend, for cuDNN 9.26"),
    Rival(
        "FlashFFTConv", "flashfftconv", _flash_fft_conv, ("cuda",), backend="triton",
        install="build github.com/HazyResearch/flash-fft-conv",
    ),
    Rival("attention", "torch", _attention, ("cuda",), kind=FLOOR),
)  # fmt: skip
