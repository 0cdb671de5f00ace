"""Training steps on several gloo processes of one machine, however the work is dealt out: time and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from longwave.bench.memory import give_large_blocks_back, peak_extra_bytes
from longwave.distributed.processes import run_processes
from longwave.errors import DataError
from longwave.train import job, loop, options
from longwave.train.optim import make_optimizer
from longwave.train.options import Options
from longwave.train.pulse import Pulse
from longwave.train.world import Sizes, World

SCHEMA = "longwave-step-ranks/1"
MESHES = {
    1: (Sizes(1, 1, 1),),
    2: (Sizes(2, 1, 1), Sizes(1, 2, 1), Sizes(1, 1, 2)),
    4: (Sizes(4, 1, 1), Sizes(1, 4, 1), Sizes(1, 1, 4), Sizes(2, 1, 2)),
}
# Of the loss of the first step in float32, against that of one process.
WITHIN = 1e-5


@dataclass(frozen=True)
class RankSteps:
    """A mesh: median milliseconds of a step, of the slowest rank; the most memory that a rank's step holds beyond its
    parameters and their moments; those, on a rank; the loss of the first step in bits."""

    dp: int
    fsdp: int
    cp: int
    ms: float
    step_bytes: int
    kept_bytes: int
    bits: float

    @property
    def line(self) -> str:
        return (
            f"{self.dp} x {self.fsdp} x {self.cp}  {self.ms:10.1f} ms a step  {self.step_bytes / 2**20:8.1f} MiB in it  "
            f"{self.kept_bytes / 2**20:8.2f} MiB of parameters and moments  loss {self.bits:.6f}"
        )


def asked(preset: str, context: int, batch: int) -> Options:
    """The run whose steps are measured: DNA of the package."""
    given = {"preset": preset, "context": context, "batch": batch, "steps": 1_000, "device": "cpu", "autocast": "off"}
    return options.resolve("dna", given)


def measure(chosen: Options, rounds: int) -> Iterator[RankSteps]:
    """Every mesh whose readers divide the batch, one thread a process.

    Raises DataError where a first loss is not that of one process, or a process ended early: nothing wrong is timed.
    """
    truth: float | None = None
    for count, meshes in MESHES.items():
        fitting = [sizes for sizes in meshes if chosen.batch % (sizes.dp * sizes.fsdp) == 0]
        timed, held = (run_processes(count, _every, chosen, fitting, *given) for given in ((rounds, False), (1, True)))
        for row, other in zip(timed, held, strict=True):
            truth = row.bits if truth is None else truth
            if abs(row.bits - truth) > WITHIN * truth:
                raise DataError(f"the first loss on {row.dp} x {row.fsdp} x {row.cp} ranks is {row.bits}, and of one {truth}")
            yield replace(row, step_bytes=other.step_bytes)


def _every(rank: int, store: dist.Store, chosen: Options, meshes: list[Sizes], rounds: int, memory: bool) -> list[RankSteps]:
    """Every mesh, in processes that are timed, or in such whose memory counts."""
    if memory:
        give_large_blocks_back()
    pulse = Pulse(store, rank, dist.get_world_size())
    return [_measured(World(sizes, rank, pulse), chosen, rounds) for sizes in meshes]


def _measured(world: World, chosen: Options, rounds: int) -> RankSteps:
    device = torch.device("cpu")
    world = world.meet(device)
    made = job.make_job(chosen, job.opened(chosen), device, world)
    model = world.sharded(made.model)
    optimizer = make_optimizer(model, lr=chosen.lr, weight_decay=chosen.weight_decay)
    first: dict[str, float] = {}
    times = []

    def step(number: int) -> dict[str, float]:
        return loop.update(
            made, optimizer, 1e-5, chosen.clip, number, world.span(made.batches(number, world.rows(chosen.batch)))
        )

    for number in range(rounds + 1):
        dist.barrier()
        began = time.perf_counter()
        values = step(number)
        first = first or values
        times.append(time.perf_counter() - began)
    held = peak_extra_bytes(lambda: step(rounds + 1)) or 0
    kept = sum(_bytes(x) for x in model.parameters())
    kept += sum(_bytes(x) for state in optimizer.state.values() for x in state.values() if isinstance(x, torch.Tensor))
    most = torch.tensor([1_000 * statistics.median(times[1:]), held, kept], dtype=torch.float64)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return RankSteps(*world.sizes, most[0].item(), int(most[1]), int(most[2]), first["bits_per_base"])


def _bytes(x: Any) -> int:
    """Of what this process holds of it."""
    local: torch.Tensor = x.to_local() if hasattr(x, "to_local") else x
    return local.nbytes
