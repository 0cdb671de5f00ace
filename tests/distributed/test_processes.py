"""Processes that measure together: what the first one gives, and an end where one of them fails."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest
import torch
import torch.distributed as dist

from longwave.distributed.processes import run_processes
from longwave.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo is tested on Linux")


def _sum(rank: int, store: dist.Store, more: int) -> int:
    total = torch.tensor(rank + more)
    dist.all_reduce(total)
    return int(total) if rank == 0 else -1


def _fails(rank: int, store: Any) -> None:
    if rank == 1:
        raise ValueError("the second one cannot go on")
    store.wait(["what nobody sets"])


def test_the_first_process_gives_the_result() -> None:
    assert run_processes(2, _sum, 10) == 21


def test_a_process_that_fails_ends_the_others() -> None:
    began = time.monotonic()
    with pytest.raises(DataError, match=r"on 2 processes ended early \(ValueError: the second one cannot go on\)"):
        run_processes(2, _fails)
    assert time.monotonic() - began < 120
