"""Whole training steps of a model, with one backend of the convolutions and another, beside what no convolution could beat."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from longwave import models
from longwave.bench.memory import peak_extra_bytes
from longwave.train.heads import Trained, body_of, with_head
from longwave.train.score import loss_nats
from longwave.train.task import Batch, Classes

COPY = "copy"
SCHEMA = "longwave-step/1"
# Turns that do not count: compilation, and memory that is kept from then on. Only from the ninth on did what a step of LongConv
# at 16,384 frees fit what the next one asks for: before, each touched up to 200 MiB of fresh pages a layer.
UNCOUNTED = 8
LONG_S = 60.0
# Positions of a step that comes before one that is not timed.
FEW = 64


class _Copy(torch.autograd.Function):
    """In the place of a convolution: one copy forward, and gradients that cost nothing."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, *others: Tensor | None) -> Tensor:
        ctx.save_for_backward(*others)
        return u.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return dy, *(None if x is None else dy if x.shape == dy.shape else torch.zeros_like(x) for x in ctx.saved_tensors)


def _copied(u: Tensor, k: Tensor, D: Tensor | None = None, **options: Any) -> Tensor:
    y: Tensor = _Copy.apply(u, k, D, *(options.get(name) for name in ("k_rev", "pregate", "postgate")))
    return y


@dataclass(frozen=True)
class Steps:
    """Median seconds of a training step of each kind, in the order they were asked for, none where nothing was timed; and,
    where that was asked for and the machine can say, the bytes that a step holds at its peak, gradients among them, beside the
    parameters and the optimizer's state.
    """

    preset: str
    model: str
    context: int
    batch: int
    seconds: dict[str, float]
    layers: int
    bytes: dict[str, int | None]

    def __str__(self) -> str:
        lines = [f"one training step of {self.preset} with {self.layers} layers, {self.batch} sequences of {self.context:,}:"]
        if not self.seconds:
            return "\n".join([*lines, *(f"  backend {name}: {_gib(held)}" for name, held in self.bytes.items())])
        positions, ceiling = self.batch * self.context, self.seconds[COPY]
        for name, seconds in self.seconds.items():
            what = "convolutions replaced by a copy" if name == COPY else f"backend {name}"
            speed = f"{positions / seconds:,.0f} positions/s, {ceiling / seconds:.0%} of the ceiling"
            if "plain" in self.seconds:
                speed += f", {self.seconds['plain'] / seconds:.2f} × plain"
            speed += f", {_gib(self.bytes[name])}" if name in self.bytes else ""
            lines.append(f"  {seconds:8.3f} s  {what}: {speed}")
        return "\n".join(lines)


def _gib(held: int | None) -> str:
    return "this machine does not say how much it holds" if held is None else f"{held / 2**30:.2f} GiB"


def measure(
    preset: str,
    context: int,
    batch: int,
    backends: Sequence[str],
    *,
    rounds: int,
    activation_checkpointing: bool,
    layers: int | None = None,
    memory: bool = False,
) -> Steps:
    """Steps in turns (loss, gradients, AdamW; random inputs), the first eight of each not counted, or one if all take a minute.

    With `memory` one more of each, for what it holds; in 0 rounds that alone, after one of few positions, and none of copies.
    With `layers` the model has so many: all blocks cost the same, and a few of them say enough.
    The loss is that of the next token where the model predicts tokens, and of ten classes a sequence elsewhere.

    Raises:
        ArgumentError: an unknown preset, or a context that the model refuses.
    """
    kind, config = models.find_preset(preset)
    module = models.find(kind)
    config = config if layers is None else replace(config, layers=layers)
    sample, classes = _example(config, batch, context)
    steps: dict[str, Callable[..., None]] = {}
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for name in (*backends, COPY) if rounds else backends:
        torch.manual_seed(0)
        chosen = {"conv": _copied} if name == COPY else {"backend": name}
        model = with_head(module.Model(replace(config, filter_length=context), **chosen), classes)
        body_of(model).activation_checkpointing = activation_checkpointing
        optimizer = torch.optim.AdamW(model.parameters())

        def step(taken: Batch = sample, model: Trained = model, optimizer: torch.optim.Optimizer = optimizer) -> None:
            nats, count = loss_nats(model, taken, autocast=False)[:2]
            optimizer.zero_grad(set_to_none=True)
            (nats / count).backward()
            optimizer.step()

        steps[name], optimizers[name] = step, optimizer
    times: dict[str, list[float]] = {name: [] for name in steps}
    turn, began = 0, time.perf_counter()
    while rounds and turn < UNCOUNTED + rounds:
        for name, one_step in steps.items():
            start = time.perf_counter()
            one_step()
            if turn >= UNCOUNTED:
                times[name].append(time.perf_counter() - start)
        # What the second step still finds new (kept memory, compiled kernels of the optimiser) is nothing beside a minute.
        turn += UNCOUNTED if turn == 0 and time.perf_counter() - began > LONG_S * len(steps) else 1
    held = {}
    for name, one_step in steps.items() if memory else ():
        if not rounds:  # moments, modules and threads are there after few positions too
            one_step(Batch(sample.inputs[:, :FEW], sample.targets if classes else sample.targets[:, :FEW]))
        optimizers[name].zero_grad(set_to_none=True)  # those of the step itself are to count
        held[name] = peak_extra_bytes(one_step)
    medians = {name: statistics.median(found) for name, found in times.items() if found}
    return Steps(preset, kind, context, batch, medians, config.layers, held)


def _example(config: Any, batch: int, context: int) -> tuple[Batch, Classes | None]:
    if config.predicted:
        tokens = torch.randint(0, config.predicted, (batch, context + 1))
        return Batch(tokens[:, :-1], tokens[:, 1:]), None
    inputs = torch.randn(batch, context, config.values)
    if config.vocabulary:
        inputs = torch.randint(0, config.vocabulary, (batch, context))
    return Batch(inputs, torch.randint(0, 10, (batch,))), Classes(10, "mean")
