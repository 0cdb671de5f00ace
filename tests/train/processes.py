"""Gloo processes that train together: one spawn runs a check on every rank, and says where it failed."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from longwave.models import hyena
from longwave.train import job, loop, options
from longwave.train.interrupt import InterruptGuard
from longwave.train.pulse import Pulse
from longwave.train.task import Batch, Batches, chance
from longwave.train.world import Sizes, World

MICRO = hyena.HyenaConfig(d_model=8, layers=2, filter_length=1024, d_inner=16, filter_width=8)
STEPS = 50


def _asked(genome: str, **more: Any) -> dict[str, Any]:
    fixed = {"preset": "micro", "context": 1024, "batch": 2, "steps": STEPS, "eval_every": 25, "eval_bases": 1500}
    return {**fixed, "lr": 1e-3, "fasta": genome, "device": "cpu", "autocast": "off", "checkpoint_every": 25, **more}


def trained(
    world: World, genome: str, out: Path, *, resume: bool = False, until: int = STEPS, offload: bool = False, **more: Any
) -> loop.Outcome:
    """A run in float64 in `out`; it is stopped after `until` steps."""
    hyena.PRESETS["micro"] = MICRO
    chosen = options.resolve("dna", _asked(genome, **more))
    world = world.meet(torch.device("cpu"))
    made = job.make_job(chosen, job.opened(chosen), torch.device("cpu"), world)
    made = dataclasses.replace(made, model=world.sharded(made.model.double()), references=[chance(4)], offload=offload)
    if world.leads:
        out.mkdir(exist_ok=True)
    world.any(False)  # until the folder is there
    with InterruptGuard() as guard:
        guard.requested = False

        def batches(step: int, rows: slice, given: Batches = made.batches) -> Batch:
            guard.requested = step + 1 == until and world.rank == world.size - 1  # the last one alone is told to stop
            return given(step, rows)

        return loop.train(dataclasses.replace(made, batches=batches), chosen, out, resume=resume, guard=guard)


def run(
    count: int, folder: Path, check: Callable[..., None], *given: Any, timeout_s: float = 1_800, stopped: int | None = None
) -> None:
    """`check(rank, folder, *given)` in so many processes, whose collectives give up after `timeout_s`; the one that is
    `stopped` is killed when the others have ended."""
    context = torch.multiprocessing.get_context("spawn")
    shared = count, str(folder), check, given, timeout_s
    processes = [context.Process(target=_work, args=(rank, *shared)) for rank in range(count)]
    for process in processes:
        process.start()
    for rank, process in enumerate(processes):
        if rank != stopped:
            process.join()
    if stopped is not None:
        processes[stopped].kill()
        processes[stopped].join()
    reports = [folder / f"said-{rank}" for rank in range(count)]
    (folder / "meeting").unlink(missing_ok=True)
    assert not any(process.exitcode for process in processes), "\n".join(r.read_text() for r in reports if r.exists())


def world_of(rank: int, *sizes: int, timeout_s: float | None = None) -> World:
    """Of these processes."""
    timeout = None if timeout_s is None else datetime.timedelta(seconds=timeout_s)
    return World(Sizes(*sizes), rank, _pulse(rank), timeout)


@functools.cache
def _pulse(rank: int) -> Pulse:
    """One a process: it counts how often they have met."""
    return Pulse(dist.distributed_c10d._get_default_store(), rank, dist.get_world_size())


def _work(rank: int, count: int, folder: str, check: Callable[..., None], given: Sequence[Any], timeout_s: float) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/meeting", count)
    timeout = datetime.timedelta(seconds=timeout_s)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=timeout)
    try:
        check(rank, Path(folder), *given)
        said = ""
    except BaseException:  # pytest's own failures among them
        said = f"rank {rank} of {count}:\n{traceback.format_exc()}"
    Path(folder, f"said-{rank}").write_text(said)
    os._exit(bool(said))
