"""What a training step of a Hyena preset would hold and send on every rank: from integers, without ranks, data or a GPU.

Activations are counted as autograd keeps them, in float32; the process's own memory, and holes that a C library leaves between
freed blocks, come on top.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from longwave import distributed, models
from longwave.distributed.explain import check_interconnect
from longwave.errors import ArgumentError
from longwave.models.hyena import HyenaConfig, HyenaLM
from longwave.nn import staged
from longwave.nn.decode import PART
from longwave.planner import size
from longwave.train.world import Sizes

FLOAT = 4
# Of a parameter: itself and two moments.
STATES = 3


@dataclass(frozen=True)
class StepPlan:
    """A training step on `sizes` ranks, of the rank that holds and receives most. `print` explains it.

    Attributes:
        parameters: numbers that are trained, of the whole model.
        kept_bytes: of parameters and moments.
        gradient_bytes: of their gradients.
        step_bytes: that a step holds at its peak beside those that are kept: activations and gradients.
        shard_bytes: of parameters and gradients that reach a rank in a step, through FSDP and copies of the model.
        span_bytes: of samples that reach it, since sequences are split.
    """

    preset: str
    context: int
    batch: int
    sizes: Sizes
    checkpointing: bool
    interconnect_gb_s: float
    parameters: int
    kept_bytes: int
    gradient_bytes: int
    step_bytes: int
    shard_bytes: int
    span_bytes: int

    @property
    def communication_ms(self) -> float:
        """With nothing beside it."""
        return (self.shard_bytes + self.span_bytes) / self.interconnect_gb_s / 1e6

    def __str__(self) -> str:
        dp, fsdp, cp = self.sizes
        received = self.shard_bytes + self.span_bytes
        lines = [
            f"training step of {self.preset}: {self.batch} sequences of {self.context:,} in float32, "
            f"on --dp {dp} x --fsdp {fsdp} x --cp {cp} ranks" + (", blocks computed twice" if self.checkpointing else ""),
            f"  parameters {self.parameters:,}; a rank keeps {size(self.kept_bytes)} of them and of their moments",
            f"  memory     {size(self.step_bytes)} a rank in a step, {size(self.gradient_bytes)} of it gradients of parameters",
            f"  received   {size(received)} a rank in a step: {size(self.shard_bytes)} of parameters and gradients, "
            f"{size(self.span_bytes)} of samples",
            f"  predicted  {self.communication_ms:.3g} ms on the way at {self.interconnect_gb_s:g} GB/s",
        ]
        return "\n".join(lines)


def plan(
    preset: str, context: int, batch: int, sizes: Sizes, *, checkpointing: bool = False, interconnect_gb_s: float = 50.0
) -> StepPlan:
    """The step that `longwave train` takes with these options.

    Args:
        preset: of Hyena.
        context: positions of a sequence, and taps of its filters.
        batch: sequences in a step, a multiple of dp x fsdp.
        sizes: ranks along dp, fsdp and cp.
        checkpointing: whether blocks are computed twice.
        interconnect_gb_s: GB/s (1e9 bytes) that reach a rank.

    Raises:
        ArgumentError: the preset is unknown or another model's, or a number is out of range.
    """
    check_interconnect(interconnect_gb_s)
    name, config = models.find_preset(preset)
    if not isinstance(config, HyenaConfig):
        raise ArgumentError(f"steps of Hyena alone are planned, and {preset} is a preset of {name}; choose one of Hyena's")
    readers = sizes.dp * sizes.fsdp
    if min(*sizes, context, batch) < 1 or batch % readers:
        raise ArgumentError(
            f"{batch} sequences of {context:,} cannot be dealt out to --dp {sizes.dp} x --fsdp {sizes.fsdp} ranks; give a "
            f"batch of {readers} or a multiple"
        )
    config = dataclasses.replace(config, filter_length=context)
    with torch.device("meta"):
        model = HyenaLM(config)
    parameters = sum(p.numel() for p in model.parameters())
    blocks = sum(p.numel() for p in model.blocks.parameters())
    shards, rows = sizes.fsdp * sizes.cp, batch // readers
    gradient_bytes = FLOAT * -(-parameters // shards)
    sent, kept = _over_spans(config, rows, sizes.cp, interconnect_gb_s)
    # Blocks are put together for the forward and for the backward, the rest once; gradients go back once, then to the copies.
    gathered = FLOAT * (2 * parameters + blocks) * (shards - 1) // shards
    copied = 2 * gradient_bytes * (sizes.dp - 1) // sizes.dp
    whole = 0 if shards == 1 and sizes.dp == 1 else FLOAT * (parameters - blocks + 2 * blocks // config.layers)
    activations = _activations(config, rows, -(-context // sizes.cp), sizes.cp > 1, checkpointing, kept)
    return StepPlan(
        preset, context, batch, sizes, checkpointing, float(interconnect_gb_s), parameters, STATES * gradient_bytes,
        gradient_bytes, activations + gradient_bytes + whole, gathered + copied,
        (3 if checkpointing else 2) * sent * config.layers * (config.order - 1),
    )  # fmt: skip


def _over_spans(config: HyenaConfig, rows: int, ranks: int, interconnect_gb_s: float) -> tuple[int, int]:
    """Bytes that reach a rank in the forward of a long convolution, and that it keeps for backward."""
    if ranks == 1:
        return 0, 0
    shapes = (rows, config.filter_length, config.d_model), (config.d_model, config.filter_length)
    p = distributed.plan(
        *shapes, ranks=ranks, interconnect_gb_s=interconnect_gb_s, layout="BLH", D=True, pregate=True, postgate=True
    )
    return p.bytes_sent, p.kept_bytes


def _activations(config: HyenaConfig, rows: int, length: int, split: bool, checkpointing: bool, kept: int) -> int:
    """The most bytes in a step, while the last block goes backward: its MLP, or its mixer where that is computed again."""
    d, inner, order, positions = config.d_model, config.d_inner, config.order, rows * length
    taps = FLOAT * config.filter_length
    network = config.filter_features + 3 * config.filter_width * (config.filter_inner_layers + 1)
    filters = d * (order - 1)
    # Beyond a part the filter's network is computed again, a part at a time.
    filter_bytes = taps * 2 * filters + min(taps, FLOAT * PART) * network
    # What stands between x and x + mixer: the norm, both projections, every convolution's result.
    mixer, mlp = d * (1 + 2 * (order + 1) + (order - 1)), d + 2 * inner
    value = FLOAT * positions
    if not checkpointing:
        inside = (2 * d + mixer + mlp) * value + filter_bytes + (order - 1) * kept
        return config.layers * inside + (inner + d) * value
    if length > PART and not split:
        # A block in stages keeps its input. The one that is computed again holds the gradients of input and result, what the
        # convolutions gave and filters; and at one time what those of a group of channels take, its gradients and a result, at
        # another the inside of the MLP for a part of the positions, or that of the filter's network for a part of the taps.
        group = staged.group_channels(d)
        convolved = (2 * (order + 1) + 1) * group * value + 2 * taps * (order - 1) * group
        fed = (4 * d + 3 * inner) * FLOAT * rows * min(length, staged.PART)
        made = (network + 4 * filters) * min(taps, FLOAT * PART)
        return (config.layers + 3) * d * value + taps * filters + max(convolved, fed, made)
    part = FLOAT * rows * min(length, PART)
    again = max((mlp + inner) * part + d * value, (mixer + (order + 2) * d) * value + filter_bytes + (order - 1) * kept)
    return config.layers * 2 * d * value + again
