"""That an interpreted kernel touches the memory of its tensors alone: what compute-sanitizer sees to on a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch


class Bounded:
    """Triton's functions of memory, which raise where an address is outside of the tensors that the kernel was given."""

    def __init__(self, functions: Any) -> None:
        self.functions = functions
        self.starts = self.ends = np.zeros(0, dtype=np.uint64)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.functions, name)

    def give(self, arguments: Iterable[Any]) -> None:
        storages = {x.data_ptr(): x for x in (tensor.untyped_storage() for tensor in _tensors(arguments))}
        spans = np.array([(start, start + storages[start].nbytes()) for start in sorted(storages)], dtype=np.uint64)
        self.starts, self.ends = spans.reshape(-1, 2).T

    def load(self, pointers: Any, mask: Any, other: Any, dtype: Any) -> Any:
        self._check(pointers, mask, np.dtype(dtype).itemsize, "read from")
        return self.functions.load(pointers, mask, other, dtype)

    def store(self, pointers: Any, values: Any, mask: Any) -> Any:
        self._check(pointers, mask, values.dtype.itemsize, "written to")
        return self.functions.store(pointers, values, mask)

    def _check(self, pointers: Any, mask: Any, size: int, what: str) -> None:
        wanted = pointers[np.broadcast_to(mask, pointers.shape).astype(bool)].astype(np.uint64)
        tensor = np.searchsorted(self.starts, wanted, side="right").astype(np.int64) - 1
        inside = (tensor >= 0) & (wanted + np.uint64(size) <= self.ends[tensor])
        assert inside.all(), f"{np.count_nonzero(~inside)} of {wanted.size} addresses that are {what} are no tensor's"


def _tensors(arguments: Iterable[Any]) -> Iterator[torch.Tensor]:
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            yield argument
        elif isinstance(argument, tuple):
            yield from _tensors(argument)
