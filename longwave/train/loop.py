"""The training loop: batches in, a folder of weights, state and metrics out.

Everything a step does follows from the options and the step's number, so that a run that stops after any step and
resumes gives the same bits as one that never stopped. Every process of a run goes through the same loop: what it does next
depends on numbers that all of them have.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd.graph import save_on_cpu

from longwave.errors import ArgumentError
from longwave.train import checkpoint
from longwave.train.heads import Trained
from longwave.train.interrupt import InterruptGuard, StoppedError
from longwave.train.optim import clip_gradient, learning_rate, make_optimizer, set_rate
from longwave.train.options import Options
from longwave.train.progress import Progress
from longwave.train.record import METRICS, Metrics, draw
from longwave.train.score import loss_nats, on_device, right_answers
from longwave.train.state import Saver, remove_unfinished, restore
from longwave.train.task import Batch, Batches, Metric, Reference, Score
from longwave.train.world import ALONE, World


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after `step` steps, interrupted or not."""

    step: int
    interrupted: bool


@dataclass(frozen=True)
class Job:
    """What the loop trains, and on what.

    Attributes:
        model: on `device`, with its head; spread over the processes.
        batches: a step (0 is the first) to its `Batch`, or the rows of it that a process reads; the same for the same step.
        validate: the model's score on the validation data, without gradients; the same in every process. It asks before each
            batch whether to stop, and raises StoppedError where that is so.
        metric: what is written down and drawn of it.
        unit: what a position is.
        description: what the weights say about themselves; the loop fills in the step.
        references: what the picture compares with.
        autocast: whether the model runs in bfloat16.
        offload: whether what is kept for backward is moved to the memory of the CPU until then.
        world: the processes that train it.
    """

    model: Trained
    batches: Batches
    validate: Callable[[Trained, Callable[[], bool]], Score]
    metric: Metric
    unit: str
    description: checkpoint.Description
    references: Sequence[Reference]
    device: torch.device
    autocast: bool
    offload: bool = False
    world: World = ALONE


def train(job: Job, options: Options, folder: Path, *, resume: bool, guard: InterruptGuard) -> Outcome:
    """Train `job.model` in `folder`, from its newest checkpoint or from the start.

    Args:
        job: model and data.
        options: the run's.
        folder: exists; holds `config.toml`, and a checkpoint if `resume`.
        resume: whether to go on from the newest whole checkpoint.
        guard: entered; when it is asked to stop in any process, all of them save after the step in hand and return. A
            validation that is cut short is owed, and made when the run is resumed.

    Raises:
        ArgumentError: the loss is no longer a number.
        DataError: no whole checkpoint to resume from, or the file system refuses.
    """
    model, metric, world = job.model, job.metric, job.world
    metrics = Metrics(folder / METRICS, writes=world.leads)
    optimizer = make_optimizer(model, lr=options.lr, weight_decay=options.weight_decay)
    start, saved, notes = 0, -1, list[str]()
    if resume:
        if world.leads:
            remove_unfinished(folder)
        world.together()
        if world.told(checkpoint.steps_in(folder)):  # none: it was stopped before its first checkpoint, and begins again
            start, notes = restore(folder, model, optimizer, world, job.description)
            saved = start
        metrics.cut_back(start)
        world.together()
    progress = Progress(
        options.steps, start, options.batch * options.context, unit=job.unit, label=metric.label, seconds=metrics.seconds,
        shown=world.leads,
    )  # fmt: skip
    for note in notes:
        progress.say(f"passed over: {note}")

    saver = Saver(folder, world)

    def save(step: int) -> None:
        saver.save(model, optimizer, dataclasses.replace(job.description, step=step))
        if world.leads:
            draw(folder, f"{job.description.preset}, context {options.context:,}", metric, job.references)
        world.together()

    def stopping() -> bool:
        return world.any(guard.requested)

    def validate(step: int) -> bool:
        """Whether it came to its end."""
        model.eval()
        try:
            cost = job.validate(model, stopping)
        except StoppedError:
            return False
        values = {metric.name: metric.of(cost), f"{metric.counted}s": cost.targets}
        metrics.append("validation", step, **values)
        progress.say(f"step {step:,}: validation {metric.of(cost):.4f} {metric.label}")
        world.together()
        return True

    def due(step: int) -> bool:
        return step == options.steps or step % options.eval_every == 0

    step = start
    try:
        # A run interrupted between a step and its validation still owes it.
        owed = (
            resume and step and due(step) and not any(m["kind"] == "validation" and m["step"] == step for m in metrics.read())
        )
        stop = stopping() or (bool(world.told(owed)) and not validate(step))
        while step < options.steps and not stop:
            model.train()
            batch = world.span(job.batches(step, world.rows(options.batch)))
            rate = learning_rate(step, peak=options.lr, warmup=options.warmup, steps=options.steps)
            values = update(job, optimizer, rate, options.clip, step, batch)
            step += 1
            speed = {f"{job.unit}s_per_s": round(progress.per_second(step), 1), "seconds": round(progress.seconds, 3)}
            metrics.append("train", step, **values, **speed)
            progress.update(step, values[metric.name])
            began = time.perf_counter()
            saver.check()
            world.together()  # the first process has written
            stop = stopping()
            if due(step) and not stop:
                stop = not validate(step)
            if step % options.checkpoint_every == 0 or step == options.steps or stop:
                save(step)
                saved = step
            progress.exclude(time.perf_counter() - began)
        if stop and saved != step:
            save(step)
        saver.finish()
        world.together()
    finally:
        saver.close()
        progress.close()
    return Outcome(step, stop)


def update(job: Job, optimizer: torch.optim.Optimizer, rate: float, clip: float, step: int, batch: Batch) -> dict[str, float]:
    """One update from this process's share of the batch of `step` (0 is the first) at the learning rate `rate`.

    Returns:
        What is written down, of the whole batch.

    Raises:
        ArgumentError: the loss or its gradient is not finite.
    """
    set_rate(optimizer, rate)
    batch, world = on_device(batch, job.device), job.world
    # Around a checkpointed block it is the block's input that moves.
    with save_on_cpu(pin_memory=job.device.type == "cuda") if job.offload else nullcontext():
        nats, count, hidden = loss_nats(job.model, batch, autocast=job.autocast)
    asked = world.sum(count)
    loss = nats / asked
    # Before the backward, after which the parameters of the head may be apart again.
    right = right_answers(job.model, hidden.detach(), batch.targets) if job.metric.higher_is_better else None
    del nats, hidden  # as large as all inputs of a block: not to be held through the backward pass
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = clip_gradient(job.model, clip)
    bits = world.sum(loss.detach()).item() / math.log(2)
    if not math.isfinite(bits) or not math.isfinite(norm):  # both are the same in every process
        error = ArgumentError(
            f"the loss of step {step + 1:,} or its gradient is not finite; start again with a smaller --lr "
            f"than {rate:.2g} or a longer --warmup (the newest checkpoint is from before)"
        )
        error.everywhere = True
        raise error
    values = {job.metric.name: bits}
    if right is not None:
        values = {job.metric.name: int(world.sum(right)) / int(asked), "bits": bits}
    optimizer.step()
    return {**values, "learning_rate": rate, "gradient_norm": norm}
