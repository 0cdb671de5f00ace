"""Splits, training windows and evaluation windows: nothing leaks, nothing is missed, everything repeats."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longwave.data.codes import UNKNOWN, Codes, Record, encode
from longwave.data.dna import Windows, documents, evaluation_windows, split
from longwave.errors import ArgumentError, DataError


def _random(size: int, seed: int = 0) -> Codes:
    return np.random.default_rng(seed).integers(0, 4, size, dtype=np.uint8)


def _words(codes: Codes, length: int = 20) -> np.ndarray:
    """(n - length + 1,) int64: each stretch of `length` bases as one number."""
    windows = np.lib.stride_tricks.sliding_window_view(codes.astype(np.int64), length)
    return windows @ (4 ** np.arange(length))


def test_split_is_three_stretches_in_order() -> None:
    codes = _random(10_007)
    parts = split([Record("r", codes)], 100)
    assert (parts.train.size, parts.validation.size, parts.test.size) == (9_007, 500, 500)
    assert np.array_equal(np.concatenate([parts.train, parts.validation, parts.test]), codes)
    assert not np.shares_memory(parts.train, codes)


def test_split_borders_do_not_depend_on_the_context() -> None:
    record = Record("r", _random(9_000))
    assert np.array_equal(split([record], 1).test, split([record], 5_000).test)


def test_split_joins_records_with_one_n() -> None:
    sizes = [1, 3_000, 1, 2, 2_000]
    records = [Record(f"r{i}", _random(size, i)) for i, size in enumerate(sizes)]
    parts = split(records, 10)
    joined = np.concatenate([parts.train, parts.validation, parts.test])
    assert joined.size == sum(sizes) + len(sizes) - 1
    separators = np.flatnonzero(joined == UNKNOWN).tolist()
    assert separators == [1, 3_002, 3_004, 3_007]
    assert np.array_equal(joined[3_008:], records[-1].codes)


def test_split_says_where_records_begin() -> None:
    """At the N before them, in each stretch by itself, also where that is the first or the last of a stretch."""
    for sizes, expected in (
        ([1, 8_998, 499, 3, 495, 1, 1, 1], [[1, 9_000], [494, 498], [494, 496, 498]]),
        ([3, 8_996, 498, 500], [[3], [0, 499], []]),
        ([9_000], [[], [], []]),
    ):
        parts = split([Record(f"r{i}", _random(size, i)) for i, size in enumerate(sizes)], 10)
        stretches = (parts.train, parts.validation, parts.test)
        found = (parts.train_records, parts.validation_records, parts.test_records)
        assert [records.tolist() for records in found] == expected
        assert [np.flatnonzero(stretch == UNKNOWN).tolist() for stretch in stretches] == expected


@settings(max_examples=80, deadline=None)
@given(
    records=st.lists(st.integers(0, 40), unique=True).map(sorted),
    rows=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    length=st.integers(1, 12),
)
def test_documents_are_those_of_the_inputs(records: list[int], rows: list[int], length: int) -> None:
    number = np.cumsum(np.isin(np.arange(60), records))  # which record an index belongs to
    found = documents(rows, length, np.array(records, dtype=np.int64))
    label = [(row, number[first + i]) for row, first in enumerate(rows) for i in range(length)]
    bounds = [i for i, here in enumerate(label) if i == 0 or here != label[i - 1]]
    if len(bounds) == len(rows):
        assert found is None
    else:
        assert found is not None
        assert found.dtype == torch.int32
        assert found.tolist() == [*bounds, len(label)]


def test_windows_know_their_records_and_draw_the_same_bases() -> None:
    codes = _random(400)
    codes[[150, 160, 300]] = UNKNOWN
    records = np.array([150, 160, 300])
    windows, joined = Windows(codes, 50, 8, seed=1, records=records), Windows(codes, 50, 8, seed=1)
    several = 0
    for step in range(20):
        batch, found = windows.batch(step), windows.documents(step)
        assert torch.equal(batch, joined.batch(step))
        assert joined.documents(step) is None
        inputs = batch[:, :-1].flatten()
        begins = {i for i in range(inputs.numel()) if i % 50 == 0 or inputs[i] == UNKNOWN}
        assert set(found.tolist() if found is not None else range(0, 401, 50)) == begins | {400}
        several += found is not None
    assert several > 0


def test_no_window_touches_a_held_out_base() -> None:
    codes = _random(6_000, 3)
    words = _words(codes)
    assert len(np.unique(words)) == len(words)  # so that any 20 bases tell where they come from
    place = {int(word): index for index, word in enumerate(words)}
    parts = split([Record("r", codes)], 64)
    train_size = parts.train.size
    windows = Windows(parts.train, 64, 256, seed=5)
    seen = np.zeros(codes.size, dtype=bool)
    for step in range(80):
        for window in windows.batch(step).numpy():
            start = place[int(_words(window[:20])[0])]
            assert np.array_equal(window, codes[start : start + 65])
            seen[start : start + 65] = True
    assert not seen[train_size:].any()
    assert seen[:train_size].all()  # the control: windows reach the last base they may see


def test_every_window_is_drawn_about_equally() -> None:
    codes = _random(60, 1)
    windows = Windows(codes, 30, 100)
    assert windows.count == 30
    place = {codes[start : start + 31].tobytes(): start for start in range(30)}
    counts = np.bincount([place[row.tobytes()] for step in range(60) for row in windows.batch(step).numpy()], minlength=30)
    assert counts.min() > 130  # of 200 expected: five standard deviations
    assert counts.max() < 270


def test_batch_follows_from_seed_step_and_rank_alone() -> None:
    codes = _random(5_000)
    windows = Windows(codes, 100, 4, seed=1, rank=0)
    batch = windows.batch(7)
    assert batch.dtype == torch.uint8
    assert batch.shape == (4, 101)
    for _ in range(2):
        windows.batch(3)
    assert torch.equal(windows.batch(7), batch)
    assert torch.equal(Windows(codes.copy(), 100, 4, seed=1, rank=0).batch(7), batch)
    others = [
        windows.batch(8),
        Windows(codes, 100, 4, seed=2).batch(7),
        Windows(codes, 100, 4, seed=1, rank=1).batch(7),
    ]
    assert not any(torch.equal(other, batch) for other in others)
    assert len({row.numpy().tobytes() for row in batch}) == 4


def test_batch_is_the_same_in_every_version() -> None:
    # A run that is resumed under another NumPy or longwave must see the same bases.
    codes = (np.arange(100_003) ** 2 // 7 % 4).astype(np.uint8)
    batch = Windows(codes, 50, 8, seed=12, rank=3).batch(345)
    assert hashlib.sha256(batch.numpy().tobytes()).hexdigest()[:16] == "b1049d09edcc2123"


def test_batch_does_not_share_memory_with_the_genome() -> None:
    codes = _random(500)
    before = codes.copy()
    Windows(codes, 10, 3).batch(0).fill_(4)
    next(evaluation_windows(codes, 10)).fill_(4)
    assert np.array_equal(codes, before)


@settings(max_examples=80, deadline=None)
@given(text=st.text("ACGTNNNN", min_size=2, max_size=24), context=st.integers(1, 8))
def test_windows_are_exactly_those_with_a_target(text: str, context: int) -> None:
    codes = encode(text)
    every = [codes[start : start + context + 1] for start in range(codes.size - context)]
    fertile = [window for window in every if (window[1:] != UNKNOWN).any()]
    if not fertile:
        with pytest.raises(DataError):
            Windows(codes, context, 1)
        return
    windows = Windows(codes, context, 600)
    assert windows.count == len(fertile)
    drawn = {row.tobytes() for row in windows.batch(0).numpy()}
    assert drawn == {window.tobytes() for window in fertile}


@settings(max_examples=80, deadline=None)
@given(size=st.integers(1, 60), context=st.integers(1, 70), batch_size=st.integers(1, 7))
def test_evaluation_covers_every_base_once(size: int, context: int, batch_size: int) -> None:
    codes = np.random.default_rng(size).integers(0, 5, size, dtype=np.uint8)
    batches = list(evaluation_windows(codes, context, batch_size))
    assert all(batch.dtype == torch.uint8 and 1 <= len(batch) <= batch_size for batch in batches)
    targets = np.concatenate([batch[:, 1:].reshape(-1).numpy() for batch in batches])
    inputs = np.concatenate([batch[:, :-1].reshape(-1).numpy() for batch in batches])
    assert np.array_equal(targets, codes)
    assert np.array_equal(inputs, np.concatenate([[UNKNOWN], codes[:-1]]))
    lengths = [batch.shape[1] - 1 for batch in batches for _ in batch]
    assert lengths == [context] * (size // context) + [size % context] * (size % context > 0)


@pytest.mark.parametrize("context", [1_000, 5_000_000_000])
def test_context_longer_than_the_data(context: int) -> None:
    with pytest.raises(DataError, match=f"{context:,} bases .* 1,000 leave 900; .* at most 899 ") as caught:
        split([Record("r", _random(1_000))], context)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=f"{context:,} takes {context + 1:,} .* 900; .* at most 899 "):
        Windows(_random(900), context, 1)


def test_longest_context_that_fits() -> None:
    parts = split([Record("r", _random(4_000))], 3_599)
    batch = Windows(parts.train, 3_599, 2).batch(0)
    assert np.array_equal(batch[0].numpy(), parts.train)
    with pytest.raises(DataError, match="at most 3,599"):
        split([Record("r", _random(4_000))], 3_600)


@pytest.mark.parametrize("size", [1, 2, 19, 1_999])
def test_held_out_too_small(size: int) -> None:
    with pytest.raises(DataError, match=f"{size:,}|context of 1 "):
        split([Record("r", _random(size))], 1)


def test_held_out_of_ns() -> None:
    codes = _random(20_000)
    codes[19_000:] = UNKNOWN
    with pytest.raises(DataError, match=r"the test region .* 0 known bases"):
        split([Record("r", codes)], 10)


def test_training_of_ns() -> None:
    with pytest.raises(DataError, match="all 500 bases to train on are N"):
        Windows(np.full(500, UNKNOWN, dtype=np.uint8), 10, 1)


def test_bad_arguments() -> None:
    codes = _random(5_000)
    with pytest.raises(ArgumentError, match="at least one record"):
        split([], 10)
    with pytest.raises(ArgumentError, match="context is at least 1 base and 0"):
        split([Record("r", codes)], 0)
    with pytest.raises(ArgumentError, match="batch_size must be at least 1 and 0"):
        Windows(codes, 10, 0)
    with pytest.raises(ArgumentError, match="seed must be at least 0 and -1"):
        Windows(codes, 10, 1, seed=-1)
    with pytest.raises(ArgumentError, match="rank must be at least 0 and -1"):
        Windows(codes, 10, 1, rank=-1)
    with pytest.raises(ArgumentError, match="step must be at least 0 and -1"):
        Windows(codes, 10, 1).batch(-1)
    with pytest.raises(ArgumentError, match="batch_size must be at least 1 and 0"):
        evaluation_windows(codes, 10, 0)
    with pytest.raises(ArgumentError, match="context is at least 1 base and 0"):
        evaluation_windows(codes, 0)
    with pytest.raises(ArgumentError, match="0 to 4"):
        evaluation_windows(np.array([9], dtype=np.uint8), 3)
    with pytest.raises(DataError, match="no base"):
        evaluation_windows(codes[:0], 10)
