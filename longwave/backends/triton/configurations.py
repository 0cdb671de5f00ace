"""What kernels are told beside their tensors, what a GPU run has passed, and what is compiled ahead of time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch

from longwave.backends.triton.launch_table import Launch
from longwave.backends.triton.shapes import BLOCK, Shape

# Regimes that the whole operator suite has passed on a GPU: {regime: "device, date, command"}. `auto` uses no others.
PASSED: dict[str, str] = {}
# Samples whose products of spectra one program adds up for a filter's gradient: a part of the arithmetic.
CHAIN = 16
# Samples of a row that one program adds up for the gradient of D (a part of the arithmetic), and numbers it takes at a time.
SPAN, TILE = 2**16, 1024
# Channels whose gradients of D one program adds up.
CHANNELS = 64
# Programs of `fused_l2`: two for each of the multiprocessors of the largest part.
L2_PROGRAMS = 264
# Samples of a split row of float16 whose squares one program adds up.
ENERGY_SPAN = 2**14
# How float32 is multiplied: three products of TF32, as exact as float32. 16-bit operands ignore it.
PRECISION = "tf32x3"


OPERANDS = (torch.float16, torch.bfloat16, torch.float32)


def columns(operand: torch.dtype) -> int:
    """Columns of a tile of an outer DFT."""
    return 32 if operand == torch.float32 else 64


def outer_constants(length: int, operand: torch.dtype) -> dict[str, Any]:
    """The constexpr arguments of an outer DFT."""
    return {
        "LENGTH": length,
        "COLUMNS": columns(operand),
        "K": 16 if length <= 16 else 32 if length <= 32 else 64,
        "DT": triton_dtype(operand),
        "PRECISION": PRECISION,
    }


def constants(shape: Shape, operand: torch.dtype) -> dict[str, Any]:
    """The constexpr arguments that say what a transform is."""
    return {
        "P": BLOCK,
        "BLOCKS": shape.blocks,
        "R": shape.rows,
        "N2": shape.N2,
        "N3": shape.N3,
        "DT": triton_dtype(operand),
        "PRECISION": PRECISION,
    }


def triton_dtype(dtype: torch.dtype) -> Any:
    import triton.language as tl

    return {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}[dtype]


@dataclass(frozen=True, eq=False)
class Configuration:
    """What `triton.compile(ASTSource(kernel, signature, constexprs), options=…)` takes to compile a kernel ahead of time."""

    name: str
    kernel: Any
    signature: dict[str, Any]
    constexprs: dict[Any, Any]
    launch: Launch
    options: dict[str, Any] = field(default_factory=lambda: {"enable_fp_fusion": True})


def shipped() -> list[Configuration]:
    """All that are compiled ahead of time, the most common first: transforms and direct sums in turns."""
    from longwave.backends.triton import fir_configurations, shipped

    pairs = itertools.zip_longest(shipped.shipped(), fir_configurations.shipped())
    return [one for pair in pairs for one in pair if one is not None]
