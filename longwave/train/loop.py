"""The training loop: batches in, a folder of weights, state and metrics out.

Everything a step does follows from the options and the step's number, so that a run that stops after any step and
resumes gives the same bits as one that never stopped.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from longwave.errors import ArgumentError
from longwave.models import SequenceModel
from longwave.train import checkpoint
from longwave.train.interrupt import InterruptGuard
from longwave.train.optim import learning_rate, make_optimizer
from longwave.train.options import Options
from longwave.train.progress import Progress
from longwave.train.record import METRICS, Metrics, draw_loss
from longwave.train.score import Score, loss_nats


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after `step` steps, interrupted or not; `bases_per_s` of training in this process, NaN without
    any.
    """

    step: int
    interrupted: bool
    bases_per_s: float


class Batch(NamedTuple):
    """The windows of a step.

    Attributes:
        tokens: (batch, context + 1) uint8 on the CPU: `[:, :-1]` are the inputs, `[:, 1:]` the targets.
        cu_seqlens: (S + 1,) int32 on the CPU, the documents in the inputs, row after row, where any row holds two.
    """

    tokens: Tensor
    cu_seqlens: Tensor | None = None


@dataclass(frozen=True)
class Job:
    """What the loop trains, and on what.

    Attributes:
        model: on `device`.
        batches: data-parallel rank to a function that takes a step (0 is the first) to its `Batch`; the same for the same
            rank and step.
        validate: the model's cost of the validation bases, without gradients.
        description: what the weights say about themselves; the loop fills in the step.
        markov_bits: the Markov model's bits per base on the validation bases, for the picture.
        autocast: whether the model runs in bfloat16.
    """

    model: SequenceModel
    batches: Callable[[int], Callable[[int], Batch]]
    validate: Callable[[SequenceModel], Score]
    description: checkpoint.Description
    markov_bits: float
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
    model, metrics = job.model, Metrics(folder / METRICS)
    optimizer = make_optimizer(model, lr=options.lr, weight_decay=options.weight_decay)
    start, saved, notes = 0, -1, list[str]()
    if resume:
        if checkpoint.steps_in(folder):  # none: it was stopped before its first checkpoint, and begins again
            start, notes = checkpoint.restore(folder, model, optimizer)
            saved = start
        metrics.cut_back(start)
    progress = Progress(options.steps, start, options.batch * options.context)
    for note in notes:
        progress.say(f"passed over: {note}")

    def save(step: int) -> None:
        checkpoint.save(folder, model, optimizer, dataclasses.replace(job.description, step=step))
        draw_loss(folder, f"{job.description.preset}, context {options.context:,}", job.markov_bits)

    def validate(step: int) -> None:
        model.eval()
        cost = job.validate(model)
        metrics.append("validation", step, bits_per_base=cost.bits_per_base, bases=cost.bases)
        progress.say(f"step {step:,}: validation {cost.bits_per_base:.4f} bits per base")

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
            values = _step(job, optimizer, options, step, batch(step))
            step += 1
            speed = progress.bases_per_second(step)
            metrics.append("train", step, **values, bases_per_s=round(speed, 1))
            progress.update(step, values["bits_per_base"])
            began = time.perf_counter()
            if due(step) and not guard.requested:
                validate(step)
            if step % options.checkpoint_every == 0 or step == options.steps or guard.requested:
                save(step)
                saved = step
            progress.exclude(time.perf_counter() - began)
        speed = progress.bases_per_second(step) if step > start else math.nan
        if guard.requested and saved != step:
            save(step)
    finally:
        progress.close()
    return Outcome(step, guard.requested, speed)


def _step(job: Job, optimizer: torch.optim.Optimizer, options: Options, step: int, batch: Batch) -> dict[str, float]:
    """One update from the batch of `step`; returns what is written down."""
    rate = learning_rate(step, peak=options.lr, warmup=options.warmup, steps=options.steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    tokens = batch.tokens.to(job.device)
    nats, count = loss_nats(job.model, tokens[:, :-1], tokens[:, 1:], batch.cu_seqlens, autocast=job.autocast)
    loss = nats / count
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(job.model.parameters(), options.clip)
    bits = loss.item() / math.log(2)
    if not math.isfinite(bits) or not math.isfinite(norm.item()):
        raise ArgumentError(
            f"the loss of step {step + 1:,} or its gradient is not finite; start again with a smaller --lr "
            f"than {options.lr} or a longer --warmup (the newest checkpoint is from before)"
        )
    optimizer.step()
    return {"bits_per_base": bits, "learning_rate": rate, "gradient_norm": norm.item()}
