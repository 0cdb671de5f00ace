"""The kernels of the direct sums as they are launched for what is common, to be compiled ahead of time."""

from __future__ import annotations

from typing import Any

import torch

from longwave import dtypes
from longwave.backends.triton import fir_kernels as kernels
from longwave.backends.triton import fir_launch
from longwave.backends.triton.configurations import Configuration
from longwave.backends.triton.fir_plan import CHAINS, SPAN
from longwave.backends.triton.launch_table import Key, launch

# The switch that brings a tensor into a kernel: without it there is none.
OPTIONAL = {
    "gate": "GATED", "past": "PAST", "times": "TIMES", "second": "SECOND", "second_times": "SECOND", "skip": "SKIP",
    "bias": "BIAS", "g_gate": "G_GATED",
}  # fmt: skip
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}
# What has the arithmetic type whatever the signal has.
ARITHMETIC = ("tap", "skip", "bias", "partial", "total")
SWITCHES = dict.fromkeys(("CIRCULAR", "GATED", "PAST", "TIMES", "SECOND", "SKIP", "BIAS", "ONES", "G_GATED"), False)


def shipped() -> list[Configuration]:
    every = {"GATED": True, "PAST": True, "TIMES": True, "SECOND": True, "SKIP": True}
    return [
        _results("short_conv K=4 BHL", "fp16", 4, BIAS=True, ACTIVATION=kernels.SILU),
        _results("short_conv K=4 BLH", "bf16", 4, channels_first=True, BIAS=True, ACTIVATION=kernels.SILU),
        _results("direct K=64 all options", "fp32", 64, **every),
        _sums("short_conv dw K=4 BLH", "bf16", 4, channels_first=True),
        _sums("direct dk K=64 gated", "fp16", 64, GATED=True, G_GATED=True, PAST=True),
        _gather("short_conv dw K=4, added up", 4),
        _results("short_conv K=256 BLH", "fp16", 256, channels_first=True, PAST=True, ACTIVATION=kernels.GELU),
        _results("short_conv K=4 BHL, slope", "fp16", 4, TIMES=True, BIAS=True, ACTIVATION=kernels.GELU_SLOPE),
        _results("direct K=16 BLH, gated", "bf16", 16, channels_first=True, GATED=True, TIMES=True, SKIP=True),
        _results("direct K=64 circular", "fp16", 64, CIRCULAR=True),
        _sums("direct dk K=64 circular", "fp16", 64, CIRCULAR=True),
        _sums("short_conv dw K=256", "fp32", 256),
        _sums("short_conv dbias", "fp16", 1, ONES=True),
        _results("short_conv K=4 fp64", "fp64", 4, BIAS=True, ACTIVATION=kernels.SILU),
        _sums("short_conv dw K=4 fp64", "fp64", 4),
        _gather("short_conv dw K=4 fp64, added up", 4, "fp64"),
    ]


def _results(name: str, dtype: str, K: int, channels_first: bool = False, **options: Any) -> Configuration:
    time, channels = fir_launch.tile(1 << 20, 1 << 20, channels_first)
    wide = fir_launch.WIDE[dtypes.arithmetic(DTYPES[dtype])]
    constants = {"ACTIVATION": kernels.LINEAR, **options, "WIDE": wide, "K": K, "AT_ONCE": fir_launch.at_once(K)}
    constants |= {"TIME": time, "CHANNELS": channels}
    key = fir_launch.key("fir", DTYPES[dtype], K)
    return _configuration(name, kernels.fir_kernel, key, dtype, channels_first, constants)


def _sums(name: str, dtype: str, K: int, channels_first: bool = False, **options: Any) -> Configuration:
    channels, taps = fir_launch.sums_tile(K, channels_first, 1 << 20)
    chains = {"SPAN": SPAN, "CHAINS": CHAINS, "LOG_CHAINS": CHAINS.bit_length() - 1}
    wide = fir_launch.WIDE[dtypes.arithmetic(DTYPES[dtype])]
    constants = {**options, **chains, "WIDE": wide, "K": K, "TAPS": taps, "CHANNELS": channels}
    key = fir_launch.key("fir_sums", DTYPES[dtype], K)
    return _configuration(name, kernels.fir_sums_kernel, key, dtype, channels_first, constants)


def _gather(name: str, K: int, dtype: str = "fp32") -> Configuration:
    chains = {"CHAINS": fir_launch.GATHER_CHAINS, "LOG_CHAINS": fir_launch.GATHER_CHAINS.bit_length() - 1}
    constants = {**chains, "K": K, "ELEMENTS": fir_launch.GATHER_ELEMENTS}
    key = Key.of("fir_gather", DTYPES[dtype])
    return _configuration(name, kernels.fir_gather_kernel, key, dtype, False, constants)


def _configuration(
    name: str, kernel: Any, key: Key, dtype: str, channels_first: bool, options: dict[str, Any]
) -> Configuration:
    """With contiguous tensors of many rows, which a launch specialises for: strides of 1, and (marked so) multiples of 16."""
    arguments: list[str] = kernel.arg_names
    constants = {name: value for name, value in (SWITCHES | options).items() if name in arguments}
    signature: dict[str, str] = {}
    wide = "fp64" if dtype == "fp64" else "fp32"
    beside = "h" if channels_first else "t"
    for argument in arguments:
        if argument in constants:
            continue
        tensor, _, what = argument.rpartition("_")
        if not constants.get(OPTIONAL.get(tensor, ""), True):
            constants[argument] = None if what == "ptr" else 0
        elif what == "ptr":
            signature[argument] = (f"*{wide}" if tensor in ARITHMETIC else f"*{dtype}") + ":16"
        elif what == beside and tensor not in ARITHMETIC:
            constants[argument] = 1
        else:
            signature[argument] = "i32:16" if argument in ("H", "count") or what in ("b", "h", "t") else "i32"
    return Configuration(name, kernel, signature, constants, launch(key), {"enable_fp_fusion": fir_launch.FUSION})
