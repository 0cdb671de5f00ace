"""Recall and induction: the answer is found by reading, whatever the length, and by nothing less."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from longwave.data import recall
from longwave.data.examples import IGNORE
from longwave.errors import ArgumentError


@pytest.mark.parametrize(("length", "vocabulary"), [(3, 4), (4, 4), (5, 6), (20, 10), (31, 40), (200, 256)])
def test_the_answer_of_recall_is_what_stood_behind_the_key(length: int, vocabulary: int) -> None:
    batch = recall.load(length, vocabulary).train.batch(3, 400, seed=1)
    assert (batch.labels[:, :-1] == IGNORE).all()
    half = vocabulary // 2
    for tokens, answer in zip(batch.inputs.tolist(), batch.labels[:, -1].tolist(), strict=True):
        said, key = tokens[:-1], tokens[-1]
        assert len(tokens) == length
        keys, values = said[length % 2 == 0 :: 2], said[(length % 2 == 0) + 1 :: 2]
        assert key < half
        assert all(token < half for token in keys)
        assert all(half <= token < vocabulary for token in values)
        assert {value for token, value in zip(keys, values, strict=True) if token == key} == {answer}
    assert batch.labels[:, -1].unique().numel() > 0.5 * half
    assert batch.inputs[:, -1].unique().numel() > 0.5 * half


def test_nothing_but_the_pair_tells() -> None:
    batch = recall.load(20, 10).train.batch(0, 20_000)
    answers, keys = batch.labels[:, -1].numpy(), batch.inputs[:, -1].numpy()
    counts = np.zeros((5, 5))
    np.add.at(counts, (keys, answers - 5), 1)
    assert (counts.max(axis=1) / counts.sum(axis=1)).max() < 0.23  # a fifth each: keys mean something else every time
    last = batch.inputs[:, -2].numpy()
    # The last value is right where its key is asked (once in nine, and by chance once in five), else once in five.
    asked = 1 / 9 + 8 / 9 / 5
    assert (answers == last).mean() == pytest.approx(asked + (1 - asked) / 5, abs=0.015)


@pytest.mark.parametrize(("length", "vocabulary"), [(3, 3), (4, 5), (30, 20), (300, 256)])
def test_the_answer_of_induction_followed_the_special_token(length: int, vocabulary: int) -> None:
    batch = recall.load_induction(length, vocabulary).train.batch(3, 400, seed=1)
    special = vocabulary - 1
    assert (batch.labels[:, :-1] == IGNORE).all()
    places = set()
    for tokens, answer in zip(batch.inputs.tolist(), batch.labels[:, -1].tolist(), strict=True):
        assert len(tokens) == length
        assert tokens[-1] == special
        assert tokens[:-1].count(special) == 1
        at = tokens.index(special)
        places.add(at)
        assert tokens[at + 1] == answer != special
    assert len(places) > 0.6 * (length - 2)
    assert max(places) <= length - 3


def test_parts_share_no_sequence_and_resume() -> None:
    split = recall.load_induction(30, 20, held_out=200)
    (validation,), (test,) = split.validation.batches(200), split.test.batches(200)
    train = torch.cat([split.train.batch(step, 200).inputs for step in range(5)])
    rows = [{row.numpy().tobytes() for row in inputs} for inputs in (train, validation.inputs, test.inputs)]
    assert [len(part) for part in rows] == [1_000, 200, 200]
    assert len(set().union(*rows)) == 1_400
    assert torch.equal(split.train.batch(7, 9, 2, 1).inputs, split.train.batch(7, 9, 2, 1).inputs)


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match="a pair and a question take 3 tokens and a length of 2 was given"):
        recall.load(2)
    with pytest.raises(ArgumentError, match="the vocabulary is 3 to 256 tokens and 257 was given"):
        recall.load_induction(30, 257)
    with pytest.raises(ArgumentError, match="but 7 is odd; give an even one"):
        recall.load(20, 7)
