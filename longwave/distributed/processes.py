"""Gloo processes of this machine that measure together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from longwave.errors import DataError


def run_processes(count: int, work: Callable[..., Any], *given: Any) -> Any:
    """What `work(rank, store, *given)` gives on rank 0 of `count` processes with one thread each, which all call it.

    Args:
        count: at least 1.
        work: a function of a module, which can be imported by its name. `store` is that of the process group, which stands.
        given: what can be pickled.

    Raises:
        DataError: a process ended early.
    """
    context = torch.multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=_work, args=(rank, count, folder, work, given)) for rank in range(count)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        result = Path(folder) / "result"
        if not result.exists() or any(process.exitcode for process in processes):
            raise DataError(f"a measurement on {count} processes ended early; see what they said")
        return torch.load(result, weights_only=False)


def _work(rank: int, count: int, folder: str, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "meeting"), count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
    found = work(rank, store, *given)
    if rank == 0:
        torch.save(found, Path(folder) / "result")
    dist.barrier()
    dist.destroy_process_group()
