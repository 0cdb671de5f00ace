"""Equal compute: one model and one wall-clock budget on two backends; which has learned more when it ends?"""

from __future__ import annotations

import dataclasses
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from longwave.bench.record import write_atomically
from longwave.bench.stamp import Stamp
from longwave.errors import ArgumentError
from longwave.train import job, loop, options
from longwave.train.begin import begin
from longwave.train.determinism import same_bits
from longwave.train.optim import learning_rate, make_optimizer
from longwave.train.optional import TRAIN_MODULES, need
from longwave.train.options import Options
from longwave.train.record import running_mean
from longwave.train.score import loss_nats, on_device, score
from longwave.train.task import Metric, Reference, Task

SCHEMA = "longwave-race/1"
RIVAL = "plain"
VALIDATIONS = 10
TICKS = 1_000
"""The learning rate follows the share of the budget that is spent, in so many steps."""


@dataclass
class Arm:
    """One side of a race: seconds of training at the end of every step, the score of that step's batch, validations as
    (seconds, score), and the score of the test data.
    """

    backend: str
    seconds: list[float] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    validation: list[tuple[float, float]] = field(default_factory=list)
    test: float = float("nan")

    @property
    def spent(self) -> float:
        return self.seconds[-1] if self.seconds else 0.0


@dataclass(frozen=True)
class Race:
    """What was run, and how it ended."""

    chosen: Options
    budget: float
    metric: Metric
    parameters: int
    references: list[Reference]
    arms: list[Arm]

    def __str__(self) -> str:
        head = f"{self.chosen.task}, {self.chosen.preset}, {self.chosen.batch} sequences of {self.chosen.context:,} a step"
        lines = [f"{head}; {self.budget:g} s of training each:"]
        for arm in self.arms:
            last = f"validation {arm.validation[-1][1]:.4f}, test {arm.test:.4f} {self.metric.label}"
            lines.append(f"  {arm.backend:<8}{len(arm.seconds):>8,} steps  {last}")
        lines += [f"  {reference.label}: test {reference.test:.4f}" for reference in self.references]
        return "\n".join(lines)

    def as_dict(self, stamp: Stamp) -> dict[str, Any]:
        """JSON's types, all raw numbers."""
        arms = [dataclasses.asdict(arm) for arm in self.arms]
        references = [dataclasses.asdict(reference) for reference in self.references]
        about = {"task": self.chosen.task, **self.chosen.flat, "metric": self.metric.name, "parameters": self.parameters}
        return {"schema": SCHEMA, "stamp": dataclasses.asdict(stamp), "budget_s": self.budget, **about,
                "references": references, "arms": arms}  # fmt: skip


def run(chosen: Options, budget: float) -> Race:
    """Train from the same weights on the same batches, in turns: the side that has spent less time takes the next step.

    The learning rate of a step follows the share of the budget that was spent before it, so that both sides end their
    schedule with the budget. Validations and the first step of each side, which compiles, are not counted.

    Args:
        chosen: the run's options; its `backend` races against `plain`, its `steps` say nothing.
        budget: seconds of training for each side.

    Raises:
        ArgumentError: no time, or `plain` against itself, or an option that cannot be used.
    """
    for module in TRAIN_MODULES:
        need(module)
    if not 0 < budget < float("inf"):
        raise ArgumentError(f"--seconds {budget:g} is no time to train; give more than 0")
    if chosen.backend == RIVAL:
        raise ArgumentError(f"a race is against --backend {RIVAL}; name another backend, or leave it out")
    device = options.choose_device(chosen.device)
    task = job.opened(chosen)
    sides = [_Side(dataclasses.replace(chosen, backend=name), task, device) for name in (RIVAL, chosen.backend)]
    with same_bits(device):
        for side in sides:
            side.warm()
        while True:
            side = min(sides, key=lambda side: side.arm.spent)
            if side.arm.spent >= budget:
                break
            side.step(budget)
        for side in sides:
            side.finish(task)
    metric = sides[0].job.metric
    arms = [side.arm for side in sides]
    return Race(chosen, budget, metric, job.parameters(sides[0].job.model), task.references(), arms)


class _Side:
    def __init__(self, chosen: Options, task: Task, device: torch.device) -> None:
        self.chosen, self.arm = chosen, Arm(chosen.backend)
        self.job = job.make_job(chosen, task, device)
        begin(self.job.model, chosen, task)
        self.optimizer = make_optimizer(self.job.model, lr=chosen.lr, weight_decay=chosen.weight_decay)
        self.batch = self.job.batches

    def warm(self) -> None:
        nats, _, _ = loss_nats(self.job.model.train(), on_device(self.batch(0), self.job.device), autocast=self.job.autocast)
        nats.backward()
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, budget: float) -> None:
        arm, number = self.arm, len(self.arm.seconds)
        tick = min(int(TICKS * arm.spent / budget), TICKS - 1)
        rate = learning_rate(tick, peak=self.chosen.lr, warmup=TICKS // 20, steps=TICKS)
        began = time.perf_counter()
        batch = self.batch(number)
        values = loop.update(self.job, self.optimizer, rate, self.chosen.clip, number, batch)
        arm.seconds.append(arm.spent + time.perf_counter() - began)
        arm.training.append(values[self.job.metric.name])
        if arm.spent >= budget or arm.spent * VALIDATIONS >= budget * (len(arm.validation) + 1):
            self._validate()

    def _validate(self) -> None:
        found = self.job.metric.of(self.job.validate(self.job.model.eval(), lambda: False))
        self.job.model.train()
        self.arm.validation.append((self.arm.spent, found))
        sys.stderr.write(
            f"{self.arm.backend}, {self.arm.spent:.0f} s, step {len(self.arm.seconds):,}: "
            f"validation {found:.4f} {self.job.metric.label}\n"
        )

    def finish(self, task: Task) -> None:
        cost = score(self.job.model.eval(), task.test(), device=self.job.device, autocast=self.job.autocast)
        self.arm.test = self.job.metric.of(cost)


def draw(race: Race, stamp: Stamp, path: Path) -> None:
    """Both curves over seconds, as a PNG. Raises ArgumentError where the path cannot be written."""
    figure = need("matplotlib.figure").Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    # Okabe and Ito's palette: told apart with every common colour blindness.
    for arm, color, marker in zip(race.arms, ("#D55E00", "#0072B2"), ("s", "o"), strict=True):
        width = max(len(arm.training) // 50, 1)
        means = running_mean(arm.training, width)
        axes.plot(arm.seconds[width - 1 :], means, color=color, linewidth=0.8, alpha=0.7)
        at, scores = zip(*arm.validation, strict=True)
        label = f"{arm.backend}: {len(arm.training):,} steps, validation {scores[-1]:.4f}"
        axes.plot(at, scores, color=color, marker=marker, markersize=4, label=label)
    _limit(axes, race)
    title = f"{race.chosen.task}, {race.chosen.preset}, context {race.chosen.context:,}: equal seconds"
    axes.set(xlabel="seconds of training", ylabel=race.metric.label, title=title)
    axes.legend(fontsize="small", framealpha=0.9, loc="lower right" if race.metric.higher_is_better else "upper right")
    figure.supxlabel("\n".join(stamp.lines[:2]), fontsize=6, color="0.35")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    write_atomically(path, picture.getvalue())


def _limit(axes: Any, race: Race) -> None:
    """Leave out what the first steps of an untrained model cost: it would flatten everything that matters."""
    validations: Sequence[float] = [found for arm in race.arms for _, found in arm.validation]
    if not race.metric.higher_is_better:
        low, high = min(validations), max(validations)
        margin = 0.1 * (high - low) + 1e-3
        axes.set_ylim(low - 3 * margin, high + 3 * margin)
