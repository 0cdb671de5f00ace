"""What lies below the vectors of `lanes`: their width, the types of samples, and what Numba cannot say (addresses, C calls)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

CACHE_LINE = 64  # bytes

I64, I32, I16, I8 = ir.IntType(64), ir.IntType(32), ir.IntType(16), ir.IntType(8)
# Names of CPUs, for NUMBA_CPU_NAME: with 512-bit vectors, and the others that have AVX2, FMA and conversions of float16.
WIDE_CPUS = (
    "avx512",
    "skx",
    "icelake",
    "cascadelake",
    "cooperlake",
    "sapphirerapids",
    "graniterapids",
    "tigerlake",
    "znver4",
    "znver5",
)
NARROW_CPUS = ("x86-64-v3", "haswell", "broadwell", "skylake", "alderlake", "raptorlake", "arrowlake", "znver")

# How samples are stored, as the codes that kernels compare at run time: (LLVM type, bytes).
FLOAT64, FLOAT32, BFLOAT16, FLOAT16 = range(4)
STORED = {FLOAT64: (ir.DoubleType(), 8), FLOAT32: (ir.FloatType(), 4), BFLOAT16: (I16, 2), FLOAT16: (ir.HalfType(), 2)}
STORED_BYTES = tuple(size for _, size in STORED.values())
# The stored types that each arithmetic type reads and writes.
CODES = {FLOAT32: (FLOAT32, BFLOAT16, FLOAT16), FLOAT64: (FLOAT64, FLOAT32)}


def _chosen_cpu() -> str | None:
    """The CPU that NUMBA_CPU_NAME asks to compile for, if it is not this one."""
    settings: Any = numba.config
    name: str | None = settings.CPU_NAME
    return None if name == binding.get_host_cpu_name() else name


@lru_cache(maxsize=1)
def vector_bytes() -> int:
    """Bytes of the widest vector of the CPU that Numba compiles for: 64, 32 or 16."""
    name = _chosen_cpu()
    if name:
        wide = any(part in name for part in WIDE_CPUS)
        return 64 if wide else 32 if any(part in name for part in NARROW_CPUS) else 16
    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


def lacks() -> str | None:
    """What is missing here, in a sentence: without these parts LLVM would call functions that are not there, and abort."""
    settings: Any = numba.config
    if settings.DISABLE_JIT:
        return "Numba is told not to compile, by NUMBA_DISABLE_JIT"
    if "x86" not in binding.get_process_triple():
        return None
    name, features = _chosen_cpu(), binding.get_host_cpu_features()
    able = all(features.get(part) for part in ("avx2", "fma", "f16c"))
    if name:
        able = any(part in name for part in WIDE_CPUS + NARROW_CPUS)
    return None if able else f"it needs a CPU with AVX2, FMA and F16C, and Numba compiles for {name or 'one without'}"


def arithmetic_code(arithmetic: types.Float) -> int:
    return FLOAT64 if arithmetic == types.float64 else FLOAT32


def _any(function: Any) -> Any:
    """What Numba's decorators return, to a type checker: the compiled function takes other arguments than the Python one."""
    return function


def with_arguments(definition: Any, *names: str) -> None:
    """Say the names of an intrinsic's arguments: Numba matches them by the signature."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    definition.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in ("typingctx", *names)])


@_any
@intrinsic
def peek(typingctx: Any, at: Any) -> Any:
    """The 64-bit integer at an address."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:
        return builder.load(builder.inttoptr(values[0], I64.as_pointer()))

    return types.int64(types.int64), codegen


@_any
@intrinsic
def poke(typingctx: Any, at: Any, value: Any) -> Any:
    """Write a 64-bit integer at an address."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:
        builder.store(values[1], builder.inttoptr(values[0], I64.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@_any
@intrinsic
def lanes_of(typingctx: Any, like: Any) -> Any:
    """The number of lanes of the arithmetic type of `like`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:
        return ir.Constant(I64, vector_bytes() // STORED_BYTES[arithmetic_code(signature.args[0])])

    return types.int64(like), codegen


def _foreign(result: Any, count: int) -> Any:
    """A Numba function (address, and so many arguments) that calls the C function at an address."""

    def call(typingctx: Any, address: Any, *arguments: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> ir.Value:
            returned = ir.VoidType() if result == types.void else context.get_value_type(result)
            kind = ir.FunctionType(returned, [value.type for value in values[1:]])
            got = builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
            return context.get_dummy_value() if result == types.void else got

        return result(address, *arguments), codegen

    with_arguments(call, "address", *(f"argument{i}" for i in range(count)))
    return intrinsic(call)


call_nothing = _foreign(types.void, 0)
call_int = _foreign(types.int32, 0)
call_bool = _foreign(types.boolean, 2)
call_with_4 = _foreign(types.void, 5)  # integers, and a number of the arithmetic type
call_with_6 = _foreign(types.void, 7)
call_with_8 = _foreign(types.void, 9)
