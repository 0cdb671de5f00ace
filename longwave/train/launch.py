"""How the processes of a run come together, and what is said when one of them is lost.

`torchrun` starts them and tells each its number; without it there is one. Every collective gives up after a time; what one
process does alone is waited for as long as that one lives (`pulse`).
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from longwave.distributed.mesh import rank_lost, told
from longwave.errors import ArgumentError, LongwaveError, UnsupportedError
from longwave.train.pulse import AGAIN, FAILED, Pulse
from longwave.train.world import Sizes, World

TIMEOUT_S = 120.0
# A key of the launcher's store.
FOLDER = "longwave/folder"
LONGEST_TIMEOUT_S = 10**8  # a few years: what process groups can count in nanoseconds
# What process groups say, in PyTorch's and gloo's own words, when another process is gone.
_LOST = re.compile(r"gloo|NCCL|ProcessGroup|Connection (closed|reset|refused)|Broken pipe|[Tt]imed out|[Tt]imeout", re.ASCII)


def processes() -> int:
    """How many the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def restarts() -> int:
    """How often the launcher has started this process again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def sizes_of(count: int, dp: int | None, fsdp: int | None, cp: int | None) -> Sizes:
    """How `count` processes are dealt out; `dp` not given is what the others leave.

    Raises:
        ArgumentError: they cannot be.
    """
    given = {name: size for name, size in (("dp", dp), ("fsdp", fsdp), ("cp", cp)) if size is not None}
    for name, size in given.items():
        if size < 1:
            raise ArgumentError(f"--{name} must be at least 1, but {size} was given")
    fsdp, cp = given.get("fsdp", 1), given.get("cp", 1)
    sizes = Sizes(given.get("dp", count // (fsdp * cp)), fsdp, cp)
    needed = sizes.dp * fsdp * cp
    if needed != count or not sizes.dp:
        asked = " x ".join(f"--{name} {size}" for name, size in given.items())
        started = "1 process was" if count == 1 else f"{count} processes were"
        fitting = needed or fsdp * cp
        raise ArgumentError(
            f"{asked} does not fit the number of processes: {started} started; start {fitting} "
            f"(torchrun --nproc-per-node {fitting} -m longwave train ...), or change a size"
        )
    return sizes


@contextmanager
def launched(dp: int | None, fsdp: int | None, cp: int | None, timeout_s: float) -> Iterator[World]:
    """The processes of this run, which have found each other.

    Args:
        dp, fsdp, cp: as in `sizes_of`.
        timeout_s: after so many seconds a collective gives up.

    Raises:
        ArgumentError: the sizes do not fit the processes, or the timeout is out of range.
        UnsupportedError: there is a process group already.
        RankError: another process did not come, has ended or does not answer.
    """
    count, rank = processes(), int(os.environ.get("RANK", "0"))
    try:
        if not 1 <= timeout_s <= LONGEST_TIMEOUT_S:
            raise ArgumentError(f"--timeout must be from 1 to {LONGEST_TIMEOUT_S:,} seconds, but {timeout_s:g} was given")
        sizes = sizes_of(count, dp, fsdp, cp)
    except ArgumentError as error:
        error.everywhere = True
        raise
    if dist.is_initialized():
        raise UnsupportedError("training makes its own process group, but one exists already; destroy it first")
    timeout = datetime.timedelta(seconds=timeout_s)
    if count == 1:
        launcher = _launchers_store(timeout) if _by_launcher() else None
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            yield World(sizes, launcher=launcher)
        finally:
            dist.destroy_process_group()
        return
    launcher = _launchers_store(timeout)
    # It is kept over a restart, with addresses in it of processes that are gone.
    store = dist.PrefixStore(f"start {restarts()}", launcher)
    with _said_once(store):
        _take_gpu()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with told("waiting for the other processes"):
            dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
    # Outermost, for to say that the store is gone takes longer than to find it so.
    with Pulse(store, rank, count) as pulse, _said_once(store):
        yield World(sizes, rank, pulse, timeout, launcher)
        dist.destroy_process_group()


def _by_launcher() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def _launchers_store(timeout: datetime.timedelta) -> dist.Store:
    with told("waiting for the other processes"):
        store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
    return store


def remember(world: World, folder: Path) -> None:
    """That the launcher's job writes the run in `folder`, for when it starts its processes again."""
    if world.launcher is not None:
        world.launcher.set(FOLDER, os.path.abspath(folder))


def goes_on(world: World, folder: Path) -> bool:
    """Whether the launcher has started the processes again after they began to write the run in `folder`: nothing is added to
    one that was refused before."""
    if not restarts() or world.launcher is None or not world.launcher.check([FOLDER]):
        return False
    return world.launcher.get(FOLDER).decode() == os.path.abspath(folder)


def _take_gpu() -> None:
    """Every process of a machine its own GPU, where there are as many."""
    if (local := _local_rank()) < torch.cuda.device_count():
        torch.cuda.set_device(local)


def check_named(device: str) -> None:
    """Refuse one GPU for all. Raises ArgumentError where a GPU is named by number and there are several processes."""
    if device.startswith("cuda:") and processes() > 1:
        raise ArgumentError(
            f"--device {device} names one GPU for {processes()} processes, and each takes one of its own; give --device cuda, "
            "and choose which are seen with CUDA_VISIBLE_DEVICES"
        )


def check_gpu(device: torch.device) -> None:
    """Refuse to share one. Raises ArgumentError where the processes of this machine are more than its GPUs, and run on them."""
    count, local = torch.cuda.device_count(), _local_rank()
    if device.type == "cuda" and local >= count:
        raise ArgumentError(
            f"process {local} of this machine has no GPU of its own among its {count}; start {count} a machine, or give "
            "--device cpu"
        )


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def _said_once(store: dist.Store) -> Iterator[None]:
    """A failure becomes one sentence, of the process that met it first: the others fail because it did."""
    try:
        yield
    except Exception as error:  # whatever it is: this process has met it, and the others will but miss it
        found = error
        foreign = isinstance(error, RuntimeError) and not isinstance(error, LongwaveError)
        if foreign and (isinstance(error, dist.DistError) or lost(str(error))):
            found = rank_lost(AGAIN, " or did not answer in time", error)
        if not isinstance(found, LongwaveError):
            _first(store)
        elif not found.everywhere:
            found.said = not _first(store)
        if found is error:
            raise
        raise found from error


def lost(reason: str) -> bool:
    """Whether a process group speaks so of a process that is gone."""
    return bool(_LOST.search(reason))


def _first(store: dist.Store) -> bool:
    try:
        return bool(store.add(FAILED, 1) == 1)
    except (RuntimeError, dist.DistError):  # the store went with the process that kept it
        return True
