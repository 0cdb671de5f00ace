"""What a run writes down: metrics as JSON lines, and a picture of the loss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longwave.errors import DataError
from longwave.train.files import replacing, write_text
from longwave.train.optional import need
from longwave.train.task import Metric, Reference

METRICS = "metrics.jsonl"
PICTURE = "loss.png"


class Metrics:
    """`metrics.jsonl`: one JSON object a line, each with `kind` and `step`; appended to, and cut back on resume.

    Args:
        path: of the file.
        writes: whether this process is the one that writes; elsewhere nothing happens.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes

    def append(self, kind: str, step: int, **values: float | int | str) -> None:
        """Add a line. Raises DataError where the file system refuses."""
        if not self.writes:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror}; check the folder's rights and space") from error

    def read(self) -> list[dict[str, Any]]:
        """Every whole line; one that a killed process left half-written is not one."""
        if not self.path.exists():
            return []
        lines = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    @property
    def seconds(self) -> float:
        """What the training steps written down took in all."""
        return next((float(line["seconds"]) for line in reversed(self.read()) if line["kind"] == "train"), 0.0)

    def cut_back(self, step: int) -> None:
        """Drop what was written after `step`, and the final test: a resumed run writes both again."""
        if not self.writes:
            return
        kept = [line for line in self.read() if line["step"] <= step and line["kind"] != "test"]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))


def draw(folder: Path, title: str, metric: Metric, references: Sequence[Reference]) -> None:
    """Draw `loss.png` in `folder` from its metrics: the score over steps, beside those of `references`.

    Raises:
        DataError: the file system refuses.
    """
    figure = need("matplotlib.figure").Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    lines = Metrics(folder / METRICS).read()
    train = [(line["step"], line[metric.name]) for line in lines if line["kind"] == "train"]
    validation = [(line["step"], line[metric.name]) for line in lines if line["kind"] == "validation"]
    if train:
        steps, scores = zip(*train, strict=True)
        axes.plot(steps, scores, color="0.75", linewidth=0.6, label="training, a step")
        width = max(len(scores) // 50, 1)
        if width > 1:
            means = running_mean(scores, width)
            axes.plot(steps[width - 1 :], means, color="C0", label=f"training, mean of {width} steps")
    if validation:
        steps, scores = zip(*validation, strict=True)
        axes.plot(steps, scores, color="C1", marker="o", markersize=4, label="validation")
    levels = [reference.test if reference.validation is None else reference.validation for reference in references]
    for reference, level, color, style in zip(references, levels, ("0.3", "C2", "C3"), (":", "--", "-."), strict=False):
        axes.axhline(level, color=color, linestyle=style, label=f"{reference.label}, {level:.3f}")
    if not metric.higher_is_better and references:
        # The first steps of an untrained model would flatten everything that matters.
        high = 1.025 * max(levels)
        seen = [score for _, score in train + validation if score <= high]
        axes.set_ylim(min([*seen, *levels]) - 0.01 * max(levels), high)
    axes.set(xlabel="step", ylabel=metric.label, title=title)
    # Not "best", which searches among all points: where a curve that goes right leaves room.
    axes.legend(fontsize="small", framealpha=0.9, loc="lower right" if metric.higher_is_better else "upper right")
    with replacing(folder / PICTURE) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of every `width` neighbours."""
    total = sum(values[:width])
    means = [total / width]
    for new, old in zip(values[width:], values, strict=False):
        total += new - old
        means.append(total / width)
    return means
