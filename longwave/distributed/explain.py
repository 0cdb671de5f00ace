"""`plan`: what a convolution over a split sequence would do, without ranks or tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from longwave import dtypes
from longwave.distributed.choice import ALL_TO_ALL, METHODS, Choice, Question, choose
from longwave.distributed.spans import shares
from longwave.errors import ArgumentError
from longwave.ops import explain
from longwave.planner import Plan, size

# A backward takes about twice the arithmetic of its forward, and sends gradients the ways that samples went.
BACKWARD_WORK, TRANSFERS = 2, 2


@dataclass(frozen=True)
class ParallelPlan:
    """What a convolution over ranks would do. `print` explains it.

    Attributes:
        choice: the method, and the bytes that reach each rank.
        local: the plan of what the busiest rank convolves.
        interconnect_gb_s: GB/s that reach a rank, as given.
        bytes_sent: that reach the busiest rank in a forward; a step (forward and backward) moves twice as many.
        memory_bytes: of the busiest rank's tensors in a forward: spans, filters, what is on its way, and the convolution's own.
            A C library that keeps holes between freed blocks holds more.
        kept_bytes: what is kept for backward, in memory beside the spans and the filters.
    """

    choice: Choice
    local: Plan
    interconnect_gb_s: float
    bytes_sent: int
    memory_bytes: int
    kept_bytes: int

    @property
    def communication_ms(self) -> float:
        """Of a forward, with nothing beside it."""
        return self.bytes_sent / self.interconnect_gb_s / 1e6

    @property
    def forward_ms(self) -> float | None:
        return self._overlapped(1, 1)

    @property
    def step_ms(self) -> float | None:
        """Forward and backward of this convolution."""
        return self._overlapped(1 + BACKWARD_WORK, TRANSFERS)

    def _overlapped(self, work: int, transfers: int) -> float | None:
        """All but one chunk of the shorter is hidden behind the longer."""
        if self.local.predicted_ms is None:
            return None
        times = work * self.local.predicted_ms, transfers * self.communication_ms
        return max(times) + min(times) / self.choice.chunks

    def __str__(self) -> str:
        q, c = self.choice.question, self.choice
        spans = sorted(set(q.lengths))
        chunks = f", in {c.chunks} chunks of channels that overlap" if c.chunks > 1 else ""
        before, after = c.reach
        lines = [
            f"long convolution of B={q.batch} H={q.channels:,} L={q.total:,} ({q.dtype}) over {len(q.lengths)} ranks",
            f"  spans      {' or '.join(f'{n:,}' for n in spans)} samples a rank; lags reach {before:,} back, {after:,} ahead",
            f"  method     {c.method}{chunks}",
            f"             {c.why}",
            f"  sent       {size(self.bytes_sent)} reach a rank in a forward, {size(TRANSFERS * self.bytes_sent)} in a step",
            f"  memory     {size(self.memory_bytes)} a rank in a forward, of which {size(_filters(q))} filters; "
            f"{size(self.kept_bytes)} kept for backward",
        ]
        if self.forward_ms is not None and self.local.predicted_ms is not None and self.step_ms is not None:
            lines += [
                f"  predicted  {self.communication_ms:.3g} ms on the way at {self.interconnect_gb_s:g} GB/s, "
                f"{self.local.predicted_ms:.3g} ms convolving ({self.local.predicted_for})",
                f"             {self.forward_ms:.3g} ms forward, {self.step_ms:.3g} ms a step (forward and backward); "
                + ("communication takes longer" if self._communication_dominates() else "convolving takes longer"),
            ]
        return "\n".join(lines) + "\nthe busiest rank's " + str(self.local)

    def _communication_dominates(self) -> bool:
        return TRANSFERS * self.communication_ms > (1 + BACKWARD_WORK) * (self.local.predicted_ms or math.inf)


def plan(
    u_shape: Sequence[int],
    k_shape: Sequence[int],
    *,
    ranks: int | Sequence[int],
    interconnect_gb_s: float = 50.0,
    method: str = "auto",
    dtype: torch.dtype = torch.float32,
    filter_dtype: torch.dtype = torch.float32,
    layout: str = "BHL",
    device: str = "cpu",
    history: int = 0,
    k_rev_shape: Sequence[int] | None = None,
    cu_seqlens: Sequence[int] | None = None,
    D: bool = False,
    frequency_mask: Any = None,
    **options: Any,
) -> ParallelPlan:
    """The decision that `context_parallel_conv` takes for a whole sequence of `u_shape`; `print` explains it.

    Args:
        u_shape: of the whole sequence.
        ranks: how many share it as evenly as may be, or the length of each one's span.
        interconnect_gb_s: GB/s (1e9 bytes) that reach a rank from the others; 50 is a 400 Gb/s network card.
        method: as in `context_parallel_conv`.
        k_shape, dtype, …: as in `longwave.plan`; `options` are its mode, pregate, postgate, precision and backend.

    Returns:
        A ParallelPlan: method and why, bytes sent, memory a rank, time where the device's is modelled.

    Raises:
        ArgumentError, UnsupportedError: as `context_parallel_conv` would.
    """
    if method not in METHODS:
        raise ArgumentError(f"method={method!r} is unknown; choose one of {', '.join(map(repr, METHODS))}")
    check_interconnect(interconnect_gb_s)
    shared = {
        "dtype": dtype, "filter_dtype": filter_dtype, "layout": layout, "device": device, "history": history, "D": D,
        "k_rev_shape": k_rev_shape, "cu_seqlens": cu_seqlens, "frequency_mask": frequency_mask, **options,
    }  # fmt: skip
    explain.plan(u_shape, k_shape, **shared)  # refuses what is refused
    batch, (channels, total) = (u_shape[0] if len(u_shape) == 3 else 1), u_shape[-2:]
    channels, total = (total, channels) if layout == "BLH" else (channels, total)
    q = Question(
        lengths=_lengths(ranks, total), batch=batch, channels=channels, taps=tuple(k_shape),
        rev_taps=None if k_rev_shape is None else tuple(k_rev_shape), dtype=dtypes.name(dtype),
        filter_dtype=dtypes.name(filter_dtype), device=device, history=history, skip=D, mask=frequency_mask, layout=layout,
        segments=None if cu_seqlens is None else tuple(cu_seqlens), method=method, **options,
    )  # fmt: skip
    choice = choose(q)
    local = _local(choice, shared)
    held, kept = memory(choice, local)
    return ParallelPlan(choice, local, float(interconnect_gb_s), choice.bytes, held, kept)


def check_interconnect(gb_s: float) -> None:
    """Raises ArgumentError where it brings nothing, or everything at once."""
    if not isinstance(gb_s, int | float) or not 0 < gb_s < math.inf:
        raise ArgumentError(f"interconnect_gb_s is {gb_s!r}; give GB/s, above 0")


def _lengths(ranks: int | Sequence[int], total: int) -> tuple[int, ...]:
    if isinstance(ranks, int):
        if ranks < 1 or isinstance(ranks, bool):
            raise ArgumentError(f"ranks is {ranks!r}; give how many there are, at least 1, or the lengths of their spans")
        return shares(total, ranks)
    lengths = tuple(ranks)
    if sum(lengths) != total or min(lengths, default=0) < 0:
        raise ArgumentError(f"ranks are spans of {lengths}, which are not {total:,} samples in all; give lengths that add up")
    return lengths


def _local(choice: Choice, shared: dict[str, Any]) -> Plan:
    """Of the rank with the most to convolve."""
    q = choice.question
    rows = q.taps[-2]
    if choice.method == ALL_TO_ALL:
        H, L = max(sum(sizes) for sizes in choice.shards.sizes), q.total
        filters = 1 if rows == 1 else max(1, H * rows // q.channels) if (H * rows) % q.channels == 0 else H
        kept = shared
    else:
        H, L, filters = q.channels, max(q.lengths), rows
        kept = {**shared, "history": sum(choice.reach), "k_rev_shape": None, "cu_seqlens": None, "mode": "causal"}
        kept["history"] = min(kept["history"], q.total + q.history)
    taps = q.taps[-1] if choice.method == ALL_TO_ALL else sum(choice.reach) + 1
    per_sample = len(q.taps) == 3
    k_shape = (q.batch, H, taps) if per_sample else (filters, taps)
    if q.rev_taps is not None and choice.method == ALL_TO_ALL:
        kept = {**kept, "k_rev_shape": (*k_shape[:-1], q.rev_taps[-1])}
    return explain.plan((q.batch, H, L) if q.layout == "BHL" else (q.batch, L, H), k_shape, **kept)


def _filters(q: Question) -> int:
    """Of k and k_rev, which every rank has whole."""
    return dtypes.named(q.filter_dtype).itemsize * (math.prod(q.taps) + math.prod(q.rev_taps or (0,)))


def memory(choice: Choice, local: Plan) -> tuple[int, int]:
    """In a forward, and what is kept for backward, in bytes on the busiest rank: of tensors, as an allocator gives them out."""
    q, item = choice.question, dtypes.named(choice.question.dtype).itemsize
    span = item * q.batch * q.channels * max(q.lengths)
    given = span * (1 + q.pregate + q.postgate) + _filters(q)
    if len(q.lengths) == 1 and q.method == "auto":  # which is `long_conv`; a rank that is told to sends to itself
        return given + span + local.scratch_bytes, 0
    if choice.method != ALL_TO_ALL:
        halo = choice.bytes
        return given + span + 2 * halo + local.scratch_bytes, halo
    traveling = 1 if choice.gates_at_home else 1 + q.pregate + q.postgate
    shard = item * q.batch * max(map(sum, choice.shards.sizes)) * q.total
    product = span if choice.gates_at_home and q.pregate else 0
    kept = traveling * shard + (span * q.postgate if choice.gates_at_home else 0)
    return given + product + _on_the_way(choice.chunks, traveling, span, shard, local.scratch_bytes), kept


def _on_the_way(chunks: int, traveling: int, span: int, shard: int, scratch: int) -> int:
    """The most that stands between the arguments and the result, itself counted: while the last chunk that overlaps is
    convolved, when all have been sent back, or where they are put together. What was sent is held until its transfer has been
    waited for, and by a thread of the process group a moment longer.
    """
    arrived, own = -(-shard // chunks), -(-span // chunks)
    next_one = traveling * (arrived + own if chunks > 1 else own)
    convolved = max(2 * traveling * arrived, (traveling + 1) * arrived + scratch)
    not_sent = min(chunks - 1, 2) * arrived
    overlapping = next_one + convolved + not_sent + max(chunks - 3, 0) * (arrived + own)
    return max(overlapping, shard + span + arrived, 2 * span + 2 * arrived)
