"""Pathfinder: whether a dashed path joins two dots of an image, read pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from longwave.nn.explicit_filters import Zoom
from longwave.train.task import Classes, Option, Reads, Reference, Setting, Task, accuracy_per, chance, most_validated

HELP = "tell whether a dashed path joins two dots of an image"
UNIT = "pixel"
METRIC = accuracy_per("image")
CONTEXTS = None


def _most(pixels: int) -> int:
    """As many dashes as paths have in images of so many pixels."""
    from longwave.data import pathfinder

    return pathfinder.geometry(math.isqrt(pixels)).steps


OPTIONS = (
    Option("side", 32, "pixels of a side: 32, 64, 128, 256 or 512 (default: 32)", choices=(32, 64, 128, 256, 512)),
    Option(
        "dashes",
        _most,
        "of each of the two long paths, 2 to as many as fit (default: the most)",
        least=2,
    ),
    Option("first_dashes", 0, "dashes of the paths that training begins with (default: 0, which is --dashes)", least=0),
    Option("grow_every", 1_000, "steps after which those have one more, up to --dashes (default: 1000)", "STEPS", least=1),
    Option("test_images", 1_000, "images of the test (default: 1000)", metavar="IMAGES", least=1),
    most_validated("image", 200),
)


def context(own: dict[str, Any]) -> int:
    """Every pixel."""
    side: int = own["side"]
    return side**2


def zoom(before: Mapping[str, Any], own: Mapping[str, Any]) -> Zoom | None:
    """From the images of a run to those of another: as much larger as paths are."""
    from longwave.data import pathfinder

    first, second = before["side"], own["side"]
    return (
        None if first == second else Zoom(first, second, pathfinder.geometry(second).pitch / pathfinder.geometry(first).pitch)
    )


def make(setting: Setting) -> Task:
    """The images are drawn as they are needed."""
    from longwave.data import baselines, pathfinder
    from longwave.train.splits import as_task, compared

    own = setting.own
    split = pathfinder.load(
        own["side"], own["test_images"], own["dashes"], first_dashes=own["first_dashes"] or None, grow_every=own["grow_every"]
    )

    def references() -> list[Reference]:
        return [chance(2), compared("majority", baselines.majority(split))]

    return as_task(
        split,
        setting,
        reads=Reads(values=1),
        classes=Classes(split.classes, "mean"),
        validated=own["eval_images"],
        references=references,
    )
