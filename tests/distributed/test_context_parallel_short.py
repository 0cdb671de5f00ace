"""Context-parallel short convolutions on gloo processes against direct sums: values and every gradient."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import Check, run, split
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from longwave.bench.tolerances import bound, relative_l2
from longwave.distributed import context_parallel_short_conv
from longwave.errors import ArgumentError
from longwave.ops.short_conv import short_conv
from longwave.reference import short_conv_ref

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo is tested on Linux")

CALLS: list[dict[str, Any]] = [
    {"K": 1},
    {"K": 3, "state": True},
    {"K": 4, "layout": "BLH", "activation": "silu", "state": True},
    {"K": 30, "activation": "gelu"},
    {"K": 3, "dtype": torch.bfloat16, "layout": "BLH"},
    {"K": 5, "batched": False},
    {"K": 4, "B": 1, "documents": (0, 0, 5, 6, 6, 17, 29), "state": True},
    {"K": 9, "B": 1, "documents": (0, 12, 13, 29), "layout": "BLH", "activation": "silu"},
    {"K": 3, "L": 2},
]


def short_equals_one_process(mesh: DeviceMesh, call: dict[str, Any], how: str) -> None:
    call = {"B": 2, "H": 5, "L": 29, "layout": "BHL", "dtype": torch.float64, "activation": None, "documents": None, **call}
    layout, dtype, L = call["layout"], call["dtype"], call["L"]
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    def signal(length: int) -> Tensor:
        x = drawn(call["B"], call["H"], length) if layout == "BHL" else drawn(call["B"], length, call["H"])
        return x if call.get("batched", True) else x[0]

    whole: dict[str, Tensor] = {"x": signal(L), "w": drawn(call["H"], call["K"]), "bias": drawn(call["H"])}
    if call.get("state"):
        whole["state"] = signal(call["K"] - 1)
    dy = signal(L)
    options: dict[str, Any] = {"activation": call["activation"], "layout": layout}
    if call["documents"] is not None:
        options["cu_seqlens"] = torch.tensor(call["documents"], dtype=torch.int32)
    rank, lengths = mesh.get_local_rank(), split(L, mesh.size(), how)
    start, time = sum(lengths[:rank]), -2 if layout == "BLH" else -1
    local = {name: x for name, x in whole.items() if name != "state" or rank == 0}
    local["x"] = whole["x"].narrow(time, start, lengths[rank])
    local = {name: x.clone().requires_grad_() for name, x in local.items()}
    y = context_parallel_short_conv(**local, **options, mesh=mesh)
    assert y.is_contiguous()
    y.backward(dy.narrow(time, start, lengths[rank]))
    shares: list[Any] = [None] * mesh.size()
    dist.all_gather_object(shares, {"y": y.detach(), **{name: x.grad for name, x in local.items()}})

    exact = {name: x.double().requires_grad_() for name, x in whole.items()}
    truth = short_conv_ref(**exact, **options)
    grads = torch.autograd.grad(truth, list(exact.values()), dy.double(), materialize_grads=True)
    for name, true in {"y": truth.detach(), **dict(zip(exact, grads, strict=True))}.items():
        parts = [share[name] for share in shares if name in share]
        got = torch.cat(parts, dim=time) if name in ("y", "x") else torch.stack(parts).double().sum(0)
        allowed = bound(dtype, L + call["K"])
        apart = torch.stack(parts).double().norm() / got.norm().clamp(min=1e-300) if name in ("w", "bias") else torch.ones(())
        assert relative_l2(got, true) <= allowed * max(1.0, apart.item()), name
    alone = short_conv(whole["x"], whole["w"], whole["bias"], **options, state=whole.get("state"))
    assert torch.equal(torch.cat([share["y"] for share in shares], dim=time), alone)


def refused_on_every_rank(mesh: DeviceMesh) -> None:
    last = mesh.get_local_rank() == mesh.size() - 1
    with pytest.raises(ArgumentError, match=r"w .* on rank 0 and .* on rank"):
        context_parallel_short_conv(torch.randn(1, 3, 4), torch.randn(3, 3 + last), mesh=mesh)


def _checks() -> list[Check]:
    hows = itertools.cycle(("uneven", "even", "empty", "last"))
    every = zip(CALLS, hows, strict=False)
    return [(f"{call} {how}", short_equals_one_process, (call, how)) for call, how in every]


def test_ranks_together_equal_one_process(tmp_path: Path) -> None:
    run(3, [*_checks(), ("refusal", refused_on_every_rank, ())], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 4])
def test_other_numbers_of_ranks_equal_one_process(world: int, tmp_path: Path) -> None:
    run(world, _checks(), tmp_path)
