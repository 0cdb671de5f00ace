"""The device mesh of a run: (dp, fsdp, cp), all of size 1 today.

The loop asks the mesh for its rank, so that sharded parameters and split sequences can join by giving it larger
dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from longwave.errors import UnsupportedError

DIMENSIONS = ("dp", "fsdp", "cp")


def refuse_many_processes() -> None:
    """Raises UnsupportedError where a launcher has started several processes: each would train the same model alone."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise UnsupportedError(f"training runs in one process for now, but WORLD_SIZE is {world}; start it without a launcher")


@contextmanager
def single_process_mesh(device: torch.device) -> Iterator[DeviceMesh]:
    """A mesh of one process on `device`'s type; its process group lives in this process and ends with the context.

    Raises:
        UnsupportedError: several processes were launched, or a process group exists already.
    """
    refuse_many_processes()
    if dist.is_initialized():
        raise UnsupportedError("training makes its own process group, but one exists already; destroy it first")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh(device.type, (1, 1, 1), mesh_dim_names=DIMENSIONS)
    finally:
        dist.destroy_process_group()
