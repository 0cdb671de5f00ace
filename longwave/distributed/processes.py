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
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

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
    with tempfile.TemporaryDirectory() as folder:
        try:  # which ends the others with the first that fails: they would wait for it
            torch.multiprocessing.spawn(_work, (count, folder, work, given), count)
        except (ProcessRaisedException, ProcessExitedException) as error:
            reason = str(error).strip().splitlines()[-1]
            raise DataError(
                f"a measurement on {count} processes ended early ({reason}); mend that and measure again"
            ) from error
        return torch.load(Path(folder) / "result", weights_only=False)


def _work(rank: int, count: int, folder: str, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "meeting"), count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
    found = work(rank, store, *given)
    if rank == 0:
        torch.save(found, Path(folder) / "result")
    dist.barrier()
    dist.destroy_process_group()
