"""The processes that train one model together: (dp, fsdp, cp), each with its part of every batch, and sums over all of them.

Of a batch every reader, a process of dp and fsdp, takes other sequences; the processes of cp take a span each of the same
ones. What all of them read together is what one process would read.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from longwave.distributed import operators
from longwave.distributed.agreement import Statement, agree
from longwave.distributed.mesh import Ranks, laid_out
from longwave.distributed.spans import shares
from longwave.distributed.sums import summed
from longwave.errors import ArgumentError, UnsupportedError
from longwave.models import SequenceModel, available
from longwave.train.heads import Trained, body_of
from longwave.train.pulse import Pulse
from longwave.train.task import IGNORE, Batch, Score

T = TypeVar("T")

# What blocks are called by beside `forward`.
FORWARDS = ("checkpointed", "staged")


class Sizes(NamedTuple):
    """How many processes each dimension has."""

    dp: int = 1
    fsdp: int = 1
    cp: int = 1


ONE = Sizes()


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees them; `World()` is one process alone.

    Attributes:
        sizes: of the dimensions; `cp` is the innermost one.
        rank: of this process among all.
        pulse: of the processes, where they wait for each other outside of collectives.
        timeout: after which a collective gives up; PyTorch's own without it.
        launcher: the store of the launcher, which outlives a restart of the processes; None without one.
        cp: the mesh of those that share this one's sequences, made by `meet`.
        shards: mesh (dp, fsdp · cp): the parameters are copies over its first dimension and shards over its second.
    """

    sizes: Sizes = ONE
    rank: int = 0
    pulse: Pulse | None = None
    timeout: datetime.timedelta | None = None
    launcher: dist.Store | None = None
    cp: DeviceMesh | None = None
    shards: DeviceMesh | None = None

    @property
    def size(self) -> int:
        return self.sizes.dp * self.sizes.fsdp * self.sizes.cp

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def readers(self) -> int:
        """How many read sequences of their own."""
        return self.sizes.dp * self.sizes.fsdp

    @property
    def reader(self) -> int:
        return self.rank // self.sizes.cp

    def agreed(self, act: Callable[[], T], said: Callable[[T], dict[str, str]] = lambda _: {}) -> T:
        """What `act` gives here, where it succeeds in every process and what they have `said` of it is the same.

        Raises, in every process, what `act` raised in one, or ArgumentError where they differ.
        """
        if self.size == 1:
            return act()
        found: list[T] = []
        failure: list[Exception] = []
        try:
            found.append(act())
        except Exception as error:  # whatever it is: the other processes are to hear of it
            failure.append(error)
        self.together()

        def state() -> Statement:
            if failure:
                raise failure[0]
            return Statement({}, said(found[0]))

        agree(
            Ranks(self.rank, self.size, cast(dist.ProcessGroup, dist.group.WORLD).group_name, torch.device("cpu")),
            "training",
            state,
        )
        return found[0]

    def together(self, what: str = "") -> None:
        """Wait for the other processes as long as they live, and not in a collective: behind what one alone does, or each for a
        time of its own. `what` tells threads apart. Raises RankError where one has failed.
        """
        if self.size > 1:
            cast(Pulse, self.pulse).together(what)

    def meet(self, device: torch.device) -> World:
        """The same with meshes on the type of `device`; all processes call it."""
        if self.size == 1:
            return self
        split = laid_out(device.type, (self.readers, self.sizes.cp), ("reader", "cp"), self.timeout)
        kept = (self.sizes.dp, self.sizes.fsdp * self.sizes.cp)
        shards = laid_out(device.type, kept, ("dp", "shard"), self.timeout)
        return dataclasses.replace(self, cp=split["cp"], shards=shards)

    def check(self, batch: int, model: str, *, short_filters: bool = False) -> None:
        """Refuse what cannot be split so; `short_filters`: whether the filters have fewer taps than a sequence has positions.

        Raises:
            ArgumentError: the sequences of a batch cannot be dealt out evenly, or filters would be others.
            UnsupportedError: the model does not read spans of sequences.
        """
        if batch % self.readers:
            raise ArgumentError(
                f"--batch {batch} cannot be dealt out to --dp {self.sizes.dp} x --fsdp {self.sizes.fsdp} ranks; give a batch "
                f"of {self.readers} sequences or a multiple"
            )
        if self.sizes.cp == 1:
            return
        if not _model(model).splits:
            able = ", ".join(name for name in available() if _model(name).splits)
            raise UnsupportedError(
                f"--cp {self.sizes.cp} splits sequences, and the model {model} does not read spans of them; choose one of "
                f"{able}, or --dp and --fsdp"
            )
        if short_filters and _model(model).follows:
            raise ArgumentError(
                f"--cp {self.sizes.cp} gives the model {model} filters of --filter-length, and its own are as long as the "
                "context; make --filter-length the context"
            )

    def operators(self) -> dict[str, Any]:
        """The arguments of a model that reads this process's spans."""
        return operators(self.cp) if self.cp is not None and self.sizes.cp > 1 else {}

    def pooling(self) -> dict[str, Any]:
        """The arguments of a head that answers once a sequence, of which this process reads a span."""
        if self.cp is None or self.sizes.cp == 1:
            return {}
        return {"total": partial(summed, mesh=self.cp), "ends": self.rank % self.sizes.cp == self.sizes.cp - 1}

    def sharded(self, model: Trained) -> Trained:
        """The model with its parameters spread over the processes (in place); gradients are sums over all of them.

        A block's parameters are together only while it runs; those outside of blocks, among them the head, from the forward
        to the end of the backward.
        """
        if self.shards is None:
            return model
        for block in [*_blocks(body_of(model)), model]:
            state: FSDPModule = fully_shard(block, mesh=self.shards)
            # Losses are shares of one mean: their gradients are added up, not averaged; gloo and NCCL can both do that.
            state.set_gradient_divide_factor(1.0)
            state.set_force_sum_reduction_for_comms(True)
            for name in FORWARDS:
                if hasattr(block, name):
                    register_fsdp_forward_method(block, name)
        return model

    def sum(self, x: Tensor) -> Tensor:
        """Over all processes, the same in each; x itself is left alone."""
        if self.size == 1:
            return x
        total = x.detach().clone()
        dist.all_reduce(total)
        return total

    def any(self, here: bool) -> bool:
        """Whether it is so in some process."""
        return here if self.size == 1 else bool(self.sum(torch.tensor(int(here))).item())

    def told(self, value: T) -> T:
        """The first process's value, in every one."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def told_late(self, make: Callable[[], T]) -> T:
        """What the first process makes; the others wait for it as long as it takes, and not in a collective."""
        value = make() if self.leads else None
        self.together()
        return self.told(cast(T, value))

    def total(self, part: Score) -> Score:
        """Of all that the processes have scored."""
        if self.size == 1:
            return part
        targets, bits, right = self.sum(torch.tensor([part.targets, part.bits, part.right], dtype=torch.float64)).tolist()
        return Score(int(targets), bits, int(right))

    def rows(self, batch: int) -> slice:
        """Of a batch of so many sequences, those of this process's reader."""
        own = batch // self.readers
        return slice(self.reader * own, (self.reader + 1) * own)

    def rounds(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """What this process scores of many batches: every reader another one, all of them as many. Where they do not go round,
        a reader without one reads another's again and is asked nothing of it.
        """
        left = iter(batches)
        while turn := list(itertools.islice(left, self.readers)):
            mine = turn[self.reader] if self.reader < len(turn) else turn[0]
            if self.reader >= len(turn):
                mine = mine._replace(targets=torch.full_like(mine.targets, IGNORE))
            yield self.span(mine)

    def span(self, batch: Batch) -> Batch:
        """What this process reads of the sequences of its reader."""
        if self.sizes.cp == 1:
            return batch
        inputs, targets = batch.inputs, batch.targets
        if batch.cu_seqlens is not None:  # rows follow each other: the boundaries are those of the whole
            inputs, targets = inputs.reshape(1, -1, *inputs.shape[2:]), targets.reshape(1, -1)
        lengths = shares(inputs.shape[1], self.sizes.cp)
        place = self.rank % self.sizes.cp
        span = slice(sum(lengths[:place]), sum(lengths[: place + 1]))
        if targets.dim() == 1:  # one answer a sequence, which one process is asked for
            return Batch(inputs[:, span], targets if place == 0 else torch.full_like(targets, IGNORE))
        return Batch(inputs[:, span], targets[:, span], batch.cu_seqlens)


ALONE = World()


def _blocks(body: SequenceModel) -> Iterator[nn.Module]:
    """The residual blocks of a model, of every tier."""
    for block in body.blocks:
        yield from block if isinstance(block, nn.ModuleList) else [block]


def _model(name: str) -> type[SequenceModel]:
    found: type[SequenceModel] = available()[name].Model
    return found
