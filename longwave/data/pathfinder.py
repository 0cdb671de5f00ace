"""Pathfinder: are two dots joined by a dashed path, or do they end two paths? Images of 32² to 512², read row by row.

An image has two long paths of as many dashes, A and B, and short ones that distract; no path touches another. Dots stand on
both ends of A (label 1), or on one end of A and one of B (label 0). Nothing else depends on the label: the paths are laid
before it is known, and B so that its end stands as far from A's first end as A's last does. So dashes, ink and the distance
of the dots have one distribution. Where the dots stand has not quite: a path between them has to fit into the image. A
quadratic model of nothing but their places is right in 61 % of images at 32², 57 % at 64² and 55 % at 128².

A path is a chain of steps of one length whose direction turns a little at each and which does not touch itself, laid at a
random place and angle. An image that finds no room is drawn anew from its own random numbers: what else is in a batch does
not matter. The same draws give the same paths at 128², 256² and 512². Long paths of fewer dashes (`dashes`) are an easier task,
as shorter contours are in the papers; training may begin with them (`first_dashes`), and then learns what it
does not learn from the longest alone.

`python -m longwave.data.pathfinder OUT.png` draws examples of every size.

Source: Linsley et al. 2018 (1805.08315), section 4; Long Range Arena (2011.04006), section 2.2, for 32² and 128²; FlashFFTConv
(2311.05908), section 4.1, for 512². The generator is our own: theirs leaves the distance of the dots free.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from longwave.data import draws, pictures
from longwave.data.examples import EVERY, Examples, Split
from longwave.data.generated import generated
from longwave.errors import ArgumentError, DataError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Geometry:
    """How paths of one size of image look, in pixels.

    Attributes:
        steps: dashes of A and of B.
        pitch: from the middle of a dash to the next one's.
        gap: between dashes, about.
        thickness: of a dash.
        radius: of a dot.
        distractors: short paths at most.
        distractor_steps: their dashes.
    """

    steps: int
    pitch: float
    gap: float
    thickness: float
    radius: float
    distractors: int
    distractor_steps: int

    @property
    def clearance(self) -> float:
        """The least distance of the middle lines of two paths."""
        return 0.8 * self.pitch

    def bulge(self, count: int) -> Floats:
        """(count,): how far a dot would reach beyond the dashes, for points of a long path; 0 but at its ends."""
        reach = np.zeros(count)
        reach[[0, -1]] = self.radius - self.thickness / 2
        return reach


GEOMETRIES = {
    32: Geometry(steps=6, pitch=3.6, gap=1.3, thickness=1.0, radius=1.5, distractors=5, distractor_steps=2),
    64: Geometry(steps=9, pitch=5.2, gap=1.9, thickness=1.3, radius=2.0, distractors=6, distractor_steps=3),
    128: Geometry(steps=14, pitch=7.5, gap=2.7, thickness=1.7, radius=2.8, distractors=8, distractor_steps=4),
    256: Geometry(steps=14, pitch=15.0, gap=5.4, thickness=3.4, radius=5.6, distractors=8, distractor_steps=4),
    512: Geometry(steps=14, pitch=30.0, gap=10.8, thickness=6.8, radius=11.2, distractors=8, distractor_steps=4),
}
FEWEST = 2
"""Dashes of A and of B: the dots at the ends of one would run into each other."""
LARGEST_TURN = 0.75
"""Of a path between two steps, in radians."""
SHAPES = 6
"""Chains drawn for a path, of which the first that does not touch itself is taken."""
TRIES = 64
"""Places tried for B, of which the first with room is taken; a quarter of it for the others."""
POINTS = 3
"""Points of a step that are held apart from other paths."""

_ROUNDS = 200
_CHUNK = 16


def load(
    side: int = 32,
    held_out: int = 1_000,
    dashes: int | None = None,
    *,
    first_dashes: int | None = None,
    grow_every: int = 1_000,
) -> Split:
    """Images of one size.

    Args:
        side: 32, 64, 128, 256 or 512 pixels.
        held_out: images in validation and test, each.
        dashes: of A and of B, 2 to 6 at 32², 9 at 64², 14 in larger images; the most without it.
        first_dashes: in the first training batch, at most `dashes`; as many without it. What is held out has `dashes`.
        grow_every: batches after which there is one more, until there are `dashes`.

    Returns:
        inputs (n, side², 1) float32 from -1 (nothing) to 1 (ink); labels (n,), 1 where one path joins the dots.

    Raises:
        ArgumentError: another side, too few or too many dashes, or nothing held out.
    """
    form = geometry(side, dashes)
    _check_growth(form, first_dashes, grow_every)
    draw = partial(batch, side=side, dashes=form.steps, first_dashes=first_dashes, grow_every=grow_every)
    source = f"Pathfinder, {side} × {side} pixels, paths of {form.steps} dashes"
    return generated(draw, held_out, classes=2, vocabulary=0, source=source)


def _check_growth(form: Geometry, first_dashes: int | None, grow_every: int) -> None:
    if first_dashes is not None and not FEWEST <= first_dashes <= form.steps:
        raise ArgumentError(
            f"first_dashes is {first_dashes}, and paths of at most {form.steps} dashes begin with {FEWEST} to {form.steps}; "
            "take one of those"
        )
    if grow_every < 1:
        raise ArgumentError(f"grow_every is {grow_every}; paths have one more dash after 1 batch or more")


def geometry(side: int, dashes: int | None = None) -> Geometry:
    """How paths look in images of `side` pixels.

    Raises:
        ArgumentError: a side that is not offered, or dashes that do not fit it.
    """
    if side not in GEOMETRIES:
        raise ArgumentError(
            f"images have {', '.join(map(str, GEOMETRIES))} pixels a side and {side} was given; take one of those"
        )
    form = GEOMETRIES[side]
    if dashes is None:
        return form
    if not FEWEST <= dashes <= form.steps:
        raise ArgumentError(
            f"paths in images of {side} pixels have {FEWEST} to {form.steps} dashes and {dashes} was given; take one of those"
        )
    return replace(form, steps=dashes)


def batch(
    size: int,
    seed: int,
    step: int,
    rank: int = 0,
    part: str = "train",
    rows: slice = EVERY,
    *,
    side: int = 32,
    dashes: int | None = None,
    first_dashes: int | None = None,
    grow_every: int = 1_000,
) -> Examples:
    """`size` images, half of either label (one more of either where `size` is odd): a function of the arguments alone.

    Args:
        size: ≥ 1.
        seed, step, rank: ≥ 0.
        part: "train", "validation" or "test".
        rows: those that are made.
        side: 32, 64, 128, 256 or 512.
        dashes, first_dashes, grow_every: as in `load`.

    Returns:
        inputs (size, side², 1) float32 from -1 to 1, labels (size,).

    Raises:
        ArgumentError: a number or a part that is not allowed.
    """
    form = geometry(side, dashes)
    _check_growth(form, first_dashes, grow_every)
    if first_dashes is not None and part == "train":
        form = replace(form, steps=min(form.steps, first_dashes + step // grow_every))
    keys, order = draws.words(2 * size + 1, seed, step, rank, part)[:-1].reshape(2, size)
    flip = int(draws.words(2 * size + 1, seed, step, rank, part)[-1] & np.uint64(1))
    labels = (np.argsort(np.argsort(order, kind="stable"), kind="stable") + flip) % 2
    keys, labels = keys[rows], labels[rows]
    images = [_draw(keys[at : at + _CHUNK], labels[at : at + _CHUNK], form, side) for at in range(0, len(keys), _CHUNK)]
    pixels = torch.from_numpy(np.concatenate(images)).reshape(len(keys), side * side, 1)
    return Examples(2 * pixels - 1, torch.from_numpy(labels))


@dataclass(frozen=True, eq=False)
class _Words:
    """The random numbers of an attempt at n images, taken in turn."""

    keys: draws.Words
    taken: list[int]

    def unit(self, *shape: int) -> Floats:
        count = math.prod(shape)
        drawn = draws.unit(draws.streams(self.keys, self.taken[0], count))
        self.taken[0] += count
        return drawn.reshape(len(self.keys), *shape)


def _draw(keys: draws.Words, labels: draws.Indices, form: Geometry, side: int) -> npt.NDArray[np.float32]:
    """Images (n, side, side) in [0, 1]."""
    long = np.empty((len(keys), 2, form.steps + 1, 2))
    missing = np.arange(len(keys))
    taken = [0]
    for _ in range(_ROUNDS):
        laid, long[missing] = _lay_long(_Words(keys[missing], taken), form, side)
        missing = missing[~laid]
        if not len(missing):
            break
    else:
        raise DataError(f"{len(missing)} images of {side} pixels found no room in {_ROUNDS} attempts; take another seed")
    canvas = _Canvas(len(keys), side)
    for paths in (long, _lay_short(_Words(~keys, [0]), long, form, side)):
        canvas.dashes(paths, form)
    ends = np.stack([long[:, 0, 0], np.where(labels[:, None] == 1, long[:, 0, -1], long[:, 1, 0])], axis=1)
    canvas.segments(ends, ends, form.radius)
    return canvas.pixels


def _lay_long(words: _Words, form: Geometry, side: int) -> tuple[Bools, Floats]:
    """An attempt at A and B, (n, 2, steps + 1, 2), and which images found room for them."""
    (a_shape, fine_a), (b_shape, fine_b) = _chain(words, form), _chain(words, form)
    few = TRIES // 4
    a, room_a = _place(_turned(a_shape, words.unit(few)), words.unit(few, 2) * side, form, side)
    reach = np.linalg.norm(a[:, -1] - a[:, 0], axis=-1)
    toward = 2 * np.pi * words.unit(TRIES)
    ends = a[:, None, 0] + reach[:, None, None] * np.stack([np.cos(toward), np.sin(toward)], axis=-1)
    there = _points(a)
    bulge = form.bulge(there.shape[1])
    b, room_b = _place(_turned(b_shape, words.unit(TRIES)), ends, form, side, there, bulge[:, None] + bulge)
    apart = reach > 2 * form.radius + form.pitch  # dots do not run into each other
    return fine_a & fine_b & room_a & room_b & apart, np.stack([a, b], axis=1)


def _lay_short(words: _Words, long: Floats, form: Geometry, side: int) -> Floats:
    """Distractors beside the paths of `long`, (n, distractors, steps + 1, 2), NaN where one found no room."""
    few = TRIES // 4
    points = _points(long)
    there, bulge = points.reshape(len(long), -1, 2), np.tile(form.bulge(points.shape[2]), 2)
    laid = []
    for _ in range(form.distractors):
        shape = _walk(words.unit(form.distractor_steps), form.pitch)
        path, room = _place(_turned(shape, words.unit(few)), words.unit(few, 2) * side, form, side, there, bulge)
        path[~room] = np.nan
        there = np.concatenate([there, _points(path)], axis=1)
        bulge = np.pad(bulge, (0, there.shape[1] - len(bulge)))
        laid.append(path)
    return np.stack(laid, axis=1)


def _walk(turns: Floats, pitch: float) -> Floats:
    """Corners (..., steps + 1, 2) of chains from the origin, for turns (..., steps) in [0, 1)."""
    heading = np.cumsum(LARGEST_TURN * (2 * turns - 1), axis=-1)
    steps = pitch * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    return np.concatenate([np.zeros_like(steps[..., :1, :]), np.cumsum(steps, axis=-2)], axis=-2)


def _chain(words: _Words, form: Geometry) -> tuple[Floats, Bools]:
    """Of `SHAPES` chains (n, steps + 1, 2) the first that does not touch itself, and whether there is one."""
    chains = _walk(words.unit(SHAPES, form.steps), form.pitch)
    points = _points(chains)
    near = np.triu(_near(points, points, np.array(form.clearance)), k=2 * POINTS)
    return _first(chains, ~np.logical_or.reduce(near, axis=(-2, -1)))


def _turned(shape: Floats, angles: Floats) -> Floats:
    """Shapes (n, p, 2) turned by angles (n, tries) in units of a full turn: (n, tries, p, 2)."""
    cos, sin = np.cos(2 * np.pi * angles), np.sin(2 * np.pi * angles)
    rotation = np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)
    return shape[:, None] @ rotation.swapaxes(-1, -2)


def _place(
    shapes: Floats, starts: Floats, form: Geometry, side: int, there: Floats | None = None, bulge: Floats | None = None
) -> tuple[Floats, Bools]:
    """Of shapes (n, tries, p, 2) begun at starts (n, tries, 2) the first that has room, and whether one has.

    Room is inside the image and clear of points `there` (n, q, 2), some of which take `bulge` more: (q,), or one for every
    pair of points.
    """
    paths = shapes + starts[:, :, None]
    margin = form.radius + 1
    inside = (paths >= margin) & (paths <= side - 1 - margin)
    room: Bools = np.logical_and.reduce(inside, axis=(-2, -1))
    if there is not None and bulge is not None:
        image, tried = np.nonzero(room)
        near = _near(_points(paths[image, tried]), there[image], form.clearance + bulge)
        room[image, tried] = ~np.logical_or.reduce(near, axis=(-2, -1))
    return _first(paths, room)


def _near(points: Floats, others: Floats, distance: Floats) -> Bools:
    """Which of points (..., p, 2) are nearer than `distance` to others (..., q, 2): (..., p, q); NaN is near nothing."""
    mine, theirs = points.astype(np.float32), others.astype(np.float32)
    dx, dy = (mine[..., :, None, axis] - theirs[..., None, :, axis] for axis in (0, 1))
    nearer: Bools = dx * dx + dy * dy < (distance**2).astype(np.float32)
    return nearer


def _points(paths: Floats) -> Floats:
    """Points along paths (..., p, 2): their corners and `POINTS` - 1 between neighbours."""
    between = np.arange(POINTS)[:, None] / POINTS
    along = paths[..., :-1, None, :] * (1 - between) + paths[..., 1:, None, :] * between
    return np.concatenate([along.reshape(*paths.shape[:-2], POINTS * (paths.shape[-2] - 1), 2), paths[..., -1:, :]], axis=-2)


def _first(candidates: Floats, fine: Bools) -> tuple[Floats, Bools]:
    """Of candidates (n, m, …) the first that is fine (n, m), and whether one is."""
    return candidates[np.arange(len(fine)), fine.argmax(axis=1)].copy(), np.logical_or.reduce(fine, axis=1)


class _Canvas:
    """Images that ink is drawn on, pixels (n, side, side) float32 in [0, 1]."""

    def __init__(self, count: int, side: int) -> None:
        self.pixels = np.zeros((count, side, side), dtype=np.float32)

    def dashes(self, paths: Floats, form: Geometry) -> None:
        """A dash in every step of paths (n, m, p, 2), as long as the step without the gap."""
        first, last = paths[:, :, :-1], paths[:, :, 1:]
        cut = (last - first) * (form.gap / 2 / form.pitch)
        ends = ((first + cut).reshape(len(paths), -1, 2), (last - cut).reshape(len(paths), -1, 2))
        self.segments(*ends, form.thickness / 2)

    def segments(self, first: Floats, last: Floats, radius: float) -> None:
        """Everything within `radius` of segments between points (n, m, 2), with edges one pixel soft; NaN draws nothing."""
        image, number = np.nonzero(np.isfinite(first).all(axis=-1))
        a, b = first[image, number], last[image, number]
        reach = math.ceil(np.abs(b - a).max(initial=0) / 2 + radius + 1)
        corner = np.floor((a + b) / 2).astype(np.int64) - reach
        offsets = np.arange(2 * reach + 2)
        x, y = corner[:, 0, None, None] + offsets, corner[:, 1, None, None] + offsets[:, None]
        along, dx, dy = b - a, x - a[:, 0, None, None], y - a[:, 1, None, None]
        length = np.maximum((along**2).sum(axis=-1), 1e-12)[:, None, None]
        part = np.clip((dx * along[:, 0, None, None] + dy * along[:, 1, None, None]) / length, 0, 1)
        distance = np.hypot(dx - part * along[:, 0, None, None], dy - part * along[:, 1, None, None])
        ink = np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)
        side = self.pixels.shape[-1]
        inked = (ink > 0) & (x >= 0) & (x < side) & (y >= 0) & (y < side)
        which, row, column = np.nonzero(inked)
        at = (image[which], y[which, row, 0], x[which, 0, column])
        np.maximum.at(self.pixels, at, ink[inked])


def draw_examples(path: str | Path, seed: int = 0, each: int = 2) -> None:
    """Write a picture of images of every size, those whose dots are joined above and the others below.

    Args:
        path: where to write it, .png.
        seed: ≥ 0.
        each: images of a size and label.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ArgumentError: the file cannot be written.
    """
    figure = pictures.figure(2.2 * len(GEOMETRIES), 4.6 * each)
    axes = figure.subplots(2 * each, len(GEOMETRIES), squeeze=False)
    for column, side in enumerate(GEOMETRIES):
        drawn = batch(2 * each, seed, column, part="test", side=side)
        images = [image for label in (1, 0) for image in drawn.inputs[drawn.labels == label]]
        for row, image in enumerate(images):
            place = axes[row, column]
            place.imshow(image.view(side, side).numpy(), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            place.set_title(f"{side} × {side}, {'joined' if row < each else 'not joined'}", fontsize=9)
            place.set_axis_off()
    pictures.save(figure, path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw examples into the file that the command line names; returns 0, or 2 where they cannot be drawn."""
    return pictures.main("longwave.data.pathfinder", "Pathfinder", draw_examples, arguments)


if __name__ == "__main__":
    sys.exit(main())
