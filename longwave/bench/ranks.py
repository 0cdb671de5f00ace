"""Convolutions over a sequence that is split across gloo processes of this machine: times, bytes, and how much of the
communication is hidden behind the convolutions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from longwave import long_conv
from longwave.bench.memory import give_large_blocks_back, peak_extra_bytes
from longwave.bench.tolerances import bound, relative_l2
from longwave.errors import DataError

SCHEMA, SUFFIX = "longwave ranks 2", "ranks"
WORLDS = (1, 2, 4)
B, H = 1, 64
# Samples, taps, method, chunks, and the GB/s of a link that is played by waiting, or 0 for gloo as it is. Processes that share
# the cores of one machine move bytes with the cores that should convolve: only a link of its own can be hidden.
CASES = (
    (2**17, 2**17, "all_to_all", 1, 0.0),
    (2**17, 2**17, "all_to_all", 4, 0.0),
    (2**17, 2**17, "all_to_all", 1, 0.1),
    (2**17, 2**17, "all_to_all", 4, 0.1),
    (2**17, 1024, "halo", 1, 0.0),
)
CHECKED_CHANNELS = 4


def about() -> dict[str, Any]:
    """What every row has in common."""
    return {"B": B, "H": H, "dtype": "float32", "gates": True, "threads a process": 1, "transport": "gloo, TCP on one machine"}


@dataclass(frozen=True)
class RanksResult:
    """One case on so many ranks: medians over rounds, in milliseconds, of the slowest rank.

    - `ms`, `step_ms`: forward; forward and backward. `moving_ms`: the forward with copies for convolutions,
      `convolving_ms`: its convolutions alone.
    - `overlap`: how much of the shorter of the two was hidden, 0 to 1; None where nothing moves.
    - `planned_memory`, `measured_memory`: what a forward holds beyond its arguments on the busiest rank, in bytes, as the plan
      says and as the resident set rose.
    - `received_bytes`: that reach the busiest rank in a forward, as the plan says, `measured_bytes`: as counted.
    """

    ranks: int
    L: int
    K: int
    method: str
    chunks: int
    link_gb_s: float
    ms: float
    step_ms: float
    moving_ms: float
    convolving_ms: float
    overlap: float | None
    received_bytes: int
    measured_bytes: int
    planned_memory: int
    measured_memory: int
    error: float

    @property
    def line(self) -> str:
        hidden = "" if self.overlap is None else f"  hidden {self.overlap:4.0%}"
        return (
            f"{self.ranks} ranks  L={self.L:,} K={self.K:,}  {self.method:<10s} in {self.chunks}  "
            f"{f'link {self.link_gb_s} GB/s' if self.link_gb_s else 'gloo':<13s}{self.ms:8.1f} ms  "
            f"step {self.step_ms:8.1f} ms  moving {self.moving_ms:7.1f}  convolving {self.convolving_ms:7.1f}{hidden}  "
            f"{self.measured_bytes / 2**20:6.1f} MiB ({self.received_bytes / 2**20:.1f} planned)  "
            f"holds {self.measured_memory / 2**20:6.1f} MiB ({self.planned_memory / 2**20:.1f} planned)  error {self.error:.1e}"
        )


def measure(backends: Sequence[str], rounds: int, seconds: float) -> Iterator[RanksResult]:
    """Every case on every number of ranks; `context_parallel_conv` chooses its backend itself.

    Raises DataError where a result is outside of its bound, or a process ended early: nothing wrong is timed.
    """
    from longwave.distributed.processes import run_processes

    for world in WORLDS:
        timed, held = (run_processes(world, _every, *given) for given in ((rounds, False), (1, True)))
        for row, other in zip(timed, held, strict=True):
            yield replace(row, measured_memory=other.measured_memory)


def _every(rank: int, store: Any, rounds: int, memory: bool) -> list[RanksResult]:
    """Every case, in processes that are timed, or in such whose memory counts."""
    from longwave.distributed import mesh_of

    if memory:
        give_large_blocks_back()
    mesh = mesh_of(names=("cp",))["cp"]
    return [_measured(mesh, case, rounds) for case in CASES if mesh.size() > 1 or (case[3] == 1 and not case[4])]


def _measured(mesh: Any, case: tuple[int, int, str, int, float], rounds: int) -> RanksResult:
    import torch.distributed as dist

    from longwave.distributed import transfers
    from longwave.distributed.choice import HALO, Question, choose
    from longwave.distributed.halo import with_halo
    from longwave.distributed.mesh import Ranks
    from longwave.distributed.shards import over_channels
    from longwave.distributed.spans import Shards, shares

    L, K, method, chunks, link = case
    ranks = Ranks.of(mesh)
    lengths = shares(L, ranks.size)
    generator = torch.Generator().manual_seed(1)
    whole = {name: torch.randn(B, H, L, generator=generator) for name in ("u", "pregate", "postgate")}
    k, D = torch.randn(H, K, generator=generator) * K**-0.5, torch.randn(H, generator=generator)
    mine = slice(sum(lengths[: ranks.rank]), sum(lengths[: ranks.rank + 1]))
    own = {name: x[..., mine].clone().requires_grad_() for name, x in whole.items()}
    k.requires_grad_()
    choice = choose(Question(lengths, B, H, (H, K), skip=True, pregate=True, postgate=True, method=method))
    choice = replace(choice, chunks=chunks, shards=Shards.of(H, ranks.size, chunks))
    call = transfers.Call(own["u"], own["pregate"], own["postgate"], None, k, None, D, False, True)

    def forward(conv: Callable[..., Tensor] = long_conv) -> Tensor:
        return with_halo(call, choice, ranks, conv) if method == HALO else over_channels(call, choice, ranks, conv)

    def copied(u: Tensor, *_: Any, **__: Any) -> Tensor:
        return u.clone()

    def step() -> None:
        forward().backward(own["postgate"].detach())

    sizes = (H, lengths[ranks.rank]) if method == HALO else (sum(choice.shards.sizes[ranks.rank]), L)
    part = torch.randn(B, *sizes)

    def convolve() -> None:
        with torch.no_grad():
            for u, f in zip(part.chunk(chunks, 1), k.detach()[: sizes[0]].chunk(chunks), strict=True):
                long_conv(u, f)

    some = slice(0, CHECKED_CHANNELS)
    u, pregate, postgate, taps, skip = (x[..., some, :].double() for x in (*whole.values(), k.detach(), D.unsqueeze(-1)))
    truth = long_conv(u, taps, skip.squeeze(-1), pregate=pregate, postgate=postgate)
    error = relative_l2(forward().detach()[:, some], truth[..., mine])
    if not error <= bound(torch.float32, 2 * L):
        raise DataError(f"rank {ranks.rank} of {ranks.size} is wrong by {error:.1e} at L={L:,}, K={K:,} by {method}")

    with _played(link), torch.no_grad():
        times = {
            "ms": _median(mesh, forward, rounds),
            "moving_ms": _median(mesh, lambda: forward(copied), rounds),
        }
        counted = _counted(forward)
        held = peak_extra_bytes(forward) or 0
    with _played(link):
        times |= {"convolving_ms": _median(mesh, convolve, rounds), "step_ms": _median(mesh, step, rounds)}
    most = torch.tensor([error, float(counted), float(held)], dtype=torch.float64)
    dist.all_reduce(most, dist.ReduceOp.MAX, group=mesh.get_group())
    shorter = min(times["moving_ms"], times["convolving_ms"])
    hidden = (times["moving_ms"] + times["convolving_ms"] - times["ms"]) / shorter
    overlap = None if ranks.size == 1 else min(1.0, max(0.0, hidden))
    return RanksResult(
        ranks.size, L, K, method, chunks, link, **times, overlap=overlap, received_bytes=choice.bytes,
        measured_bytes=int(most[1]), planned_memory=_planned(choice, own, k), measured_memory=int(most[2]),
        error=most[0].item(),
    )  # fmt: skip


def _planned(choice: Any, own: dict[str, Tensor], k: Tensor) -> int:
    """What the plan says that a forward holds on the busiest rank, without its arguments."""
    from longwave.distributed import plan
    from longwave.distributed.explain import memory

    q = choice.question
    shapes = (q.batch, q.channels, sum(q.lengths)), tuple(q.taps)
    planned = plan(*shapes, ranks=q.lengths, method=q.method, D=True, pregate=True, postgate=True)
    return memory(choice, planned.local)[0] - sum(x.nbytes for x in own.values()) - k.nbytes


def _median(mesh: Any, call: Callable[[], Any], rounds: int) -> float:
    """Milliseconds of the slowest rank, from a common start."""
    import torch.distributed as dist

    found = []
    for _ in range(rounds + 1):
        dist.barrier(group=mesh.get_group())
        began = time.perf_counter()
        call()
        took = torch.tensor(time.perf_counter() - began)
        dist.all_reduce(took, dist.ReduceOp.MAX, group=mesh.get_group())
        found.append(1000 * took.item())
    return statistics.median(found[1:])


def _counted(call: Callable[[], Any]) -> int:
    """Bytes that reach this rank from others during a call."""
    from longwave.distributed import transfers

    seen = 0
    taken = transfers.Flight.land

    def land(flight: transfers.Flight) -> list[Tensor]:
        nonlocal seen
        parts = taken(flight)
        rank = flight.box.way.ranks.rank
        seen += sum(part.nbytes for other, part in enumerate(parts) if other != rank)
        return parts

    transfers.Flight.land = land  # type: ignore[assignment, method-assign]
    try:
        call()
    finally:
        transfers.Flight.land = taken  # type: ignore[method-assign]
    return seen


@contextmanager
def _played(gb_s: float) -> Iterator[None]:
    """While samples arrive no sooner than a link of so many GB/s brings them, one transfer after the other."""
    from longwave.distributed import transfers

    if not gb_s:
        yield
        return
    start, wait = transfers._Launch.forward, transfers._Land.forward
    due: dict[int, float] = {}
    free = 0.0

    def launched(ctx: Any, x: Tensor, box: Any) -> Tensor:
        nonlocal free
        token: Tensor = start(ctx, x, box)
        others = sum(n for rank, n in enumerate(box.way.receive) if rank != box.way.ranks.rank)
        free = max(free, time.perf_counter()) + others * x.element_size() / gb_s / 1e9
        due[id(box)] = free
        return token

    def landed(ctx: Any, token: Tensor, box: Any) -> Tensor:
        y: Tensor = wait(ctx, token, box)
        time.sleep(max(0.0, due.pop(id(box)) - time.perf_counter()))
        return y

    transfers._Launch.forward, transfers._Land.forward = staticmethod(launched), staticmethod(landed)  # type: ignore[method-assign]
    try:
        yield
    finally:
        transfers._Launch.forward, transfers._Land.forward = staticmethod(start), staticmethod(wait)  # type: ignore[method-assign]
