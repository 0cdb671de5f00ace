"""Context-parallel convolutions on 1 to 4 gloo processes against direct sums; refusals, and ranks that end."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from arguments import Case, arguments
from hypothesis import Phase, given, settings
from random_cases import cases
from ranks import (
    Check,
    differs_without_exchange,
    equals_or_is_refused,
    run,
    split,
    together,
)
from torch.distributed.device_mesh import DeviceMesh

import longwave
from longwave.distributed import context_parallel_conv
from longwave.distributed.spans import Spans
from longwave.errors import ArgumentError, RankError, UnsupportedError
from longwave.masks import FrequencyMask

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo is tested on Linux")

WORLDS = (1, 2, 3, 4)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.complex128)
GATES = {"D": True, "pregate": True, "postgate": True}
CASES = [
    Case(),
    Case(L=1, K=3),
    Case(K=1, D=True),
    Case(L=257, K=300, H=7),
    *(Case(H=H, filters=filters, D=True) for H, filters in itertools.product((2, 8), ("shared", "group", "sample"))),
    *(Case(dtype=dtype, K=9, **GATES) for dtype in DTYPES),
    *(Case(dtype=dtype, P=5, filter_dtype=torch.float32, layout="BLH", **GATES) for dtype in DTYPES[:4]),
    Case(dtype=torch.bfloat16, P=5, history_dtype=torch.float32, K=9),
    Case(dtype=torch.bfloat16, P=5, history_dtype=torch.float32, pregate=True),
    Case(dtype=torch.float64, P=40, history_dtype=torch.float32, K=50),
    Case(P=7, K=20, frozen=("u", "k")),
    Case(P=7, K=20, frozen=("history", "u")),
    Case(frozen=("u", "k")),
    Case(K_rev=6, P=3, K=9, **GATES),
    Case(K_rev=1, K=4, D=True, filters="shared"),
    Case(K_rev=40, filters="group", filters_rev="sample", dtype=torch.float32),
    Case(K_rev=4, K=3, dtype=torch.bfloat16, layout="BLH", **GATES),
    Case(K_rev=4, K=7, filters="sample", layout="BLH"),
    Case(mode="circular", K=80, **GATES),
    Case(mode="circular", K=6, K_rev=4, D=True, layout="BLH"),
    Case(mode="circular", L=30, K=5, documents=(0, 7, 7, 19, 30), B=1),
    Case(mode="same", K=8, dtype=torch.float16, **GATES),
    Case(mode="same", K=1),
    Case(mode="same", L=40, K=7, documents=(0, 13, 40), B=1),
    Case(B=1, L=40, K=12, documents=(0, 0, 5, 17, 17, 39, 40), P=6, **GATES),
    Case(B=1, L=40, K=40, documents=(0, 30, 40), P=6, dtype=torch.bfloat16, layout="BLH", **GATES),
    Case(B=1, L=40, K=12, K_rev=3, documents=(0, 11, 40)),
    Case(B=1, L=40, K=12, K_rev=1, documents=(0, 11, 40)),
    Case(batched=False, K=9, P=2, **GATES),
    Case(batched=False, layout="BLH", mode="same", K=5),
    Case(mode="circular", mask=FrequencyMask.lowpass(0.5), D=True),
    Case(mask=FrequencyMask.lowpass(0.3, leaks_future=True), P=3, **GATES),
    Case(K_rev=9, mask=FrequencyMask.lowpass(0.5)),
    *(Case(strides=strides, K=11, layout=layout, **GATES) for strides in ("cut", "expanded", "reversed_axes")
      for layout in ("BHL", "BLH")),
    Case(H=70, L=500, K=500, dtype=torch.float32, **GATES),
]  # fmt: skip


def _drawn(count: int) -> list[Case]:
    """Random calls of `long_conv`, the same every time."""
    found: list[Case] = []

    @settings(max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(cases())
    def collect(case: Case) -> None:
        if case.mode != "full" and case.L * case.K < 2**16:
            found.append(case)

    collect()
    return found


HOWS = ("uneven", "even", "empty", "last")


def _spread(found: list[Case], methods: tuple[str, ...], backend: str, first: int = 0) -> list[Check]:
    """Every case, the ways of splitting in turn from the first on, by every method."""
    return [
        (f"{case} {how} {method}", equals_or_is_refused, (case, how, method, backend))
        for case, how in zip(found, itertools.islice(itertools.cycle(HOWS), first % len(HOWS), None), strict=False)
        for method in methods
    ]


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_together_equal_one_process(world: int, tmp_path: Path) -> None:
    # Processes take seconds to load an engine; who convolves is nothing to those that move samples.
    backend = "auto" if world == 2 else "plain"
    if world == 2:
        checks = _spread(CASES, ("all_to_all", "halo"), backend) + _spread(_drawn(20), ("auto",), backend)
    else:  # every case by one of the two ways, on three ranks and on four by the other
        ways = ("all_to_all", "halo") if world % 2 else ("halo", "all_to_all")
        checks = [check for i, case in enumerate(CASES) for check in _spread([case], (ways[i % 2],), backend, first=i)]
    checks += [("second derivatives", second_derivatives, (method,)) for method in ("all_to_all", "halo")]
    checks += [("chunks", equals_in_chunks, ())] * (backend == "auto")
    if world > 1:
        checks += [(f"control {case}", differs_without_exchange, (case, "even")) for case in CONTROLS]
    run(world, checks, tmp_path)


# The result of every rank, or a gradient, depends on samples of others.
CONTROLS = [Case(L=32, K=32), Case(L=32, K=9, K_rev=9), Case(L=32, mode="circular", **GATES), Case(L=32, K=9, mode="same")]


def equals_in_chunks(mesh: DeviceMesh) -> None:
    """Many channels, which travel in several chunks, the bits of one process: a row's do not depend on its company."""
    case = Case(B=1, H=256, L=4096, K=64, filters="shared", dtype=torch.float32, D=True)
    got, _ = together(mesh, case, "uneven", method="all_to_all")
    if mesh.get_local_rank() == 0:
        kwargs = arguments(case)
        assert torch.equal(got["y"], longwave.long_conv(**kwargs))


def second_derivatives(mesh: DeviceMesh, method: str) -> None:
    """Of a sum of squares of gradients."""
    case = Case(B=1, H=3, L=12, K=5, D=True)
    kwargs = arguments(case)
    rank, lengths = mesh.get_local_rank(), split(case.L, mesh.size(), "uneven")
    mine = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))
    u, k, D = (kwargs[name].detach().requires_grad_() for name in ("u", "k", "D"))
    part = u.detach()[..., mine].requires_grad_()
    y = context_parallel_conv(part, k, D, mesh=mesh, method=method, backend="plain")
    (du,) = torch.autograd.grad(y.pow(3).sum(), part, create_graph=True)
    du.pow(2).sum().backward()
    whole = longwave.long_conv(u, kwargs["k"], kwargs["D"], backend="plain")
    (du_whole,) = torch.autograd.grad(whole.pow(3).sum(), u, create_graph=True)
    truth = torch.autograd.grad(du_whole.pow(2).sum(), [u, kwargs["k"], kwargs["D"]])
    torch.testing.assert_close(part.grad, truth[0][..., mine], rtol=1e-9, atol=1e-9)
    for share, total in ((k.grad, truth[1]), (D.grad, truth[2])):
        assert share is not None
        dist.all_reduce(share, group=mesh.get_group())
        torch.testing.assert_close(share, total, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_ranks_together_equal_one_process_in_many_random_calls(world: int, tmp_path: Path) -> None:
    checks = _spread(CASES, ("all_to_all", "halo"), "auto", first=1) + _spread(
        _drawn(1500), ("auto", "all_to_all", "halo"), "auto"
    )
    run(world, checks, tmp_path)


def refused_everywhere(mesh: DeviceMesh, differing: dict[str, dict[int, Any]], sentence: str) -> None:
    """`differing`: what some ranks give instead of what all give. Every rank raises the same; then a call goes well."""
    given = {"u": torch.randn(2, 6, 8), "k": torch.randn(6, 4), "backend": "plain"}
    local = {**given, **{name: on[mesh.get_local_rank()] for name, on in differing.items() if mesh.get_local_rank() in on}}
    with pytest.raises((ArgumentError, UnsupportedError), match=sentence) as raised:
        context_parallel_conv(**local, mesh=mesh)
    assert raised.value.everywhere
    said = [""] * mesh.size()
    dist.all_gather_object(said, str(raised.value), group=mesh.get_group())
    assert len(set(said)) == 1
    assert context_parallel_conv(**given, mesh=mesh).shape == (2, 6, 8)


def _refusals(world: int) -> list[Check]:
    last, every = world - 1, range(world)
    u, k = torch.randn(2, 6, 8), torch.randn(6, 4)
    table: list[tuple[dict[str, dict[int, Any]], str]] = [
        ({"u": {last: torch.randn(2, 5, 8)}, "k": {last: torch.randn(5, 4)}}, "was called with u .* on rank 0 and .* on rank"),
        ({"u": {last: u.double()}}, "float32 on cpu on rank 0 and .*float64"),
        ({"u": {last: u.clone().requires_grad_()}}, "which requires a gradient on rank"),
        ({"k": {last: torch.randn(6, 5)}}, r"k \(6, 4\) float32 on cpu on rank 0 and \(6, 5\)"),
        ({"D": {last: torch.randn(6)}}, "D None on rank 0"),
        ({"mode": {last: "same"}}, "mode 'causal' on rank 0 and 'same'"),
        ({"mode": dict.fromkeys(every, "full")}, "mode='full'"),
        ({"layout": {last: "HLB"}}, f"on rank {last} of {world}: layout='HLB' is unknown"),
        ({"pregate": {last: torch.randn(2, 6, 7)}}, "pregate has shape"),
        ({"postgate": {0: torch.randn(2, 6, 8)}}, "postgate .* on rank 0 and None"),
        ({"history": {last: torch.randn(2, 6, 3)}}, "belong to rank 0"),
        ({"u": dict.fromkeys(every, torch.randn(2, 6, 0))}, "no samples on any rank"),
        ({"u": {last: "a text"}}, "on rank .*u is of type str"),
        ({"u": {0: torch.randn(8)}}, "on rank 0 of"),
        ({"cu_seqlens": dict.fromkeys(every, torch.tensor([0, 9], dtype=torch.int32))}, "batch of 2"),
        ({"u": dict.fromkeys(every, u[:1]), "cu_seqlens": dict.fromkeys(every, torch.tensor([0, 9], dtype=torch.int32))},
         "must start at 0 and end at the packed length"),
        ({"u": dict.fromkeys(every, u[:1]), "cu_seqlens": {r: torch.tensor([0, 3 + (r == last), 8 * world], dtype=torch.int32)
                                                          for r in every}}, "cu_seqlens of 2 documents"),
        ({"k": dict.fromkeys(every, longwave.prepare_filter(k, 8, backend="plain"))}, "prepared filter"),
        ({"method": {last: "ring"}}, "method='ring' is unknown"),
        ({"method": dict.fromkeys(every, "halo"), "mode": dict.fromkeys(every, "circular"),
          "frequency_mask": dict.fromkeys(every, FrequencyMask.lowpass(0.5))}, "method='halo' cannot do this call"),
        ({"frequency_mask": {last: FrequencyMask.lowpass(0.5, leaks_future=True)}}, "frequency_mask None on rank 0"),
        ({"frequency_mask": dict.fromkeys(every, FrequencyMask.from_blocks([0], 7, leaks_future=True))}, "does not fit a grid"),
        ({"backend": dict.fromkeys(every, "nothing")}, "backend='nothing' is unknown"),
    ]  # fmt: skip
    return [(sentence, refused_everywhere, (differing, sentence)) for differing, sentence in table]


def test_what_one_rank_gets_wrong_every_rank_refuses(tmp_path: Path) -> None:
    run(3, _refusals(3), tmp_path)


def left_alone(mesh: DeviceMesh, how: str) -> None:
    """The last rank ends, or does something else for longer than the timeout; the others say so in a sentence."""
    if mesh.get_local_rank() == mesh.size() - 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3 * PATIENCE_S)
        return
    began = time.monotonic()
    with pytest.raises(RankError, match=r"another rank has ended or did not answer in time while .* start all of them again"):
        context_parallel_conv(torch.randn(1, 4, 8), torch.randn(4, 8), mesh=mesh)
    assert time.monotonic() - began < 20 * PATIENCE_S  # not the minutes of a default


PATIENCE_S = 2


@pytest.mark.parametrize("how", ["killed", "silent"])
def test_a_rank_that_is_gone_costs_no_more_than_the_timeout(how: str, tmp_path: Path) -> None:
    run(2, [(how, left_alone, (how,))], tmp_path, timeout_s=PATIENCE_S, lost=[1])


def test_spans_say_who_owns_a_window() -> None:
    spans = Spans((3, 0, 4), history=2)
    assert list(spans.pieces(-2, 5)) == [(0, -2, 2), (0, 0, 3), (2, 0, 2)]
    assert list(Spans((3, 0, 4), circular=True).pieces(-5, 9)) == [
        (0, 2, 1), (2, 0, 4), (0, 0, 3), (2, 0, 4), (0, 0, 2),
    ]  # fmt: skip


def test_a_mesh_is_one_dimension_of_a_mesh() -> None:
    with pytest.raises(ArgumentError, match="mesh is of type NoneType"):
        context_parallel_conv(torch.randn(1, 1, 4), torch.randn(1, 4), mesh=None)  # type: ignore[arg-type]
