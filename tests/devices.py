"""Where the tests of operators run: on the CPU, or on the device of `pytest --device`."""

from __future__ import annotations

import os

import pytest
import torch

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
