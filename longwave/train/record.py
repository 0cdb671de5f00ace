"""What a run writes down: metrics as JSON lines, and a picture of the loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from longwave.errors import DataError
from longwave.train.files import replacing, write_text
from longwave.train.optional import need

METRICS = "metrics.jsonl"
PICTURE = "loss.png"
UNIFORM_BITS = 2.0


class Metrics:
    """`metrics.jsonl`: one JSON object a line, each with `kind` and `step`; appended to, and cut back on resume."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, step: int, **values: float | int | str) -> None:
        """Add a line. Raises DataError where the file system refuses."""
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

    def cut_back(self, step: int) -> None:
        """Drop what was written after `step`, and the final test: a resumed run writes both again."""
        kept = [line for line in self.read() if line["step"] <= step and line["kind"] != "test"]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))


def draw_loss(folder: Path, title: str, markov_bits: float) -> None:
    """Draw `loss.png` in `folder` from its metrics: bits per base over steps, with the uniform and the Markov line.

    Raises:
        DataError: the file system refuses.
    """
    figure = need("matplotlib.figure").Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    lines = Metrics(folder / METRICS).read()
    train = [(line["step"], line["bits_per_base"]) for line in lines if line["kind"] == "train"]
    validation = [(line["step"], line["bits_per_base"]) for line in lines if line["kind"] == "validation"]
    if train:
        steps, bits = zip(*train, strict=True)
        axes.plot(steps, bits, color="0.75", linewidth=0.6, label="training, a step")
        width = max(len(bits) // 50, 1)
        if width > 1:
            axes.plot(steps[width - 1 :], _running_mean(bits, width), color="C0", label=f"training, mean of {width} steps")
    if validation:
        steps, bits = zip(*validation, strict=True)
        axes.plot(steps, bits, color="C1", marker="o", markersize=4, label="validation")
    axes.axhline(UNIFORM_BITS, color="0.3", linestyle=":", label="uniform, 2.000")
    axes.axhline(markov_bits, color="C2", linestyle="--", label=f"Markov on validation, {markov_bits:.3f}")
    # The first steps of an untrained model would flatten everything that matters.
    seen = [bits for _, bits in train + validation if bits <= 2.05]
    low = min([*seen, markov_bits])
    axes.set_ylim(low - 0.02, 2.05)
    axes.set(xlabel="step", ylabel="bits per base", title=title)
    axes.legend(fontsize="small", framealpha=0.9)
    with replacing(folder / PICTURE) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _running_mean(values: tuple[float, ...], width: int) -> list[float]:
    total = sum(values[:width])
    means = [total / width]
    for new, old in zip(values[width:], values, strict=False):
        total += new - old
        means.append(total / width)
    return means
