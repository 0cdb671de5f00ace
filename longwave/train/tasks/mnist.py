"""Handwritten digits, read pixel by pixel."""

from __future__ import annotations

from longwave.train.task import Classes, Option, Reads, Reference, Setting, Task, accuracy_per, chance, most_validated

HELP = "read handwritten digits pixel by pixel"
UNIT = "pixel"
METRIC = accuracy_per("image")
CONTEXTS = None
OPTIONS = (
    Option("digits", "", "CSV file of 784 pixels and a label a line (default: 5,000 of MNIST)", metavar="FILE", is_file=True),
    most_validated("image", 250),
)


def context(own: dict[str, object]) -> int:
    """28 x 28."""
    return 784


def make(setting: Setting) -> Task:
    """Raises DataError where the file cannot be had or read."""
    from longwave.data import baselines, mnist
    from longwave.train.splits import as_task, compared

    path = setting.own["digits"]
    split = mnist.load(path or None)

    def references() -> list[Reference]:
        return [chance(split.classes), compared("logistic", baselines.pixel_logistic(split))]

    return as_task(
        split,
        setting,
        reads=Reads(values=1),
        classes=Classes(split.classes, "mean"),
        validated=setting.own["eval_images"],
        references=references,
        files=(path,),
    )
