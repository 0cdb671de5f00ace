"""Pathfinder: labels are what connected components say, and nothing simpler says them."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from longwave.data import baselines, draws, pathfinder, pictures
from longwave.data.examples import Examples, Split
from longwave.errors import ArgumentError


@pytest.mark.parametrize(("side", "dashes", "count"), [(128, None, 48), (256, None, 16), (128, 2, 24)])
def test_dots_are_joined_where_their_component_is_one(side: int, dashes: int | None, count: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    form = pathfinder.geometry(side)
    batch = pathfinder.batch(count, 1, 2, side=side, dashes=dashes)
    # Dashes of a path are `gap` apart, those of two paths at least `clearance` less their thickness; pixels add one to both.
    grown = (form.gap + form.clearance - form.thickness) / 4 + 0.5 - 0.25
    for pixels, label in zip(batch.inputs.view(count, side, side).numpy(), batch.labels.tolist(), strict=True):
        ink = pixels > 0
        components, _ = ndimage.label(ndimage.distance_transform_edt(~ink) <= grown, structure=np.ones((3, 3)))
        dots, found = ndimage.label(ndimage.distance_transform_edt(ink) > 0.75 * form.radius)
        assert found == 2
        at = [components[dots == dot].max() for dot in (1, 2)]
        assert (at[0] == at[1]) == bool(label)


@pytest.mark.parametrize("side", [32, 64])
def test_images_have_ink_and_two_dots(side: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    batch = pathfinder.batch(33, 0, 0, side=side)
    assert batch.inputs.shape == (33, side * side, 1)
    assert batch.inputs.dtype == torch.float32
    assert abs(2 * int(batch.labels.sum()) - 33) == 1
    assert batch.inputs.min() == -1
    assert batch.inputs.max() == 1
    for pixels in batch.inputs.view(33, side, side).numpy():
        assert (pixels[0] < 0).all()
        assert (pixels[:, -1] < 0).all()
        assert ndimage.label(ndimage.uniform_filter(pixels, 3) > 0.2)[1] == 2  # three pixels by three are dots


def test_an_image_does_not_depend_on_its_company() -> None:
    keys = draws.words(20, 3, 1)
    labels = np.arange(20) % 2
    form = pathfinder.geometry(32)
    whole = pathfinder._draw(keys, labels, form, 32)
    for at in (0, 7, 19):
        np.testing.assert_array_equal(pathfinder._draw(keys[at : at + 1], labels[at : at + 1], form, 32)[0], whole[at])
    np.testing.assert_array_equal(pathfinder._draw(keys[::-1], labels[::-1], form, 32), whole[::-1])
    # The label moves a dot and nothing else.
    other = pathfinder._draw(keys, 1 - labels, form, 32)
    changed = np.abs(other - whole).sum(axis=(1, 2))
    assert (changed > 2).all()
    assert (changed < 2 * 4 * pathfinder.geometry(32).radius ** 2).all()


def test_batches_are_functions_of_seed_step_and_rank() -> None:
    def draw(seed: int = 0, step: int = 0, rank: int = 0, part: str = "train") -> Examples:
        return pathfinder.batch(4, seed, step, rank, part)

    assert torch.equal(draw().inputs, draw().inputs)
    others = [draw(), draw(seed=1), draw(step=1), draw(rank=1), draw(part="validation"), draw(part="test")]
    assert len({row.numpy().tobytes() for other in others for row in other.inputs}) == 4 * len(others)
    singles = [int(pathfinder.batch(1, 0, step).labels) for step in range(40)]
    assert 10 < sum(singles) < 30


def test_how_far_the_dots_are_apart_tells_nothing() -> None:
    form = pathfinder.geometry(32)
    keys = draws.words(600, 0, 0)
    laid, paths = pathfinder._lay_long(pathfinder._Words(keys, [0]), form, 32)
    a, b = paths[laid, 0], paths[laid, 1]
    joined, apart = np.linalg.norm(a[:, -1] - a[:, 0], axis=-1), np.linalg.norm(b[:, 0] - a[:, 0], axis=-1)
    np.testing.assert_allclose(joined, apart, rtol=1e-9)
    assert joined.std() > 1  # the control: distances differ between images
    # The control: the far end of B would have told.
    assert np.abs(np.linalg.norm(b[:, -1] - a[:, 0], axis=-1) - joined).mean() > 2


def test_a_linear_model_of_sums_and_histograms_stays_at_chance() -> None:
    parts = []
    for number, count in enumerate((768, 256, 768)):
        drawn = pathfinder.batch(count, 11, number, part=draws.SPLITS[number])
        pixels = drawn.inputs[:, :, 0].view(-1, 32, 32)
        edges = torch.linspace(-1, 1, 9)
        shares = [((pixels >= low) & (pixels <= high)).float().mean(dim=(1, 2)) for low, high in pairwise(edges)]
        quarters = pixels.view(-1, 4, 8, 4, 8).mean(dim=(2, 4)).flatten(1)
        features = torch.stack([*shares, pixels.mean(dim=(1, 2)), pixels.square().mean(dim=(1, 2))], dim=1)
        parts.append(Examples(torch.cat([features, quarters], dim=1)[:, :, None], drawn.labels))
    score = baselines.pixel_logistic(Split(*parts, classes=2, vocabulary=0, source="")).score
    assert abs(score - 0.5) < 0.06  # three standard errors of 768 throws
    # The control: the same model on the same numbers finds a label that is a sum.
    told = [Examples(part.inputs, (part.inputs[:, 8, 0] > parts[0].inputs[:, 8, 0].median()).long()) for part in parts]
    assert baselines.pixel_logistic(Split(*told, classes=2, vocabulary=0, source="")).score > 0.9


def test_a_picture_of_examples(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert pathfinder.main([str(tmp_path / "examples.png")]) == 0
    written = (tmp_path / "examples.png").read_bytes()
    assert written.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", written[16:24])
    assert min(width, height) > 500


@pytest.mark.parametrize("out", ["nowhere/examples.png", "examples.csv"])
def test_a_picture_that_cannot_be_written_is_refused(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    monkeypatch.setattr(pathfinder, "draw_examples", lambda path: pictures.save(figure.Figure(), path, 20))
    assert pathfinder.main([str(tmp_path / out)]) == 2
    err = capsys.readouterr().err
    assert "cannot be drawn" in err
    assert err.count("\n") == 1


def test_other_sides_are_refused() -> None:
    with pytest.raises(ArgumentError, match="images have 32, 64, 128, 256, 512 pixels a side and 33 was given"):
        pathfinder.load(33)


def test_paths_of_fewer_dashes() -> None:
    """Less ink, the same labels, dots nearer to each other; what has no room is refused."""
    most, few = (pathfinder.batch(32, 0, 0, side=64, dashes=dashes) for dashes in (None, 3))
    assert torch.equal(most.labels, few.labels)
    assert (few.inputs > 0).sum() < 0.8 * (most.inputs > 0).sum()
    assert torch.equal(most.inputs, pathfinder.batch(32, 0, 0, side=64, dashes=9).inputs)
    form = pathfinder.geometry(64, 3)
    keys = draws.words(64, 0, 0)
    laid, paths = pathfinder._lay_long(pathfinder._Words(keys, [0]), form, 64)
    assert paths[laid].shape[1:] == (2, 4, 2)
    assert np.linalg.norm(paths[laid, 0, -1] - paths[laid, 0, 0], axis=-1).max() <= 3 * form.pitch
    for dashes in (1, 10):
        with pytest.raises(ArgumentError, match=f"images of 64 pixels have 2 to 9 dashes and {dashes} was given"):
            pathfinder.load(64, dashes=dashes)


def test_paths_of_training_grow_and_those_held_out_do_not() -> None:
    split = pathfinder.load(32, held_out=16, dashes=5, first_dashes=3, grow_every=2)
    for step, dashes in enumerate([3, 3, 4, 4, 5, 5, 5]):
        batch = split.train.batch(step, 4, 7)
        assert torch.equal(batch.inputs, pathfinder.batch(4, 7, step, side=32, dashes=dashes).inputs)
        assert not torch.equal(batch.inputs, pathfinder.batch(4, 7, step, side=32, dashes=dashes - 1).inputs)
    held_out = next(iter(split.test.batches(16)))
    assert torch.equal(held_out.inputs, pathfinder.batch(16, 0, 0, part="test", side=32, dashes=5).inputs)


@pytest.mark.parametrize(("first", "every"), [(6, 1), (1, 1), (3, 0)])
def test_growing_from_what_does_not_fit_is_refused(first: int, every: int) -> None:
    name = "grow_every" if every < 1 else "first_dashes"
    with pytest.raises(ArgumentError, match=f"^{name} is"):
        pathfinder.load(32, dashes=5, first_dashes=first, grow_every=every)
    with pytest.raises(ArgumentError, match=f"^{name} is"):
        pathfinder.batch(2, 0, 0, dashes=5, first_dashes=first, grow_every=every)
