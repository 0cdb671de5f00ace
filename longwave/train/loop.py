"""The training loop: batches in, a folder of weights, state and metrics out.

Everything a step does follows from the options and the step's number, so that a run that stops after any step and
resumes gives the same bits as one that never stopped.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.device_mesh import DeviceMesh

from longwave.errors import ArgumentError
from longwave.train import checkpoint
from longwave.train.heads import Trained
from longwave.train.interrupt import InterruptGuard
from longwave.train.optim import learning_rate, make_optimizer, set_rate
from longwave.train.options import Options
from longwave.train.progress import Progress
from longwave.train.record import METRICS, Metrics, draw
from longwave.train.score import loss_nats, on_device, right_answers
from longwave.train.task import Batch, Metric, Reference, Score


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after `step` steps, interrupted or not."""

    step: int
    interrupted: bool


@dataclass(frozen=True)
class Job:
    """What the loop trains, and on what.

    Attributes:
        model: on `device`, with its head.
        batches: data-parallel rank to a function that takes a step (0 is the first) to its `Batch`; the same for the same
            rank and step.
        validate: the model's score on the validation data, without gradients.
        metric: what is written down and drawn of it.
        unit: what a position is.
        description: what the weights say about themselves; the loop fills in the step.
        references: what the picture compares with.
        autocast: whether the model runs in bfloat16.
    """

    model: Trained
    batches: Callable[[int], Callable[[int], Batch]]
    validate: Callable[[Trained], Score]
    metric: Metric
    unit: str
    description: checkpoint.Description
    references: Sequence[Reference]
    device: torch.device
    autocast: bool


def train(job: Job, options: Options, folder: Path, *, resume: bool, mesh: DeviceMesh, guard: InterruptGuard) -> Outcome:
    """Train `job.model` in `folder`, from its newest checkpoint or from the start.

    Args:
        job: model and data.
        options: the run's.
        folder: exists; holds `config.toml`, and a checkpoint if `resume`.
        resume: whether to go on from the newest whole checkpoint.
        mesh: dimensions dp, fsdp and cp.
        guard: entered; when it is asked to stop, the loop saves after the step in hand and returns.

    Raises:
        ArgumentError: the loss is no longer a number.
        DataError: no whole checkpoint to resume from, or the file system refuses.
    """
    model, metric, metrics = job.model, job.metric, Metrics(folder / METRICS)
    optimizer = make_optimizer(model, lr=options.lr, weight_decay=options.weight_decay)
    start, saved, notes = 0, -1, list[str]()
    if resume:
        if checkpoint.steps_in(folder):  # none: it was stopped before its first checkpoint, and begins again
            start, notes = checkpoint.restore(folder, model, optimizer)
            saved = start
        metrics.cut_back(start)
    progress = Progress(
        options.steps, start, options.batch * options.context, unit=job.unit, label=metric.label, seconds=metrics.seconds
    )
    for note in notes:
        progress.say(f"passed over: {note}")

    def save(step: int) -> None:
        checkpoint.save(folder, model, optimizer, dataclasses.replace(job.description, step=step))
        draw(folder, f"{job.description.preset}, context {options.context:,}", metric, job.references)

    def validate(step: int) -> None:
        model.eval()
        cost = job.validate(model)
        values = {metric.name: metric.of(cost), f"{metric.counted}s": cost.targets}
        metrics.append("validation", step, **values)
        progress.say(f"step {step:,}: validation {metric.of(cost):.4f} {metric.label}")

    def due(step: int) -> bool:
        return step == options.steps or step % options.eval_every == 0

    batch = job.batches(mesh["dp"].get_local_rank())
    step = start
    try:
        # A run interrupted between a step and its validation still owes it.
        if resume and step and due(step) and not any(m["kind"] == "validation" and m["step"] == step for m in metrics.read()):
            validate(step)
        while step < options.steps and not guard.requested:
            model.train()
            rate = learning_rate(step, peak=options.lr, warmup=options.warmup, steps=options.steps)
            values = update(job, optimizer, rate, options.clip, step, batch(step))
            step += 1
            speed = {f"{job.unit}s_per_s": round(progress.per_second(step), 1), "seconds": round(progress.seconds, 3)}
            metrics.append("train", step, **values, **speed)
            progress.update(step, values[metric.name])
            began = time.perf_counter()
            if due(step) and not guard.requested:
                validate(step)
            if step % options.checkpoint_every == 0 or step == options.steps or guard.requested:
                save(step)
                saved = step
            progress.exclude(time.perf_counter() - began)
        if guard.requested and saved != step:
            save(step)
    finally:
        progress.close()
    return Outcome(step, guard.requested)


def update(job: Job, optimizer: torch.optim.Optimizer, rate: float, clip: float, step: int, batch: Batch) -> dict[str, float]:
    """One update from the batch of `step` (0 is the first) at the learning rate `rate`; returns what is written down.

    Raises:
        ArgumentError: the loss or its gradient is not finite.
    """
    set_rate(optimizer, rate)
    batch = on_device(batch, job.device)
    nats, count, hidden = loss_nats(job.model, batch, autocast=job.autocast)
    loss = nats / count
    right = right_answers(job.model, hidden.detach(), batch.targets) if job.metric.higher_is_better else None
    del nats, hidden  # as large as all inputs of a block: not to be held through the backward pass
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(job.model.parameters(), clip)
    bits = loss.item() / math.log(2)
    if not math.isfinite(bits) or not math.isfinite(norm.item()):
        raise ArgumentError(
            f"the loss of step {step + 1:,} or its gradient is not finite; start again with a smaller --lr "
            f"than {rate:.2g} or a longer --warmup (the newest checkpoint is from before)"
        )
    values = {job.metric.name: bits}
    if right is not None:
        values = {job.metric.name: int(right) / int(count), "bits": bits}
    optimizer.step()
    return {**values, "learning_rate": rate, "gradient_norm": norm.item()}
