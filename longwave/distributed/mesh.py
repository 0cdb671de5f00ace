"""Meshes, and the ranks of one of their dimensions."""

from __future__ import annotations

import datetime
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from longwave.errors import ArgumentError, RankError

# Long enough for the slowest step between two collectives, short enough that a dead rank does not cost an hour.
TIMEOUT_S = 60.0


def mesh_of(
    device_type: str = "cpu", sizes: Sequence[int] = (), names: Sequence[str] = ("cp",), *, timeout_s: float = TIMEOUT_S
) -> DeviceMesh:
    """The mesh of all processes that `torchrun` started, with a process group of its own if there is none yet.

    Args:
        device_type: "cpu" (gloo) or "cuda" (NCCL, with gloo beside it for what is small).
        sizes: ranks along each dimension; their product is the number of processes. All of them on one dimension if empty.
        names: of the dimensions.
        timeout_s: seconds after which a collective gives up.

    Raises:
        ArgumentError: the sizes do not divide the processes among them, or names and sizes do not fit.
        RankError: the other processes do not come.
    """
    timeout = datetime.timedelta(seconds=timeout_s)
    if not dist.is_initialized():
        backend = "gloo" if device_type == "cpu" else "cpu:gloo,cuda:nccl"
        if device_type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        with told("waiting for the other processes"):
            dist.init_process_group(backend, timeout=timeout)
    world = dist.get_world_size()
    sizes = tuple(sizes) or (world,)
    if len(sizes) != len(names):
        raise ArgumentError(f"a mesh of sizes {sizes} was given the names {tuple(names)}; give one name a dimension")
    if min(sizes) < 1 or math.prod(sizes) != world:
        product = " x ".join(map(str, sizes))
        error = ArgumentError(
            f"a mesh of {product} = {math.prod(sizes)} ranks ({', '.join(names)}) does not fit {world} processes; "
            "start as many processes, or change a size"
        )
        error.everywhere = True
        raise error
    return laid_out(device_type, sizes, names, timeout)


def laid_out(
    device_type: str, sizes: Sequence[int], names: Sequence[str], timeout: datetime.timedelta | None = None
) -> DeviceMesh:
    """The mesh of all processes in these sizes, the last dimension innermost; all of them call it.

    `init_device_mesh` would give its groups PyTorch's own timeout, half an hour, whatever that of the process group is.
    """
    places = torch.arange(math.prod(sizes)).view(*sizes)
    groups = []
    for dimension, size in enumerate(sizes):
        lines = places.movedim(dimension, -1).reshape(-1, size).tolist()
        own, _ = dist.new_subgroups_by_enumeration(lines, timeout=timeout)
        groups.append(own)
    return DeviceMesh.from_group(groups, device_type, places, mesh_dim_names=tuple(names))


@dataclass(frozen=True)
class Ranks:
    """The ranks of one mesh dimension, in order, as this process sees them. `device`: where small messages travel."""

    rank: int
    size: int
    group: str
    device: torch.device

    @classmethod
    def of(cls, mesh: DeviceMesh) -> Ranks:
        if not isinstance(mesh, DeviceMesh):
            raise ArgumentError(f"mesh is of type {type(mesh).__name__}; give a torch.distributed.DeviceMesh of one dimension")
        if mesh.ndim != 1:
            raise ArgumentError(
                f"mesh has {mesh.ndim} dimensions {mesh.mesh_dim_names}; give the one the sequence is split over, mesh['cp']"
            )
        if mesh.get_coordinate() is None:
            raise ArgumentError("this process is not part of the mesh; call on the ranks of the mesh alone")
        group = mesh.get_group()
        # Nothing here waits for a GPU where the group can carry messages of the CPU.
        small = "cpu" if "cpu" in _devices(group) else mesh.device_type
        return cls(mesh.get_local_rank(), mesh.size(), group.group_name, torch.device(small))


def _devices(group: dist.ProcessGroup) -> set[str]:
    return {entry.partition(":")[0] for entry in dist.get_backend_config(group).split(",") if not entry.endswith(":nccl")}


@contextmanager
def told(what: str) -> Iterator[None]:
    """What a process group says when a rank is gone, as one sentence."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RankError | torch.OutOfMemoryError):
            raise
        happened = f" or did not answer in time while {what}"
        raise rank_lost("read what that rank said and start all of them again", happened, error) from error


def rank_lost(advice: str, more: str = "", reason: Exception | str = "") -> RankError:
    """The one sentence about another rank that is gone: what to do, `more` of what happened, and in whose words."""
    words = re.sub(r"^\[\S*\] ", "", " ".join(str(reason).split())).split(". ")[0][:160]
    return RankError(f"another rank has ended{more}" + (f" ({words})" if words else "") + f"; {advice}")
