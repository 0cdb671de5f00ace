"""What a convolution over ranks holds, as PyTorch's allocator gives it out, beside what its plan says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from allocated import peak_bytes
from ranks import run
from torch.distributed.device_mesh import DeviceMesh

from longwave.distributed import plan, transfers
from longwave.distributed.choice import Question, choose
from longwave.distributed.explain import memory
from longwave.distributed.mesh import Ranks
from longwave.distributed.shards import over_channels
from longwave.distributed.spans import Shards, shares

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo is tested on Linux")

H, L = 64, 2**15
# The plan counts what one chunk's transfer has done with and its process group not yet given up.
LATE = 1.4
# What ranks compare with each other is not counted.
SMALL = 2**16


@contextmanager
def given_up_when_landed(mesh: DeviceMesh) -> Iterator[None]:
    """What was sent, and where it arrives, is held until it has landed. gloo's own threads give it up later where the cores are
    busy, unseen by the profiler: so they get copies that PyTorch's allocator did not give out."""
    group = mesh.get_group()
    on_the_way: dict[int, tuple[Any, torch.Tensor, torch.Tensor]] = {}

    def unseen(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.view(torch.uint8).numpy().copy()).view(x.dtype)

    def launched(x: torch.Tensor, receive: list[int], send: list[int], _: str) -> torch.Tensor:
        samples = x.new_empty(sum(receive))
        arriving = unseen(samples)
        work = torch.distributed.all_to_all_single(arriving, unseen(x), receive, send, group=group, async_op=True)
        on_the_way[id(samples)] = work, x, arriving
        return samples

    def landed(samples: torch.Tensor) -> torch.Tensor:
        work, _, arriving = on_the_way.pop(id(samples))
        work.wait()
        return samples.copy_(arriving)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.ops._c10d_functional, "all_to_all_single", launched)
        patch.setattr(torch.ops._c10d_functional, "wait_tensor", landed)
        yield
    assert not on_the_way


def holds_what_is_planned(mesh: DeviceMesh, chunks: int, dtype: torch.dtype, gates: bool) -> None:
    ranks = Ranks.of(mesh)
    lengths = shares(L, ranks.size)
    names = ("u", *(("pregate", "postgate") if gates else ()))
    own: dict[str, Any] = {name: torch.randn(1, H, lengths[ranks.rank], dtype=dtype) for name in names}
    k, D = torch.randn(H, L), torch.randn(H)
    name = str(dtype).removeprefix("torch.")
    q = Question(lengths, 1, H, (H, L), skip=True, pregate=gates, postgate=gates, method="all_to_all", dtype=name)
    choice = replace(choose(q), chunks=chunks, shards=Shards.of(H, ranks.size, chunks))
    call = transfers.Call(own["u"], own.get("pregate"), own.get("postgate"), None, k, None, D, False, False)
    as_sent = peak_bytes(lambda: over_channels(call, choice, ranks))  # more, where gloo is late
    with given_up_when_landed(mesh):
        held = peak_bytes(lambda: over_channels(call, choice, ranks))
    options: dict[str, Any] = {"method": "all_to_all", "D": True, "pregate": gates, "postgate": gates, "dtype": dtype}
    local = plan((1, H, L), (H, L), ranks=lengths, **options).local
    planned = memory(choice, local)[0] - sum(x.nbytes for x in own.values()) - k.nbytes
    assert held - SMALL <= planned <= LATE * min(held, as_sent), (held, as_sent, planned)


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_tensors_are_those_of_the_plan(world: int, tmp_path: Path) -> None:
    cases = [(c, dtype, gates) for c in (1, 2, 4) for dtype in (torch.float32, torch.bfloat16) for gates in (False, True)]
    run(world, [(str(case), holds_what_is_planned, case) for case in cases], tmp_path)
