"""A Hyena block over a long sequence in stages, holding little more than its convolutions read and write.

What stands before and after the long convolutions works position by position, but for the few that the short one sees, and
runs on a part of the sequence at a time; the projections and the long convolutions run on a group of channels at a time. With
gradients the block keeps its input alone and computes everything else again: beside input, filters and the gradients of input
and result there are then, at the worst moment, some 2 d_model values a position for order 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from longwave.errors import UnsupportedError
from longwave.nn.hyena import HyenaOperator

# Positions taken at a time: the inside of an MLP, some twenty times as wide as x, is then a small part of a long sequence.
PART = 2**14
# So many groups of channels; each is of at least the lanes that an engine fills.
GROUPS = 8
LEAST_CHANNELS = 16


class StagedBlock(Protocol):
    """What `in_stages` runs: a residual block around a `HyenaOperator`."""

    @property
    def operator(self) -> HyenaOperator: ...

    def before(self, x: Tensor, channels: slice) -> Tensor:
        """(B, l, d_model) to what `operator.between_gates` takes of some channels, side by side: (B, l, (order + 1) h)."""
        ...

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        """From the block's input and what `operator.between_gates` gave, both (B, l, d_model), to the block's result."""
        ...


def in_stages(block: StagedBlock, x: Tensor) -> Tensor:
    """What `block(x)` is, of x (B, L, d_model); without gradients it is written into x itself.

    Raises:
        UnsupportedError: by the backward pass, where a second one is to follow: derivatives are of the first order alone.
    """
    if not torch.is_grad_enabled():
        return _forward(block, x, x)
    held = _Held(cast(nn.Module, block))
    result: Tensor = _Staged.apply(x, block, held, *held.parameters)
    return result


def _spans(block: StagedBlock, L: int) -> list[tuple[int, int, int]]:
    """From where a part is read, where it begins and where it ends."""
    lead = block.operator.short.weight.shape[1] - 1  # what the short convolution sees of the part before
    return [(max(start - lead, 0), start, min(start + PART, L)) for start in range(0, L, PART)]


def group_channels(d_model: int) -> int:
    """Channels of the groups that are projected and convolved together."""
    return min(max(-(-d_model // GROUPS), LEAST_CHANNELS), d_model)


def _groups(block: StagedBlock) -> list[slice]:
    d = block.operator.d_model
    size = group_channels(d)
    return [slice(first, min(first + size, d)) for first in range(0, d, size)]


def _projected(block: StagedBlock, x: Tensor, channels: slice) -> Tensor:
    """What the convolutions of some channels take, (B, (order + 1) h, L): a channel's samples side by side, since rows this
    long are convolved one by one, 4 times as fast so."""
    projected = x.new_empty(0)
    for read, start, stop in _spans(block, x.shape[1]):
        part = block.before(x[:, read:stop], channels)[:, start - read :]
        if not start:
            projected = part.new_empty(x.shape[0], part.shape[2], x.shape[1])
        projected[:, :, start:stop] = part.transpose(1, 2)
    return projected


def _taken(block: StagedBlock, projected: Tensor, k: Tensor, channels: slice) -> list[Tensor]:
    """What `between_gates` takes of some channels: v, the gates, and the filters."""
    operator = block.operator
    return [*projected.chunk(operator.order + 1, dim=1), *(filters[channels] for filters in k.split(operator.d_model))]


def _between_gates(block: StagedBlock, taken: list[Tensor], channels: slice) -> Tensor:
    operator, parts = block.operator, block.operator.order + 1
    return operator.between_gates(taken[:parts], taken[parts:], operator.D[:, channels], layout="BHL")


def _mixed(block: StagedBlock, x: Tensor, k: Tensor) -> Tensor:
    """What the convolutions give, (B, d_model, L)."""
    mixed = x.new_empty(0)
    for channels in _groups(block):
        projected = _projected(block, x, channels)
        y = _between_gates(block, _taken(block, projected, k, channels), channels)
        if not channels.start:
            mixed = y.new_empty(x.shape[0], block.operator.d_model, x.shape[1])
        mixed[:, channels] = y
    return mixed


def _forward(block: StagedBlock, x: Tensor, out: Tensor) -> Tensor:
    """Into `out`, of the shape of x, which may be x."""
    mixed = _mixed(block, x, block.operator.filters(x.shape[1]))
    for _, start, stop in _spans(block, x.shape[1]):
        out[:, start:stop] = block.after(x[:, start:stop], mixed[:, :, start:stop].transpose(1, 2))
    return out


class _Staged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, block: StagedBlock, held: _Held, *parameters: Tensor) -> Tensor:
        device = x.device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.block, ctx.held = block, held
        ctx.save_for_backward(x)
        return _forward(block, x, torch.empty_like(x))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise UnsupportedError(
                "a gradient of a gradient (create_graph) was asked of a Hyena block in stages, which has the first alone; "
                "set the model's activation_checkpointing to False"
            )
        (x,) = ctx.saved_tensors
        # Of their own, so that hooks of the parameters see nothing but the sums.
        leaves = [parameter.detach().requires_grad_(parameter.requires_grad) for parameter in ctx.held.parameters]
        gradients = _Gradients(leaves)
        device, dtype, enabled = ctx.autocast
        with torch.autocast(device, dtype=dtype, enabled=enabled), ctx.held.replaced(leaves):
            dx = _backward(ctx.block, x.detach(), dy, gradients)
        return dx, None, None, *gradients.sums


class _Held:
    """What parameters a block has at the moment, and where: in the backward pass it may have others (`torch.func`).

    Attributes:
        parameters: each once, however often it is held.
    """

    def __init__(self, block: nn.Module) -> None:
        found = [
            (module, name, parameter)
            for module in block.modules()
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        ]
        self.parameters = list(dict.fromkeys(parameter for _, _, parameter in found))
        numbers = {id(parameter): number for number, parameter in enumerate(self.parameters)}
        self.places = [(module, name, numbers[id(parameter)]) for module, name, parameter in found]

    @contextmanager
    def replaced(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Within, the block has these in the place of its parameters."""
        before = [(module, name, module._parameters[name]) for module, name, _ in self.places]
        for module, name, number in self.places:
            module._parameters[name] = cast(nn.Parameter, tensors[number])
        try:
            yield
        finally:
            for module, name, parameter in before:
                module._parameters[name] = parameter


class _Gradients:
    """Gradients of parameters, summed over the parts that give them; None for one that is frozen or in no part.

    Attributes:
        sums: in the order of the parameters.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self.sums: list[Tensor | None] = [None] * len(parameters)

    def back(self, y: Tensor, dy: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The gradients of `inputs` for the gradient dy of y; those of parameters are added up."""
        trained = [index for index, parameter in enumerate(self.parameters) if parameter.requires_grad]
        wanted = [*inputs, *(self.parameters[index] for index in trained)]
        found: tuple[Tensor | None, ...] = torch.autograd.grad(y, wanted, dy, allow_unused=True)
        for index, gradient in zip(trained, found[len(inputs) :], strict=True):
            before = self.sums[index]
            if gradient is not None:
                self.sums[index] = gradient if before is None else before + gradient
        return tuple(torch.zeros_like(x) if dx is None else dx for x, dx in zip(inputs, found, strict=False))


def _backward(block: StagedBlock, x: Tensor, dy: Tensor, gradients: _Gradients) -> Tensor:
    """The gradient of x. What was computed again is overwritten by its own gradient once it is of no more use."""
    spans = _spans(block, x.shape[1])
    with torch.enable_grad():
        k = block.operator.filters(x.shape[1])
    mixed = _mixed(block, x, k.detach())
    dx = torch.empty_like(x)
    for _, start, stop in spans:
        x_part = x[:, start:stop].detach().requires_grad_()
        mixed_part = mixed[:, :, start:stop].transpose(1, 2).contiguous().requires_grad_()
        with torch.enable_grad():
            out = block.after(x_part, mixed_part)
        dx[:, start:stop], dy_part = gradients.back(out, dy[:, start:stop], x_part, mixed_part)
        mixed[:, :, start:stop] = dy_part.transpose(1, 2)
    for channels in _groups(block):
        projected = _projected(block, x, channels)
        leaves = [leaf.detach().requires_grad_() for leaf in _taken(block, projected, k.detach(), channels)]
        with torch.enable_grad():
            y = _between_gates(block, leaves, channels)
        for leaf, gradient in zip(leaves, gradients.back(y, mixed[:, channels], *leaves), strict=True):
            leaf.detach().copy_(gradient)  # in `projected` and k
        del y, leaves, leaf, gradient
        for read, start, stop in spans:
            x_part = x[:, read:stop].detach().requires_grad_()
            with torch.enable_grad():
                part = block.before(x_part, channels)[:, start - read :]
            dx[:, read:stop] += gradients.back(part, projected[:, :, start:stop].transpose(1, 2), x_part)[0]
        del projected
    if k.requires_grad:
        gradients.back(k, k.detach())
    return dx
