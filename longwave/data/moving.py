"""Moving MNIST: digits that fly through a frame and come back from its edges; every pixel of the next frame is asked for.

A digit begins anywhere, flies straight on in any direction at a tenth of the room it has in a frame, and is reflected where it
meets an edge; digits pass over each other. A pixel is ink (1) or none (0). Of digits of 28 x 28 pixels those of 7/16 of a
frame's side are made: whole in frames of 64 x 64, which is the published size, halved in 32 x 32, quartered in 16 x 16.
Training, validation and test have digits of their own (`mnist`); quartered, three in ten of the test are like one of training.

`python -m longwave.data.moving OUT.png` draws examples.

Source: Srivastava et al. 2015, Unsupervised Learning of Video Representations using LSTMs (arXiv 1502.04681), section 4.1,
which has grey pixels; Smith et al. 2023 (arXiv 2310.19694), section 5.1, for videos of 300 frames.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from longwave.data import draws, mnist, pictures
from longwave.data.examples import EVERY, Examples, Split
from longwave.data.generated import generated
from longwave.errors import ArgumentError

Images = npt.NDArray[np.uint8]

SIDES = (16, 32, 64)
MOST_DIGITS = 8
SPEED = 0.1
"""Of a digit in a frame, in units of the room it has."""

_BRIGHT = 64
"""From this brightness of 255 on a pixel is ink: thin strokes survive when digits are made smaller."""


def load(
    length: int = 20, side: int = 32, moving: int = 2, held_out: int = 200, path: str | os.PathLike[str] | None = None
) -> Split:
    """Videos and what comes next.

    Args:
        length: frames of a video, ≥ 2.
        side: pixels of a frame's side, one of `SIDES`.
        moving: digits in a frame, 1 … `MOST_DIGITS`.
        held_out: videos in validation and test, each.
        path: as `mnist.load` takes it.

    Returns:
        inputs (n, length, side²) float32, 0 or 1; labels (n, length, side²), the frames after them.

    Raises:
        ArgumentError: a number is out of range.
        DataError: the digits cannot be had or read.
    """
    if length < 2 or side not in SIDES or not 1 <= moving <= MOST_DIGITS:
        raise ArgumentError(
            f"videos have at least 2 frames of {', '.join(map(str, SIDES))} pixels a side and 1 to {MOST_DIGITS} digits, but "
            f"{length}, {side} and {moving} were given"
        )
    digits = {name: ink(rows, side) for name, rows in zip(draws.SPLITS, mnist.rows(path), strict=True)}
    source = f"Moving MNIST, {moving} digits in frames of {side} × {side} pixels"
    draw = partial(videos, digits=digits, length=length, side=side, moving=moving)
    return generated(draw, held_out, classes=2, vocabulary=0, source=source)


def ink(rows: Images, side: int) -> Images:
    """Digits (n, d, d) of 0 and 1, d = 7/16 side, of rows (n, 785) of pixels and a label."""
    d = 7 * side // 16
    blocks = rows[:, :-1].reshape(len(rows), d, 28 // d, d, 28 // d)
    return (blocks.mean(axis=(2, 4)) >= _BRIGHT).astype(np.uint8)


def videos(
    size: int,
    seed: int,
    step: int,
    rank: int = 0,
    part: str = "train",
    rows: slice = EVERY,
    *,
    digits: Mapping[str, Images],
    length: int,
    side: int,
    moving: int,
) -> Examples:
    """`size` videos of `length` frames, or `rows` of them: a function of the arguments alone; the module says which."""
    shapes = digits[part]
    drawn = draws.words(size * moving * 4, seed, step, rank, part).reshape(4, size, moving)[:, rows]
    which = draws.below(len(shapes), drawn[0])
    room, d = side - shapes.shape[1], shapes.shape[1]
    turn = 2 * np.pi * draws.unit(drawn[1])
    velocity = SPEED * room * np.stack([np.sin(turn), np.cos(turn)])
    start = room * draws.unit(drawn[2:])
    times = np.arange(length + 1)
    flown = (start[..., None] + velocity[..., None] * times) % (2 * room)
    corner = np.minimum(flown, 2 * room - flown).astype(np.int64)  # (2, size, moving, length + 1)
    frames = np.zeros((len(which), length + 1, side, side), dtype=np.uint8)
    video, time, across = np.arange(len(which))[:, None, None, None], times[:, None, None], np.arange(d)
    for digit in range(moving):
        y, x = corner[0, :, digit, :, None, None] + across[:, None], corner[1, :, digit, :, None, None] + across
        frames[video, time, y, x] |= shapes[which[:, digit], None]
    flat = torch.from_numpy(frames.reshape(len(which), length + 1, side * side))
    return Examples(flat[:, :-1].float(), flat[:, 1:].long())


def draw_examples(path: str | Path, seed: int = 0, each: int = 2) -> None:
    """Write a picture of every other frame of videos of every size.

    Args:
        path: where to write it, .png.
        seed: ≥ 0.
        each: videos of a size.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ArgumentError: the file cannot be written.
        DataError: the digits cannot be had.
    """
    columns = 10
    figure = pictures.figure(1.1 * columns, 1.25 * each * len(SIDES))
    axes = figure.subplots(each * len(SIDES), columns, squeeze=False)
    for size, side in enumerate(SIDES):
        drawn = load(2 * columns, side).train.batch(0, each, seed).inputs.view(each, 2 * columns, side, side)
        for row, video in enumerate(drawn.numpy(), start=size * each):
            for place, frame in zip(axes[row], video[::2], strict=True):
                place.imshow(frame, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                place.set_axis_off()
    pictures.save(figure, path, dpi=80)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw examples into the file that the command line names; returns 0, or 2 where they cannot be drawn."""
    return pictures.main("longwave.data.moving", "Moving MNIST", draw_examples, arguments)


if __name__ == "__main__":
    sys.exit(main())
