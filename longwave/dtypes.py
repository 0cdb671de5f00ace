"""Dtypes: which signals are taken, in what precision they are computed, and conversions that complex numbers need."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

SIGNAL_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.complex128)


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """16-bit signals are convolved in float32 and rounded once, at the store."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def filter_arithmetic(signal: torch.dtype, tap: torch.dtype) -> torch.dtype:
    """The signal's arithmetic precision, real where the taps are real."""
    wide = arithmetic(signal)
    return wide if tap.is_complex or not wide.is_complex else wide.to_real()


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def names(dtypes: Iterable[torch.dtype]) -> str:
    return " or ".join(name(dtype) for dtype in dict.fromkeys(dtypes))


def named(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def conj(x: Tensor) -> Tensor:
    """The conjugate, written out. A lazy one (`Tensor.conj`) is forgotten inside a registered operator under
    `torch.compile`: the Conjugate dispatch key is excluded there (seen in torch 2.13)."""
    return x.conj_physical() if x.is_complex() else x


def resolved(x: Tensor) -> Tensor:
    """x with its pending conjugation and negation carried out: `conj` says why. Itself where none is pending."""
    return x.resolve_conj().resolve_neg()


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in `dtype`; the gradient of a real argument is the real part."""
    return (x.real if x.is_complex() and not dtype.is_complex else x).to(dtype)
