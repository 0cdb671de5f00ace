"""What a model is handed to read sequences that are split over ranks: it stays a program for one device."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.distributed.device_mesh import DeviceMesh

from longwave.distributed.long_conv import context_parallel_conv
from longwave.distributed.mesh import Ranks
from longwave.distributed.short_conv import context_parallel_short_conv


def operators(mesh: DeviceMesh) -> dict[str, Any]:
    """The arguments of a model whose inputs are this rank's spans: `HyenaLM(config, **operators(mesh["cp"]))`.

    Every rank has all parameters. What it makes of its span is exact; the gradients of its loss are its share: sums over the
    mesh dimension, of losses and of gradients, are those of one process that reads the whole sequence.

    Args:
        mesh: one dimension of a DeviceMesh.

    Returns:
        The keywords `conv`, `short` and `split`.

    Raises:
        ArgumentError: this is no dimension of a mesh that this process is part of.
    """
    Ranks.of(mesh)
    return {
        "conv": partial(context_parallel_conv, mesh=mesh),
        "short": partial(context_parallel_short_conv, mesh=mesh),
        "split": True,
    }
