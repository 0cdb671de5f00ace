"""How a convolution over a split sequence is done: from integers that every rank knows to one choice, the same on all.

all_to_all   every rank gets its channels of the whole sequence, convolves them, and gives them back
halo         every rank gets the samples around its span that its filters reach
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from longwave import dtypes, masked
from longwave.distributed.spans import Shards, Spans, around
from longwave.errors import UnsupportedError
from longwave.lowering import MODES
from longwave.masks import FrequencyMask
from longwave.ops import explain
from longwave.planner import Plan

ALL_TO_ALL, HALO = "all_to_all", "halo"
METHODS = ("auto", ALL_TO_ALL, HALO)
# What a chunk of channels brings to a rank, at least: a message much shorter costs more than the work beside it hides.
CHUNK_BYTES = 2**20
MOST_CHUNKS = 4
# Channels of a chunk, at least: as many as engines convolve side by side, where rows are no longer than this.
CHUNK_CHANNELS, LONGEST_SIDE_BY_SIDE = 16, 2**16


@dataclass(frozen=True)
class Question:
    """A call on all ranks, in integers and strings. `taps`, `rev_taps`: the shapes of k and k_rev."""

    lengths: tuple[int, ...]
    batch: int
    channels: int
    taps: tuple[int, ...]
    rev_taps: tuple[int, ...] | None = None
    dtype: str = "float32"
    filter_dtype: str = "float32"
    device: str = "cpu"
    mode: str = "causal"
    history: int = 0
    history_float32: bool = False
    skip: bool = False
    pregate: bool = False
    postgate: bool = False
    segments: tuple[int, ...] | None = None
    mask: FrequencyMask | None = None
    layout: str = "BHL"
    precision: str | None = None
    backend: str = "auto"
    method: str = "auto"

    @property
    def total(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True)
class Choice:
    """What all ranks do. `received[method][rank]`: bytes that reach it from others in a forward; a backward sends as many."""

    question: Question
    method: str
    chunks: int
    shards: Shards
    reach: tuple[int, int]
    received: dict[str, tuple[int, ...]]
    why: str

    @property
    def spans(self) -> Spans:
        q = self.question
        return Spans(q.lengths, q.history, MODES[q.mode].circular)

    @property
    def two_sided(self) -> bool:
        return two_sided(self.question, self.reach)

    @property
    def gates_at_home(self) -> bool:
        return gates_at_home(self.question)

    @property
    def halo_dtype(self) -> torch.dtype:
        return halo_dtype(self.question)

    @property
    def bytes(self) -> int:
        """What reaches the busiest rank from others in a forward."""
        return max(self.received[self.method])


def gates_at_home(q: Question) -> bool:
    """Whether gates are multiplied where they are: then only products travel. Products of 16-bit factors are as wide as both
    of them, and engines multiply by them as they load and store."""
    return dtypes.named(q.dtype).itemsize >= 4


def halo_dtype(q: Question) -> torch.dtype:
    """Of samples around a span: products of gates are not rounded."""
    dtype = dtypes.named(q.dtype)
    dtype = dtypes.arithmetic(dtype) if q.pregate else dtype
    return torch.promote_types(dtype, torch.float32) if q.history_float32 else dtype


def reach_of(q: Question) -> tuple[int, int]:
    """How many samples back and ahead the filters look."""
    first = MODES[q.mode].lag0(q.total, q.taps[-1])
    if q.rev_taps is not None:
        return q.taps[-1] - 1, q.rev_taps[-1] - 1
    return q.taps[-1] - 1 + first, -first


def two_sided(q: Question, reach: tuple[int, int]) -> bool:
    """Whether halos take the filters together for one that ends later: k_rev does even with lag 0 alone."""
    return reach[1] > 0 or q.rev_taps is not None


@lru_cache(maxsize=256)
def choose(q: Question) -> Choice:
    """The choice of all ranks.

    Raises ArgumentError or UnsupportedError where `long_conv` would refuse the whole sequence, or the method cannot do it.
    """
    rehearsed(q)
    R, reach = len(q.lengths), reach_of(q)
    obstacle = _no_halo(q, reach)
    received = {ALL_TO_ALL: _over_channels(q)}
    if obstacle is None:
        received[HALO] = _around_spans(q, reach)
    elif q.method == HALO:
        raise UnsupportedError(f"method='halo' cannot do this call: {obstacle}; use method='auto'")
    most = {method: max(found) for method, found in received.items()}
    if q.method != "auto":
        method, why = q.method, "named by the caller"
    elif obstacle is not None:
        method, why = ALL_TO_ALL, f"not halo: {obstacle}"
    else:
        method = min((ALL_TO_ALL, HALO), key=most.__getitem__)  # of equals that which convolves less
        why = "the fewer bytes: " + ", ".join(f"{most[m]:,} by {m}" for m in (HALO, ALL_TO_ALL))
    unit = q.channels // q.taps[-2] if len(q.taps) == 2 and q.taps[0] > 1 else 1
    chunks = 1 if method == HALO else _chunks(q, most[ALL_TO_ALL])
    return Choice(q, method, chunks, Shards.of(q.channels, R, chunks, unit), reach, received, why)


def rehearsed(q: Question) -> Plan:
    """What `long_conv` would do with the whole sequence. Raises what it would: here every rank does, be it idle or not."""
    L = q.total
    u_shape = (q.batch, q.channels, L) if q.layout == "BHL" else (q.batch, L, q.channels)
    plan = explain.plan(
        u_shape, q.taps, dtype=dtypes.named(q.dtype), filter_dtype=dtypes.named(q.filter_dtype), mode=q.mode,
        k_rev_shape=q.rev_taps, D=q.skip, pregate=q.pregate, postgate=q.postgate, history=q.history, frequency_mask=q.mask,
        cu_seqlens=q.segments, layout=q.layout, precision=q.precision, device=q.device, backend=q.backend,
    )  # fmt: skip
    if q.mask is not None:
        for stretch in masked.stretches(plan.problem):
            stretch.projection.kept()
    return plan


def _no_halo(q: Question, reach: tuple[int, int]) -> str | None:
    if q.mask is not None:
        return "a filter behind a frequency mask reaches the whole sequence"
    if q.segments is not None and MODES[q.mode].circular:
        return "every document has a period of its own"
    if q.segments is not None and two_sided(q, reach):
        return "filters with lags on both sides would cross from document to document"
    return None


def _over_channels(q: Question) -> tuple[int, ...]:
    shards, item = Shards.of(q.channels, len(q.lengths), 1), dtypes.named(q.dtype).itemsize
    signals = 1 if gates_at_home(q) else 1 + q.pregate + q.postgate
    wide = 4 if q.history_float32 else item
    found = []
    for rank, own in enumerate(q.lengths):
        mine = shards.of_rank(rank)
        there = item * signals * mine * (q.total - own) + (wide * mine * q.history if rank else 0)
        found.append(q.batch * (there + item * own * (q.channels - mine)))
    return tuple(found)


def _around_spans(q: Question, reach: tuple[int, int]) -> tuple[int, ...]:
    spans = Spans(q.lengths, q.history, MODES[q.mode].circular)
    item = halo_dtype(q).itemsize
    found = []
    for rank in range(len(q.lengths)):
        pieces = [p for w in around(spans, rank, *reach, q.segments) for p in spans.pieces(w.start, w.stop)]
        found.append(item * q.batch * q.channels * sum(p.length for p in pieces if p.owner != rank))
    return tuple(found)


def _chunks(q: Question, received: int) -> int:
    most_channels = -(-q.channels // len(q.lengths))
    channels = CHUNK_CHANNELS if q.total <= LONGEST_SIDE_BY_SIDE else 1
    return max(1, min(MOST_CHUNKS, received // CHUNK_BYTES, most_channels // channels))
