"""Sums over the ranks of a mesh, through which gradients flow."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed._functional_collectives  # registers torch.ops._c10d_functional
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from longwave.distributed.mesh import Ranks, told


def summed(x: Tensor, mesh: DeviceMesh) -> Tensor:
    """x of every rank added up, the same on each.

    Args:
        x: of one shape and dtype on all ranks, all of which take part in backward where one does: the gradient of x is the sum
            of what the ranks' losses have of it.
        mesh: one dimension of a DeviceMesh.

    Raises:
        ArgumentError: this is no dimension of a mesh that this process is part of.
        RankError: another rank has ended, or did not answer in time.
    """
    total: Tensor = _Summed.apply(x, Ranks.of(mesh).group)
    return total


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: str) -> Tensor:
        ctx.group = group
        functional = torch.ops._c10d_functional
        with told("adding up what the ranks have"):
            total: Tensor = functional.wait_tensor(functional.all_reduce(x.contiguous(), "sum", group))
        return total

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return _Summed.apply(dy, ctx.group), None
