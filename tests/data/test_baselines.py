"""Simple models: n-grams against their formula over dictionaries, linear models where the answer is known."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longwave.data import baselines, streams
from longwave.data.examples import IGNORE, Examples, Split
from longwave.data.ngrams import MAX_ORDER, NgramModel, fit_best
from longwave.errors import ArgumentError, DataError


def _bits_ref(train: list[bytes], scored: list[bytes], vocabulary: int, order: int, pseudocount: float) -> float:
    counts: defaultdict[bytes, Counter[int]] = defaultdict(Counter)
    for piece in train:
        for t, token in enumerate(piece):
            for j in range(min(order, t) + 1):
                counts[piece[t - j : t]][token] += 1
    bits = []
    for piece in scored:
        for t in range(1, len(piece)):
            p = 1 / vocabulary
            for j in range(min(order, t) + 1):
                context = counts[piece[t - j : t]]
                p = (context[piece[t]] + pseudocount * p) / (context.total() + pseudocount)
            bits.append(-math.log2(p))
    return sum(bits) / len(bits)


PIECES = st.lists(st.lists(st.sampled_from([0, 1, 7, 255]), max_size=30).map(bytes), min_size=1, max_size=3)


@settings(max_examples=100, deadline=None)
@given(train=PIECES, scored=PIECES, order=st.integers(0, MAX_ORDER), pseudocount=st.sampled_from([0.1, 1.0, 16.0]))
def test_bits_equal_the_formula(train: list[bytes], scored: list[bytes], order: int, pseudocount: float) -> None:
    arrays = [[np.frombuffer(piece, dtype=np.uint8) for piece in pieces] for pieces in (train, scored)]
    if not any(train):
        with pytest.raises(DataError, match="no token to count"):
            NgramModel.fit(arrays[0], 256, order)
        return
    model = NgramModel.fit(arrays[0], 256, order, pseudocount=pseudocount)
    if max(map(len, scored)) < 2:
        with pytest.raises(DataError, match="no token with one before it"):
            model.bits_per_token(arrays[1])
        return
    assert model.bits_per_token(arrays[1]) == pytest.approx(_bits_ref(train, scored, 256, order, pseudocount), rel=1e-12)


def test_the_best_order_is_the_sources() -> None:
    rng = np.random.default_rng(0)
    favourite = rng.integers(0, 8, (8, 8))
    tokens = np.zeros(30_000, dtype=np.uint8)
    noise, follows = rng.integers(0, 8, tokens.size), rng.random(tokens.size) < 0.7
    for t in range(2, tokens.size):
        tokens[t] = favourite[tokens[t - 2], tokens[t - 1]] if follows[t] else noise[t]
    train, validation, test = np.split(tokens, [20_000, 25_000])
    best = fit_best([train], [validation], 8)
    assert best.order == 2
    right, wrong = 0.7 + 0.3 / 8, 0.3 / 8
    assert best.bits_per_token([test]) == pytest.approx(-right * math.log2(right) - 7 * wrong * math.log2(wrong), abs=0.06)
    assert NgramModel.fit([train], 8, 0).bits_per_token([test]) > 2.5  # the control
    parts = [streams.TokenWindows([train], 16), *(streams.HeldOutPieces([p], 16, "test") for p in (validation, test))]
    found = baselines.ngram_bits(Split(*parts, classes=8, vocabulary=8, source=""))
    assert found == baselines.Baseline("Markov model of order 2", best.bits_per_token([test]))


def test_refusals_of_ngrams() -> None:
    tokens = [np.array([3], dtype=np.uint8)]
    for call, expected in (
        (lambda: NgramModel.fit(tokens, 3, 1), "tokens are below a vocabulary of at most 256 and 3 was given"),
        (lambda: NgramModel.fit(tokens, 4, MAX_ORDER + 1), f"0 to {MAX_ORDER} and {MAX_ORDER + 1} was given"),
        (lambda: NgramModel.fit(tokens, 4, 1, pseudocount=0), "a pseudocount is a positive number and 0 was given"),
        (lambda: fit_best(tokens, tokens, 4, []), "at least one order and one pseudocount"),
    ):
        with pytest.raises(ArgumentError, match=expected):
            call()


def _dna(labels: torch.Tensor, seed: int) -> Examples:
    """Class 1 has CG twice as often as chance."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (len(labels), 200), dtype=np.uint8)
    places = rng.random((len(labels), 199)) < 0.1
    for row in np.flatnonzero(labels.numpy()):
        for at in np.flatnonzero(places[row]):
            codes[row, at : at + 2] = (1, 2)
    return Examples(torch.from_numpy(codes), labels)


def test_kmers_find_a_pair_of_bases_that_single_ones_barely_show() -> None:
    labels = torch.arange(400) % 2
    split = Split(_dna(labels, 0), _dna(labels[:200], 1), _dna(labels[:200], 2), classes=2, vocabulary=5, source="")
    pairs, single = baselines.kmer_logistic(split, (2, 3)), baselines.kmer_logistic(split, (1,))
    assert pairs.score > 0.9 > 0.85 > single.score
    assert "2-mers" in pairs.name
    assert baselines.majority(split).score == 0.5
    rng = np.random.default_rng(0)
    shuffled = [
        Examples(part.inputs, part.labels[rng.permutation(len(part))]) for part in (split.train, split.validation, split.test)
    ]
    assert baselines.kmer_logistic(Split(*shuffled, classes=2, vocabulary=5, source=""), (2,)).score < 0.62
    with pytest.raises(ArgumentError, match="k-mers of 1 to 8 bases are counted in DNA"):
        baselines.kmer_logistic(split, (9,))
    with pytest.raises(ArgumentError, match="this model takes numbers and the split has tokens of 5"):
        baselines.pixel_logistic(split)
    with pytest.raises(ArgumentError, match="n-grams are counted in streams of tokens"):
        baselines.ngram_bits(split)


def test_the_bases_around_a_base_are_seen_where_they_are() -> None:
    def part(seed: int) -> Examples:
        codes = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (30, 64), dtype=np.uint8))
        labels = torch.nn.functional.pad((codes[:, :-2] == 2).long(), (2, 0))  # is there a G two bases before?
        labels[:, :5] = IGNORE
        return Examples(codes, labels)

    split = Split(part(0), part(1), part(2), classes=2, vocabulary=5, source="")
    assert baselines.base_window_logistic(split, (3,)).score == 1.0
    assert baselines.base_window_logistic(split, (1,)).score < 0.8
    assert baselines.majority(split) == baselines.Baseline("always class 0", baselines.base_window_logistic(split, (1,)).score)
