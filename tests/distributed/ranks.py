"""Processes that compute together: one spawn runs many checks, and says which of them failed.

With `pytest --device cuda` they meet on NCCL and take a GPU each; who needs more than there are is skipped.
"""

from __future__ import annotations

import datetime
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import devices
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from arguments import Case, arguments, floating, held_to_truth, result_gradient
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import longwave
from longwave.distributed import context_parallel_conv
from longwave.errors import LongwaveError, UnsupportedError

# A check runs on every rank; what it raises there is a failure of its name.
Check = tuple[str, Callable[..., None], tuple[Any, ...]]


def run(world: int, checks: Sequence[Check], folder: Path, *, timeout_s: float = 120, lost: Sequence[int] = ()) -> None:
    """Run checks on `world` processes, of which those `lost` need not come to an end; raises AssertionError with what failed on
    which rank."""
    if devices.DEVICE != "cpu" and torch.cuda.device_count() < world:
        pytest.skip(f"{world} ranks take as many GPUs, and this machine has {torch.cuda.device_count()}")
    context = torch.multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_work, args=(rank, world, list(checks), str(folder), timeout_s, devices.DEVICE))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    reports = [folder / f"rank-{rank}" for rank in range(world)]
    missing = [rank for rank, report in enumerate(reports) if rank not in lost and not report.exists()]
    assert not missing, f"ranks {missing} ended early"
    failures = [report.read_text() for report in reports if report.exists()]
    assert not any(failures), "\n".join(failures)


def _work(rank: int, world: int, checks: list[Check], folder: str, timeout_s: float, device: str) -> None:
    torch.set_num_threads(1)
    devices.choose(device)
    if device != "cpu":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=timeout_s),
    )  # fmt: skip
    mesh = init_device_mesh(device, (world,), mesh_dim_names=("cp",))
    failed = []
    for name, check, given in checks:
        try:
            check(mesh["cp"], *given)
        except BaseException:  # pytest's own failures among them
            failed.append(f"{name} on rank {rank} of {world}:\n{traceback.format_exc()}")
            break  # the others may be somewhere else by now
    with open(os.path.join(folder, f"rank-{rank}"), "w") as report:
        report.write("\n".join(failed))
    os._exit(0)  # without waiting for those that went elsewhere


def split(total: int, world: int, how: str) -> tuple[int, ...]:
    """Lengths of spans: `even`, `uneven`, some `empty`, or everything on the `last`."""
    even = [total // world + (rank < total % world) for rank in range(world)]
    if how == "even" or world == 1:
        return tuple(even)
    if how == "last":
        return (*(0 for _ in range(world - 1)), total)
    generator = torch.Generator().manual_seed(total * world)
    cuts = sorted(torch.randint(0, total + 1, (world - 1,), generator=generator).tolist())
    if how == "empty":
        cuts[0] = cuts[1] if world > 2 else 0
    return tuple(b - a for a, b in zip((0, *cuts), (*cuts, total), strict=True))


def equals_one_process(mesh: DeviceMesh, case: Case, how: str, method: str, backend: str = "auto") -> None:
    """Result and every gradient of the ranks, put together, within the contract that one process is held to."""
    got, apart = together(mesh, case, how, method=method, backend=backend)
    if mesh.get_local_rank() == 0:
        contract = "plain" if backend == "auto" else backend
        held_to_truth(case, arguments(case, "cpu"), result_gradient(case), got, contract, apart)


def equals_or_is_refused(mesh: DeviceMesh, case: Case, how: str, method: str, backend: str = "auto") -> None:
    """As above; what one process refuses, every rank refuses alike."""
    try:
        longwave.long_conv(**arguments(case), backend=backend)
    except LongwaveError as refused:
        with pytest.raises(type(refused)) as raised:
            together(mesh, case, how, method=method, backend=backend)
        assert raised.value.everywhere
        return
    try:
        equals_one_process(mesh, case, how, method, backend)
    except UnsupportedError as error:
        if method != "halo" or "method='halo' cannot do this call" not in str(error):
            raise


def differs_without_exchange(mesh: DeviceMesh, case: Case, how: str) -> None:
    """A control: ranks that convolve their own spans alone are far from the truth."""

    def alone(*, mesh: DeviceMesh, **local: Any) -> Tensor:
        return longwave.long_conv(**local, backend="plain")

    got, _ = together(mesh, case, how, alone)
    if mesh.get_local_rank() == 0:
        for name in sorted(got.keys() & {"y", "u", "k", "k_rev"}):
            with pytest.raises(AssertionError, match="relative error"):
                held_to_truth(case, arguments(case, "cpu"), result_gradient(case), {name: got[name]}, "plain")
            zeros = {name: torch.zeros_like(got[name])}
            with pytest.raises(AssertionError, match="relative error"):
                held_to_truth(case, arguments(case, "cpu"), result_gradient(case), zeros, "plain")


def together(
    mesh: DeviceMesh, case: Case, how: str, operator: Any = context_parallel_conv, **options: Any
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """On rank 0 the result and the gradients of a case that is split over the ranks, whole; and how much larger the shares of
    filters' gradients are, all together, than their sum."""
    kwargs, dy = arguments(case), devices.here(result_gradient(case))
    rank, lengths = mesh.get_local_rank(), split(case.L, mesh.size(), how)
    start, time = sum(lengths[:rank]), -2 if case.layout == "BLH" else -1
    local: dict[str, Any] = {}
    for name, x in kwargs.items():
        if name in ("u", "pregate", "postgate"):
            local[name] = x.detach().narrow(time, start, lengths[rank]).requires_grad_(x.requires_grad)
        elif name != "history" or rank == 0:
            local[name] = x
    y = operator(**local, mesh=mesh, **options)
    assert y.dtype == case.dtype
    assert y.shape == local["u"].shape
    assert y.is_contiguous()
    leaves = floating(local)
    found = {"y": y.detach()}
    if y.requires_grad:  # every rank goes back where one has to
        y.backward(dy.narrow(time, start, lengths[rank]))
        found |= {name: leaf.grad for name, leaf in leaves.items()}  # type: ignore[misc]
    found = {name: x.cpu() for name, x in found.items()}
    shares: list[dict[str, Tensor]] = [{} for _ in lengths]
    dist.gather_object(found, shares if rank == 0 else None)
    if rank:
        return {}, {}
    got, apart = {}, {}
    for name, mine in found.items():
        parts = [share[name] for share in shares if name in share]
        if name in ("y", "u", "pregate", "postgate"):
            got[name] = torch.cat(parts, dim=time)
        elif name == "history":
            got[name] = mine
        else:
            wide = torch.stack(parts).to(torch.promote_types(mine.dtype, torch.float64))
            got[name] = wide.sum(0)
            apart[name] = (wide.norm() / got[name].norm()).item()
    return got, apart
