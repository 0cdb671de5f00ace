"""Moving samples between ranks: one collective, an all-to-all of flat tensors, in two halves that autograd sees.

`launch` starts it and `land` waits for it; what stands between runs beside it. Each is the other's derivative, with directions
exchanged, so that gradients of every order travel, and backward overlaps in the reverse order of forward: autograd
runs nodes in the reverse order of their making, the same on every rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed._functional_collectives  # registers torch.ops._c10d_functional
from torch import Tensor

from longwave.distributed.mesh import Ranks, told
from longwave.distributed.spans import Piece, Spans, Window
from longwave.dtypes import cast


class Call(NamedTuple):
    """The tensors of a convolution on this rank; signals have a batch and stand in the caller's layout. `differentiable`:
    whether some rank's signals require gradients."""

    u: Tensor
    pregate: Tensor | None
    postgate: Tensor | None
    history: Tensor | None
    k: Tensor
    k_rev: Tensor | None
    D: Tensor | None
    channels_last: bool
    differentiable: bool

    @property
    def time(self) -> int:
        return 1 if self.channels_last else 2

    @property
    def channel(self) -> int:
        return 2 if self.channels_last else 1

    def in_BHL(self, x: Tensor | None) -> Any:
        return x if x is None or not self.channels_last else x.transpose(1, 2)


class _Way(NamedTuple):
    """How many numbers go to every rank, and come from it."""

    send: list[int]
    receive: list[int]
    ranks: Ranks

    @property
    def back(self) -> _Way:
        return _Way(self.receive, self.send, self.ranks)


@dataclass
class _Box:
    """Samples on their way, beside the token that stands for them on the graph: they and their gradient differ in size."""

    way: _Way
    samples: Tensor | None = None
    back: _Box | None = None


class _Launch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, box: _Box) -> Tensor:
        ctx.box, way = box, box.way
        with told("samples were sent"):
            box.samples = torch.ops._c10d_functional.all_to_all_single(x, way.receive, way.send, way.ranks.group)
        return x.new_zeros(())

    @staticmethod
    def backward(ctx: Any, token: Tensor) -> tuple[Tensor, None]:
        return _Land.apply(token, ctx.box.back), None


class _Land(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, box: _Box) -> Tensor:
        ctx.box, samples, box.samples = box, box.samples, None
        with told("samples were on their way"):
            y: Tensor = torch.ops._c10d_functional.wait_tensor(samples)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        ctx.box.back = _Box(ctx.box.way.back)
        return _Launch.apply(dy.contiguous(), ctx.box.back), None


class Flight(NamedTuple):
    """Samples on their way here; `land` waits for them."""

    token: Tensor
    box: _Box
    dtype: torch.dtype

    def land(self) -> list[Tensor]:
        """What came from each rank, in order of ranks, flat."""
        parts = _Land.apply(self.token, self.box).split(self.box.way.receive)
        if self.dtype.is_complex:
            return [torch.view_as_complex(part.view(-1, 2)) for part in parts]
        return list(parts)


def launch(parts: Sequence[Sequence[Tensor]], receive: Sequence[int], ranks: Ranks, *, differentiable: bool) -> Flight:
    """Send `parts[r]`, all of one dtype, to rank r, and begin to receive `receive[r]` numbers from it.

    `differentiable`: whether any rank's samples require gradients; then this rank takes part in backward.
    """
    every = [part for row in parts for part in row]
    equal = len({part.shape for part in every}) == 1
    # As rows: the gradient of an empty vector that is joined to others is cut off from the graph.
    x = (torch.stack(every) if equal else torch.cat([part.reshape(1, -1) for part in every], dim=1)).reshape(-1)
    dtype, width = x.dtype, 2 if x.is_complex() else 1
    if x.is_complex():  # gloo knows no complex numbers
        x = torch.view_as_real(x).reshape(-1)
    if differentiable and not x.requires_grad:
        x = x.detach().requires_grad_()
    way = _Way([width * sum(part.numel() for part in row) for row in parts], [width * n for n in receive], ranks)
    box = _Box(way)
    return Flight(_Launch.apply(x, box), box, dtype)


class _Tied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *others: Tensor) -> Tensor:
        ctx.others = [(other.shape, other.dtype) for other in others]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        nothing = dy.narrow(0, 0, 0).sum()  # on the graph of dy, that derivatives of any order go the same ways on every rank
        return dy, *(cast(nothing, dtype) + dy.new_zeros(shape, dtype=dtype) for shape, dtype in ctx.others)


def tied(x: Tensor, *others: Tensor | None) -> Tensor:
    """x, on the graph of others that it does not depend on: they get zeros for gradients, and a rank that made nothing of them
    takes part in the collectives of backward."""
    needed = [other for other in others if other is not None and other.requires_grad and torch.is_grad_enabled()]
    return _Tied.apply(x, *needed) if needed else x


class Fetched(NamedTuple):
    """Windows on their way to a rank: `assemble` waits for them."""

    flight: Flight | None
    pieces: list[list[Piece]]  # of each window, in order of time
    windows: Sequence[Window]
    like: Tensor

    def assemble(self) -> list[Tensor]:
        """(B, H, ·) for each window, with its zeros. The first is on the graph of all that was received, be it nothing."""
        B, H, _ = self.like.shape
        parts = [] if self.flight is None else self.flight.land()
        queues: list[Iterator[Tensor]] = []
        for rank, part in enumerate(parts):
            lengths = [piece.length for piece in itertools.chain(*self.pieces) if piece.owner == rank] or [0]
            queues.append(iter(part.split([B * H * n for n in lengths])))
        found = []
        for window, pieces in zip(self.windows, self.pieces, strict=True):
            row = [next(queues[piece.owner]).view(B, H, piece.length) for piece in pieces]
            ends = [self.like.new_zeros(B, H, n) for n in (window.zeros_before, window.zeros_after)]
            found.append([ends[0], *row, ends[1]])
        found[0] += [rest.view(B, H, 0) for queue in queues for rest in queue]
        return [torch.cat(row, dim=2) for row in found]


def fetch(
    windows: Sequence[Sequence[Window]],
    spans: Spans,
    samples: Callable[[int, int], Tensor],
    like: Tensor,
    ranks: Ranks,
    *,
    differentiable: bool,
) -> Fetched:
    """Begin to fetch windows of the sequence from the ranks that own them.

    Args:
        windows: those that each rank needs.
        samples: (B, H, length) of this rank's own samples, from (offset, length), in `like`'s B, H, dtype and device.
        differentiable: as in `launch`.
    """
    of_ranks = [[list(spans.pieces(w.start, w.stop)) for w in needed] for needed in windows]
    mine = of_ranks[ranks.rank]
    flight = None
    if any(window for needed in of_ranks for window in needed):
        nothing = like.narrow(2, 0, 0)
        parts = [
            [samples(p.offset, p.length) for p in itertools.chain(*needed) if p.owner == ranks.rank] or [nothing]
            for needed in of_ranks
        ]
        width = like.shape[0] * like.shape[1]
        receive = [width * sum(p.length for p in itertools.chain(*mine) if p.owner == rank) for rank in range(ranks.size)]
        flight = launch(parts, receive, ranks, differentiable=differentiable)
    return Fetched(flight, mine, windows[ranks.rank], like)
