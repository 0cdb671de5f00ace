"""Every configuration of a kernel that is compiled ahead of time, as data: what `configurations.shipped` lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from longwave.backends.triton import fused, split
from longwave.backends.triton.configurations import (
    CHANNELS,
    ENERGY_SPAN,
    OPERANDS,
    SPAN,
    TILE,
    Configuration,
    constants,
    outer_constants,
)
from longwave.backends.triton.launch_table import Key, launch
from longwave.backends.triton.shapes import INNER, NEXT, WIDEST, WINDOWS, Shape, used
from longwave.backends.triton.words import Filters, Outer, Place, Results, Rows, Signal, Tables, View

# Types stand where a launch has values.
_POINTER: dict[torch.dtype, Any] = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}
I32: Any = "i32"
I64: Any = "i64"
_PLACE = Place(I32, I32, I32, I32, I32, I32)
# Rows of a batch, and those of a split transform.
_ROWS, _PARTS = Rows(I32, I32, I32, 0, 0, 1, 1), Rows(I32, I32, 1, I32, I32, 1, I32)


def _view(dtype: torch.dtype) -> Any:
    """Of a tensor whose samples are neighbours."""
    return View(_POINTER[dtype], I64, I64, 1)


def _tables(shape: Shape, dtype: torch.dtype) -> Tables:
    return Tables(*[_POINTER[dtype]] * (12 if shape.N3 > 1 else 8))


def _outer(dtype: torch.dtype) -> Outer:
    return Outer(*[_POINTER[dtype]] * 4, *["*fp32"] * 4)


def _filters(dtype: torch.dtype) -> Filters:
    return Filters(_POINTER[dtype], None if dtype == torch.float32 else "*fp32", 1, 0, 0)


def _power(dtype: torch.dtype) -> str | None:
    """Powers of two of split rows."""
    return "*fp32" if dtype == torch.float16 else None


def _configuration(name: str, kernel: Any, arguments: tuple[Any, ...], constexprs: dict[str, Any], key: Key) -> Configuration:
    """Of arguments by their types, in the kernel's order, numbers and None where they are known when it is compiled."""
    found: dict[Any, Any] = dict(constexprs)

    def signature(value: Any, path: tuple[int, ...]) -> Any:
        if isinstance(value, tuple):
            parts = [signature(part, (*path, i)) for i, part in enumerate(value)]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        if isinstance(value, str):
            return value
        found[path] = value
        return "constexpr"

    types = {n: signature(value, (i,)) for i, (n, value) in enumerate(zip(kernel.arg_names, arguments, strict=False))}
    types |= dict.fromkeys(constexprs, "constexpr")
    return Configuration(name, kernel, types, found, launch(key))


def shipped() -> Iterator[Configuration]:
    """The most common first."""
    for kind in OPERANDS:
        wide = kind == torch.float32
        name = _POINTER[kind][1:]
        for shape in used(wide):
            yield _convolve(f"fused {shape} {name}", kind, shape)
            yield _convolve(f"fused {shape} {name} gated", kind, shape, gated=True)
            yield _correlate(f"filter gradient {shape} {name}", kind, shape, False)
        for shape in WINDOWS[wide]:
            yield _convolve(f"windows {shape} {name}", kind, shape, upper=True)
        for shape in used(wide, 2):  # `full`, and a history
            if shape not in WINDOWS[wide]:
                yield _convolve(f"fused {shape} {name} of both planes", kind, shape, upper=True)
            yield _convolve(f"fused {shape} {name} of both planes, gated", kind, shape, gated=True, upper=True)
            yield _correlate(f"filter gradient of both planes {shape} {name}", kind, shape, False, upper=True)
        for shape in INNER[wide]:
            yield _convolve(f"split rows {shape} {name}", kind, shape, split_rows=True)
            yield _correlate(f"filter gradient of split rows {shape} {name}", kind, shape, True)
        yield from _outers(kind)
        if not wide:
            yield from (_in_l2(f"fused_l2 {bins}·{INNER[wide][0]} {name}", kind, bins, INNER[wide][0]) for bins in (16, 32))
    for shape in dict.fromkeys((*used(False), *used(True), *used(False, 2), *INNER[False], *INNER[True])):
        yield from _filter_transforms(shape)
    x = Signal(_view(torch.float16))
    adding = {"SPAN": ENERGY_SPAN, "TILE": TILE, "LOG_TILE": TILE.bit_length() - 1}
    numbers = _PARTS._replace(parts=1)
    yield _configuration("row_energies", split.row_energies, (x, _PLACE, "*i32", numbers, "i32"), adding, Key("row_energies"))
    sizes = ("*i32", "*fp32", "*fp32", "i32", "i32")
    yield _configuration(
        "row_powers_of_energies", split.row_powers_of_energies, sizes, {"TILE": TILE}, Key("row_powers_of_energies")
    )
    rounding = ("*fp32", "*fp16", "*fp32", "i32", "fp32")
    yield _configuration("round_spectra", fused.round_spectra, rounding, {"TILE": TILE}, Key("round_spectra"))
    products = ("*fp32", "*fp64", "i32", "i32", "i32", "i32", "i32")
    yield _configuration("add_products", fused.add_products, products, {"TILE": TILE}, Key("add_products"))
    of_spans = (x, "i32", x, "i32", "i32", "*fp32", "i32", "i32")
    constexprs = {"SPAN": SPAN, "TILE": TILE}
    yield _configuration("skip_gradient", fused.skip_gradient, of_spans, constexprs, Key("skip_gradient"))
    sums = ("*fp32", "*fp32", "i32", "i32", "i32")
    yield _configuration("add_up", fused.add_up, sums, {"TILE": CHANNELS}, Key("add_up"))


def _convolve(
    name: str, kind: torch.dtype, shape: Shape, *, gated: bool = False, upper: bool = False, split_rows: bool = False
) -> Configuration:
    x, z = _view(kind), _POINTER[kind]
    signal, results = Signal(x, x if gated else None), Results(x, *([x] if gated else []))
    if gated:
        results = results._replace(skip="*fp32", step=1, shift=I32)
    arguments: tuple[Any, ...] = (signal, _PLACE, results, _PLACE, None, None, _filters(kind), _tables(shape, kind), _ROWS)
    if split_rows:
        arguments = (None, _PLACE, None, _PLACE, z, z, _filters(kind), _tables(shape, kind), _PARTS)
    both = upper or split_rows
    flags = {"UPPER_IN": both, "UPPER_OUT": both, "CONJ": False, "SWAPPED": False}
    key = Key.of("convolve_split" if split_rows else "convolve", kind, shape, 2 if upper else 1, gated)
    return _configuration(name, fused.convolve, arguments, {**constants(shape, kind), **flags}, key)


def _in_l2(name: str, kind: torch.dtype, bins: int, shape: Shape) -> Configuration:
    x, z = _view(kind), _POINTER[kind]
    arguments = (
        Signal(x), _PLACE, _power(kind), Results(x), _PLACE, _power(kind), z, z, _filters(kind), _outer(kind),
        _tables(shape, kind), _PARTS._replace(parts=1), _PARTS, I32, I32,
    )  # fmt: skip
    flags = {"UPPER_IN": False, "UPPER_OUT": False, "CONJ": False}
    constexprs = outer_constants(bins, kind) | constants(shape, kind) | flags
    return _configuration(name, split.convolve_in_l2, arguments, constexprs, Key.of("convolve_in_l2", kind, shape))


def _correlate(name: str, kind: torch.dtype, shape: Shape, split_rows: bool, upper: bool = False) -> Configuration:
    signal, z = Signal(_view(kind)), _POINTER[kind]
    first: tuple[Any, ...]
    first, second = ((None, _PLACE, z),) * 2 if split_rows else ((signal, _PLACE, None),) * 2
    back = _power(kind) if split_rows else None
    arguments = (*first, back, *second, back, "*fp32", _tables(shape, kind), _PARTS if split_rows else _ROWS, "i32", "i32")
    both = upper or split_rows
    flags = {"UPPER": both, "UPPER_OTHER": both, "MORE": False}
    key = Key.of("correlate_split" if split_rows else "correlate", kind, shape)
    return _configuration(name, fused.correlate, arguments, {**constants(shape, kind), **flags}, key)


def _outers(kind: torch.dtype) -> Iterator[Configuration]:
    x, z, table = _view(kind), _POINTER[kind], _outer(kind)
    numbers = (_PARTS._replace(parts=1), "i32", "i32", "i32")
    for length in (16, *NEXT):
        flags = outer_constants(length, kind) | {"UPPER": False}
        forward, backward = (Key.of(kernel, kind, length) for kernel in ("outer_forward", "outer_backward"))
        arguments: tuple[Any, ...] = (Signal(x), _PLACE, _power(kind), None, z, table, *numbers)
        yield _configuration(f"outer {length} {z[1:]}", split.outer_forward, arguments, flags, forward)
        arguments = (z, None, Signal(x), _PLACE, Results(x), _PLACE, _power(kind), _filters(kind), table, *numbers)
        yield _configuration(f"outer {length} {z[1:]} back", split.outer_backward, arguments, flags, backward)
    flags = outer_constants(WIDEST, kind) | {"UPPER": True}
    forward, backward = (Key.of(kernel, kind, WIDEST) for kernel in ("outer_forward", "outer_backward"))
    arguments = (None, _PLACE, None, z, z, table, *numbers)
    yield _configuration(f"outer {WIDEST} {z[1:]} of a part", split.outer_forward, arguments, flags, forward)
    arguments = (z, z, None, _PLACE, None, _PLACE, None, Filters(None, None, 1, 0), table, *numbers)
    yield _configuration(f"outer {WIDEST} {z[1:]} of a part, back", split.outer_backward, arguments, flags, backward)


def _filter_transforms(shape: Shape) -> Iterator[Configuration]:
    kind = torch.float32
    k, table = Signal(View("*fp32", 0, I64, 1)), _tables(shape, kind)
    flags = constants(shape, kind) | {"UPPER": False}
    arguments: tuple[Any, ...] = (k, _PLACE, None, Filters("*fp32", None, 1, 0, 0), table, _ROWS)
    yield _configuration(f"spectra {shape}", fused.analyse, arguments, flags, Key.of("analyse", kind, shape))
    arguments = ("*fp64", Results(_view(kind)), _PLACE, None, table, _ROWS)
    yield _configuration(f"filters from spectra {shape}", fused.synthesise, arguments, flags, Key.of("synthesise", kind, shape))
