"""Draws, examples and what is drawn: functions of (seed, step, rank), every example once an order, no words in two parts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from longwave.data import draws
from longwave.data.examples import EVERY, Examples
from longwave.data.generated import CHUNK, generated
from longwave.errors import ArgumentError, DataError


def test_streams_are_splitmix64() -> None:
    # The reference implementation's first numbers for the state 0.
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    keys = np.array([0, 7], dtype=np.uint64)
    assert draws.streams(keys, 0, 4)[0].tolist() == expected
    np.testing.assert_array_equal(draws.streams(keys, 1, 3), draws.streams(keys, 0, 4)[:, 1:])
    np.testing.assert_array_equal(draws.streams(keys[1:], 0, 4), draws.streams(keys, 0, 4)[1:])


def test_words_are_told_apart_by_every_argument_and_training_draws_what_it_always_drew() -> None:
    calls = [(0, 0, 0, "train"), (1, 0, 0, "train"), (0, 1, 0, "train"), (0, 0, 1, "train")]
    calls += [(0, 0, 0, "validation"), (0, 0, 0, "test"), (0, 0, 1, "test")]
    drawn = [tuple(draws.words(4, *call).tolist()) for call in calls]
    assert len(set(itertools.chain(*drawn))) == 4 * len(calls)
    assert drawn[1] == tuple(np.random.SeedSequence((1, 0, 0)).generate_state(4, np.uint64).tolist())
    with pytest.raises(ArgumentError, match="a split is one of train, validation, test and 'dev' was given"):
        draws.words(1, 0, 0, 0, "dev")
    with pytest.raises(ArgumentError, match="step must be at least 0 and -1 was given"):
        draws.words(1, 0, -1)


def test_numbers_of_words_fill_their_range() -> None:
    words = draws.words(6_000, 0, 0)
    assert np.bincount(draws.below(6, words)).tolist() == pytest.approx([1000] * 6, rel=0.12)
    unit = draws.unit(words)
    assert unit.min() >= 0
    assert unit.max() < 1
    assert unit.mean() == pytest.approx(0.5, abs=0.02)
    assert draws.unit(np.array([2**64 - 1], dtype=np.uint64))[0] < 1


def _examples(count: int) -> Examples:
    return Examples(torch.arange(count, dtype=torch.uint8)[:, None], torch.arange(count))


def test_every_example_comes_once_an_order_and_orders_differ() -> None:
    examples = _examples(10)
    drawn = torch.cat([examples.batch(step, 4, seed=3).labels for step in range(10)]).view(4, 10)
    assert [sorted(row) for row in drawn.tolist()] == [list(range(10))] * 4
    assert len({tuple(row) for row in drawn.tolist()}) == 4
    again = examples.batch(7, 4, seed=3)
    assert torch.equal(again.labels, drawn.flatten()[28:32])
    assert torch.equal(again.inputs[:, 0].long(), again.labels)
    assert not torch.equal(again.labels, examples.batch(7, 4, seed=4).labels)
    assert not torch.equal(again.labels, examples.batch(7, 4, seed=3, rank=1).labels)
    assert sorted(examples.batch(0, 25).labels.bincount().tolist()) == [2] * 5 + [3] * 5


def test_every_batch_has_the_classes_as_all_examples_have_them() -> None:
    labels = torch.tensor([0] * 48 + [1] * 32 + [2] * 16)[torch.randperm(96)]
    examples = Examples(torch.arange(96, dtype=torch.uint8).view(-1, 1), labels)
    for step in range(16):
        batch = examples.batch(step, 12, seed=5)
        assert torch.equal(batch.labels, labels[batch.inputs[:, 0].long()])
        assert (batch.labels.bincount(minlength=3) - torch.tensor([6, 4, 2])).abs().max() <= 1
    drawn = [torch.cat([examples.batch(step, 12, seed=5).inputs for step in range(8 * e, 8 * e + 8)]) for e in range(2)]
    assert all(torch.equal(inputs.sort(dim=0)[0], examples.inputs) for inputs in drawn)
    assert not torch.equal(*drawn)


def test_batches_are_in_order_and_the_last_has_what_is_left() -> None:
    assert [batch.labels.tolist() for batch in _examples(5).batches(2)] == [[0, 1], [2, 3], [4]]


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match="2 examples came with 3 labels"):
        Examples(torch.zeros(2, 1), torch.zeros(3))
    with pytest.raises(DataError, match="no example"):
        Examples(torch.zeros(0, 1), torch.zeros(0))
    with pytest.raises(ArgumentError, match="size must be at least 1 and 0 was given"):
        _examples(3).batch(0, 0)
    with pytest.raises(ArgumentError, match="at least 1 example is held out and 0 was given"):
        generated(_draw, 0, classes=2, vocabulary=0, source="x")


def _draw(size: int, seed: int, step: int, rank: int = 0, part: str = "train", rows: slice = EVERY) -> Examples:
    words = draws.words(size, seed, step, rank, part)[rows].astype(np.int64)
    return Examples(torch.from_numpy(words)[:, None], torch.from_numpy(words))


@pytest.mark.parametrize("count", [1, 5, CHUNK, 2 * CHUNK + 3])
def test_held_out_draws_do_not_depend_on_the_batch(count: int) -> None:
    split = generated(_draw, count, classes=2, vocabulary=0, source="x")
    whole = torch.cat([batch.labels for batch in split.test.batches(1000)])
    assert len(whole) == len(split.test) == count
    assert len(set(whole.tolist())) == count
    for size in (1, 3, CHUNK, 40):
        batches = [batch.labels for batch in split.test.batches(size)]
        assert torch.equal(torch.cat(batches), whole)
        assert [len(batch) for batch in batches] == [min(size, count - at) for at in range(0, count, size)]
    validation = torch.cat([batch.labels for batch in split.validation.batches(7)])
    assert not set(whole.tolist()) & set(validation.tolist())
    assert torch.equal(split.train.batch(3, 4, seed=1).labels, _draw(4, 1, 3).labels)
