"""Where the tests of operators run: on the CPU, or on the device of `pytest --device`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor

from longwave import backends
from longwave.bench.contestants import runnable_backends

DEVICE = "cpu"


def backends_here() -> list[str]:
    """Every backend that can run on this machine, and take tensors of the device: the tests of values run on each."""
    if DEVICE == "cpu":
        return [name for name, reason in backends.available().items() if reason is None]
    return runnable_backends(device=DEVICE)


def choose(device: str) -> None:
    """Raises UsageError where PyTorch has no such device."""
    global DEVICE
    if device != "cpu" and not torch.cuda.is_available():
        raise pytest.UsageError(f"--device {device} is not on this machine; run the tests without it")
    if device != "cpu":  # the tests' memory is filled by what demands it of cuBLAS
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    DEVICE = device


def here(x: Tensor) -> Tensor:
    """A tensor made on the CPU, on the device of the tests: what `torch.ones(3)` is to a test of an operator."""
    return x.to(DEVICE)


def randn(*shape: Any, requires_grad: bool = False, **options: Any) -> Tensor:
    """As `torch.randn`, a leaf on the device of the tests; the same numbers on every device."""
    return here(torch.randn(*shape, **options)).requires_grad_(requires_grad)


def ones(*shape: Any, **options: Any) -> Tensor:
    return here(torch.ones(*shape, **options))


def on_the_cpu(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A reference that takes tensors of any device, computes on the CPU and brings its result to the device of the tests."""

    @wraps(reference)
    def called(*given: Any, **named: Any) -> Tensor:
        return here(reference(*map(_home, given), **{name: _home(x) for name, x in named.items()}))

    return called


def _home(x: Any) -> Any:
    return x.cpu() if isinstance(x, Tensor) else x
