"""Moving digits: whole, in straight lines, reflected at the edges, of parts that share none; and what is simple of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from longwave.data import baselines, mnist, moving
from longwave.data.examples import Examples, Split
from longwave.errors import ArgumentError


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """One shape a part: all ink, its left half, its upper half."""
    shapes = np.zeros((3, 28, 28), dtype=np.uint8)
    shapes[0], shapes[1, :, :14], shapes[2, :14] = 255, 255, 255
    rows = np.pad(shapes.reshape(3, 1, 784), ((0, 0), (0, 0), (0, 1)))
    monkeypatch.setattr(mnist, "rows", lambda path: list(rows))


def corners(video: torch.Tensor, side: int) -> torch.Tensor:
    """(T, 2): the least row and column with ink."""
    frames = video.view(-1, side, side).bool()
    return torch.stack([frames.any(dim=2).int().argmax(dim=1), frames.any(dim=1).int().argmax(dim=1)], dim=1)


@pytest.mark.parametrize("side", moving.SIDES)
@pytest.mark.usefixtures("digits")
def test_a_digit_flies_straight_and_comes_back_from_the_edges(side: int) -> None:
    videos = moving.load(60, side, moving=1).train.batch(0, 40)
    d, room = 7 * side // 16, side - 7 * side // 16
    assert videos.inputs.shape == (40, 60, side**2)
    assert torch.equal(videos.inputs[:, 1:].long(), videos.labels[:, :-1])
    assert (videos.inputs.sum(dim=2) == d * d).all()  # whole in every frame
    reached = []
    for video in videos.inputs:
        steps = corners(video, side).diff(dim=0).abs()
        assert steps.max() <= np.ceil(moving.SPEED * room)
        for axis in (0, 1):  # of one speed along each axis, but where it turns
            speed = steps[:, axis].float().median()
            assert ((steps[:, axis] - speed).abs() <= 1).float().mean() > 0.7
        reached.append(corners(video, side).amax(dim=0))
    assert torch.stack(reached).amax() >= room - 1
    distance = corners(videos.inputs[0], side).double().diff(dim=0).square().sum(dim=1).sqrt().mean()
    assert 0.5 * moving.SPEED * room < distance < 1.2 * moving.SPEED * room


@pytest.mark.usefixtures("digits")
def test_parts_have_digits_of_their_own() -> None:
    split = moving.load(4, 32, moving=1, held_out=3)
    heights = [14, 14, 7]
    for part, height in zip((split.train, split.validation, split.test), heights, strict=True):
        batch = part.batch(0, 3) if part is split.train else next(iter(part.batches(3)))
        assert (batch.inputs.view(3, 4, 32, 32).bool().any(dim=3).sum(dim=2) == height).all()


@pytest.mark.usefixtures("digits")
def test_digits_pass_over_each_other() -> None:
    one, two = (moving.load(10, 32, moving=count).train.batch(0, 64).inputs.sum(dim=2) for count in (1, 2))
    assert (one == 14 * 14).all()
    assert two.max() == 2 * 14 * 14
    assert 14 * 14 <= two.min() < 1.5 * 14 * 14


@pytest.mark.parametrize("wrong", [{"length": 1}, {"side": 33}, {"moving": 0}, {"moving": 9}])
def test_what_is_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match="videos have at least 2 frames"):
        moving.load(**wrong)


def test_copying_costs_what_changes_and_windows_see_what_moves() -> None:
    """A bar that goes one pixel to the right in every frame: copies are wrong at its ends, a window of two frames is not."""
    side, T = 16, 5
    starts = torch.arange(100) % 11
    columns = torch.arange(side)
    times = torch.arange(T + 1)
    inked = (columns - starts[:, None, None] - times[:, None]) % side < 4
    frames = inked[:, :, None, :].expand(-1, -1, side, -1).flatten(2)
    part = Examples(frames[:, :-1].float(), frames[:, 1:].long())
    split = Split(part, part, part, classes=2, vocabulary=0, source="bars")
    copy = baselines.copied_frame_bits(split)
    rate = np.array([3 / 4, 1 / 4, 1 / 12, 11 / 12])  # how often ink stays, goes, comes, stays away
    share = np.array([1 / 4, 1 / 4, 3 / 4, 3 / 4])
    assert copy.score == pytest.approx(float(-(share * rate * np.log2(rate)).sum()), abs=0.01)
    linear = baselines.frame_window_bits(split, reaches=(1,), training=4_000)
    assert linear.score < 0.3 * copy.score
    with pytest.raises(ArgumentError, match="videos"):
        baselines.copied_frame_bits(Split(part, part, part, classes=3, vocabulary=0, source=""))


def test_a_picture_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    rows = np.random.default_rng(0).integers(0, 255, (1, 785), dtype=np.uint8)
    monkeypatch.setattr(mnist, "rows", lambda path: [rows] * 3)
    assert moving.main([str(tmp_path / "videos.png")]) == 0
    assert (tmp_path / "videos.png").stat().st_size > 5_000
