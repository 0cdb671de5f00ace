"""By all-to-all: every rank convolves some channels of the whole sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from longwave.distributed.choice import Choice
from longwave.distributed.mesh import Ranks
from longwave.distributed.spans import Shards
from longwave.distributed.transfers import Call, Flight, launch, tied
from longwave.ops.long_conv import long_conv


class _Signal(NamedTuple):
    """This rank's samples, and how many each rank has."""

    samples: Tensor
    lengths: Sequence[int]


_Signals = dict[str, _Signal]


def over_channels(call: Call, choice: Choice, ranks: Ranks, conv: Callable[..., Tensor] = long_conv) -> Tensor:
    """Chunks of channels arrive, are convolved by `conv` and leave; while one is convolved, the next arrives and the last one
    leaves.

    The order in which that is written down is, turned round, the order of backward, which overlaps in the same way.
    """
    q, C = choice.question, choice.chunks
    groups = _by_dtype(_signals(call, choice))
    k, k_rev = (_rows_of_rank(x, choice, ranks.rank) for x in (call.k, call.k_rev))
    D = _rows_of_rank(None if call.D is None else call.D.unsqueeze(-1), choice, ranks.rank)
    sizes = choice.shards.sizes[ranks.rank]
    packed = [[_packed(group, choice.shards, chunk, call.channel) for group in groups] for chunk in range(C)]
    arriving: list[list[Flight]] = []
    results: list[list[Tensor]] = []
    leaving: list[Flight] = []
    for step in range(C + 2):
        if step < C:
            arriving.append(
                [
                    launch(parts, _received(group, q.batch * sizes[step]), ranks, differentiable=call.differentiable)
                    for parts, group in zip(packed[step], groups, strict=True)
                ]
            )
            packed[step].clear()
        if 0 <= (chunk := step - 1) < C:
            whole: dict[str, Tensor] = {}
            for flight, group in zip(arriving[chunk], groups, strict=True):
                whole |= _unpacked(flight, group, q.batch, sizes[chunk], call.channels_last)
            arriving[chunk].clear()
            results.append([_convolved(conv, whole, k[chunk], k_rev[chunk], D[chunk], choice)])
        if (chunk := step - 2) >= 0:
            y = results[chunk].pop()
            parts = [[part] for part in y.split(q.lengths, dim=call.time)]
            receive = [q.batch * of[chunk] * q.lengths[ranks.rank] for of in choice.shards.sizes]
            leaving.append(launch(parts, receive, ranks, differentiable=y.requires_grad))
    y = _gathered(leaving, choice, q.lengths[ranks.rank], call)
    return y * call.postgate if choice.gates_at_home and call.postgate is not None else y


def _signals(call: Call, choice: Choice) -> _Signals:
    """What travels."""
    q, u, time = choice.question, call.u, call.time
    gates: dict[str, Tensor | None] = {"pregate": call.pregate, "postgate": call.postgate}
    if choice.gates_at_home:  # the product takes as much as each of its factors
        u = u if call.pregate is None else u * call.pregate
        gates = {}
    found = {"u": _Signal(u, q.lengths)}
    found |= {name: _Signal(gate, q.lengths) for name, gate in gates.items() if gate is not None}
    if q.history:
        before = call.history
        if before is None:
            before = u.narrow(time, 0, 0).to(torch.float32 if q.history_float32 else u.dtype)
        found["history"] = _Signal(before, (q.history, *(0 for _ in q.lengths[1:])))
    return found


def _by_dtype(signals: _Signals) -> list[_Signals]:
    """What travels together: history may be wider than the rest."""
    found: dict[torch.dtype, _Signals] = {}
    for name, signal in signals.items():
        found.setdefault(signal.samples.dtype, {})[name] = signal
    return list(found.values())


def _rows_of_rank(k: Tensor | None, choice: Choice, rank: int) -> list[Tensor | None]:
    """The filters of a rank's channels, chunk by chunk."""
    sizes, first, channels = choice.shards.sizes[rank], choice.shards.start(rank), choice.question.channels
    if k is None:
        return [None] * len(sizes)
    rows = k.shape[-2]
    if rows == 1:
        return [k if size else k.narrow(-2, 0, 0) for size in sizes]
    width = channels // rows
    if first % width or any(size % width for size in sizes):
        wanted = torch.arange(first, first + sum(sizes), device=k.device) // width
        return list(k.index_select(-2, wanted).split(sizes, dim=-2))
    return list(k.narrow(-2, first // width, sum(sizes) // width).split([size // width for size in sizes], dim=-2))


def _packed(signals: _Signals, shards: Shards, chunk: int, channel: int) -> list[list[Tensor]]:
    """For every rank, its channels of this chunk of the signals."""
    pieces = [signal.samples.split(shards.flat, dim=channel) for signal in signals.values()]
    chunks = len(shards.sizes[0])
    return [[of[rank * chunks + chunk] for of in pieces] for rank in range(len(shards.sizes))]


def _received(signals: _Signals, rows: int) -> list[int]:
    """How many numbers come from each rank."""
    return [rows * sum(lengths) for lengths in zip(*(signal.lengths for signal in signals.values()), strict=True)]


def _unpacked(flight: Flight, signals: _Signals, batch: int, size: int, channels_last: bool) -> dict[str, Tensor]:
    """`size` channels of the whole sequence, of each signal."""
    spans: dict[str, list[Tensor]] = {name: [] for name in signals}
    for rank, part in enumerate(flight.land()):
        counts = [batch * size * signal.lengths[rank] for signal in signals.values()]
        for (name, signal), flat in zip(signals.items(), part.split(counts), strict=True):
            spans[name].append(flat.view(_shape(batch, size, signal.lengths[rank], channels_last)))
    return {name: torch.cat(parts, dim=1 if channels_last else 2) for name, parts in spans.items()}


def _convolved(
    conv: Callable[..., Tensor],
    whole: dict[str, Tensor],
    k: Tensor | None,
    k_rev: Tensor | None,
    D: Tensor | None,
    choice: Choice,
) -> Tensor:
    """Some channels of the whole sequence; a rank may have none."""
    q, u = choice.question, whole.pop("u")
    if k is None or not u.numel():
        return tied(u, *whole.values(), k, k_rev, D)
    bounds = None if q.segments is None else torch.tensor(q.segments, dtype=torch.int32)
    return conv(
        u, k, None if D is None else D.squeeze(-1), mode=q.mode, k_rev=k_rev, **whole, frequency_mask=q.mask, cu_seqlens=bounds,
        layout=q.layout, precision=q.precision, backend=q.backend,
    )  # fmt: skip


def _gathered(leaving: Sequence[Flight], choice: Choice, length: int, call: Call) -> Tensor:
    """All channels of this rank's span."""
    blocks = [
        [
            part.view(_shape(choice.question.batch, choice.shards.sizes[rank][chunk], length, call.channels_last))
            for rank, part in enumerate(flight.land())
        ]
        for chunk, flight in enumerate(leaving)
    ]
    return torch.cat([block for of_rank in zip(*blocks, strict=True) for block in of_rank], dim=call.channel)


def _shape(batch: int, channels: int, length: int, channels_last: bool) -> tuple[int, int, int]:
    return (batch, length, channels) if channels_last else (batch, channels, length)
