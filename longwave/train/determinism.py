"""The same bits from the same seed, on a GPU too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def same_bits(device: torch.device) -> Iterator[None]:
    """Have PyTorch choose deterministic kernels while the context lasts; on a CPU they are so anyway."""
    if device.type == "cpu":
        yield
        return
    # cuBLAS reads this once, at its first call in the process; without it PyTorch calls its products not deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # what it has is made at run time
    fills = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Who reads nothing but what was written needs no memory filled before.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fills
