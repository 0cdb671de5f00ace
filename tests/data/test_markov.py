"""The Markov baseline against its formula written as a loop over dictionaries, and against what is known beforehand."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longwave.data import markov
from longwave.data.codes import Codes, encode
from longwave.data.markov import MAX_ORDER, MarkovModel, fit_best
from longwave.errors import ArgumentError, DataError


def _bits_ref(train: str, scored: str, order: int, pseudocount: float) -> float:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for t, base in enumerate(train):
        for j in range(min(order, t) + 1):
            context = train[t - j : t]
            if base != "N" and "N" not in context:
                counts[context][base] += 1
    bits = []
    for t, base in enumerate(scored):
        if base == "N":
            continue
        p = 0.25
        for j in range(min(order, t) + 1):
            context = scored[t - j : t]
            if "N" in context:
                break
            p = (counts[context][base] + pseudocount * p) / (counts[context].total() + pseudocount)
        bits.append(-math.log2(p))
    return sum(bits) / len(bits)


DNA = st.text("ACGTN", min_size=1, max_size=60).filter(lambda text: set(text) != {"N"})


@settings(max_examples=150, deadline=None)
@given(
    train=DNA,
    scored=DNA,
    order=st.integers(0, 7),
    pseudocount=st.sampled_from([0.1, 1.0, 16.0]),
    chunk=st.integers(1, 70),
)
def test_bits_equal_the_formula(train: str, scored: str, order: int, pseudocount: float, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markov, "_CHUNK_BASES", chunk)
        model = MarkovModel.fit(encode(train), order, pseudocount=pseudocount)
        bits = model.bits_per_base(encode(scored))
    assert bits == pytest.approx(_bits_ref(train, scored, order, pseudocount), rel=1e-12)


def test_bits_by_hand() -> None:
    # Order 0 on AAAC with pseudocount 4: p(A) = (3 + 1)/(4 + 4), p(G) = (0 + 1)/(4 + 4).
    model = MarkovModel.fit(encode("AAAC"), 0, pseudocount=4)
    assert model.bits_per_base(encode("A")) == pytest.approx(1.0)
    assert model.bits_per_base(encode("G")) == pytest.approx(3.0)
    assert model.bits_per_base(encode("NANGN")) == pytest.approx(2.0)


def test_contexts_at_the_highest_order_do_not_collide() -> None:
    # Digits past the fourth would overflow 8 bits: two contexts that differ only in their oldest base.
    a, c = "A" + "G" * (MAX_ORDER - 1), "C" + "G" * (MAX_ORDER - 1)
    train = encode(f"{a}TN{c}AN" * 50)
    model = MarkovModel.fit(train, MAX_ORDER, pseudocount=0.5)
    assert model.counts[MAX_ORDER].sum() == 100
    assert sorted(model.counts[MAX_ORDER][model.counts[MAX_ORDER] > 0].tolist()) == [50, 50]
    assert model.bits_per_base(train) == pytest.approx(_bits_ref(f"{a}TN{c}AN" * 50, f"{a}TN{c}AN" * 50, MAX_ORDER, 0.5))


def test_counts_beyond_one_chunk() -> None:
    codes = np.random.default_rng(0).integers(0, 4, 3 * markov._CHUNK_BASES + 17, dtype=np.uint8)
    counts = MarkovModel.fit(codes, 3).counts
    for j in range(4):
        assert counts[j].sum() == codes.size - j
        assert counts[j].shape == (4**j, 4)


def test_a_periodic_sequence_is_almost_free_and_a_random_one_costs_two_bits() -> None:
    periodic = encode("AACGT" * 4_000)
    assert MarkovModel.fit(periodic, 2).bits_per_base(periodic) < 0.02
    assert MarkovModel.fit(periodic, 0).bits_per_base(periodic) == pytest.approx(1.9219, abs=1e-3)
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 4, 200_000, dtype=np.uint8), rng.integers(0, 4, 20_000, dtype=np.uint8)
    assert MarkovModel.fit(train, 4).bits_per_base(test) == pytest.approx(2.0, abs=0.01)
    # The control: a model cannot know bases that it has not seen, and does know those that it has.
    assert MarkovModel.fit(train, 10, pseudocount=1).bits_per_base(train) < 1.5


def test_scoring_does_not_change_the_model() -> None:
    codes = encode("ACGGT" * 20)
    model = MarkovModel.fit(codes, 3)
    first = model.bits_per_base(codes)
    model.bits_per_base(encode("TTTT"))
    assert model.bits_per_base(codes) == first


@pytest.mark.parametrize("text", ["A", "AC", "NAN", "ANCNGNT"])
def test_order_larger_than_the_data(text: str) -> None:
    model = MarkovModel.fit(encode(text), MAX_ORDER, pseudocount=1)
    assert model.bits_per_base(encode(text)) == pytest.approx(_bits_ref(text, text, MAX_ORDER, 1))
    best = fit_best(encode(text), encode(text))
    expected = _bits_ref(text, text, best.order, best.pseudocount)
    assert best.bits_per_base(encode(text)) == pytest.approx(expected)
    assert expected <= 2.0


def _markov_source(size: int, order: int, seed: int) -> Codes:
    """A random chain of the given order: each context prefers one base with probability 0.7."""
    source = np.random.default_rng(9)
    favourite = source.integers(0, 4, 4**order)
    rng = np.random.default_rng(seed)
    follows, noise = rng.random(size) < 0.6, rng.integers(0, 4, size)
    codes, context = np.empty(size, dtype=np.uint8), 0
    for t in range(size):
        codes[t] = favourite[context] if follows[t] else noise[t]
        context = (4 * context + int(codes[t])) % 4**order
    return codes


def test_fit_best_finds_the_order_of_the_source() -> None:
    train, validation, test = (_markov_source(size, 3, seed) for seed, size in enumerate([60_000, 10_000, 10_000]))
    best = fit_best(train, validation, orders=range(8))
    assert best.order == 3
    entropy = -0.7 * math.log2(0.7) - 0.3 * math.log2(0.1)
    assert best.bits_per_base(test) == pytest.approx(entropy, abs=0.03)


def test_fit_best_is_the_best_of_all_fits() -> None:
    rng = np.random.default_rng(4)
    train, validation = (rng.choice(5, size, p=[0.4, 0.3, 0.2, 0.05, 0.05]).astype(np.uint8) for size in (900, 400))
    orders, pseudocounts = [4, 0, 2], [30.0, 1.0]
    best = fit_best(train, validation, orders, pseudocounts)
    costs = {
        (order, w): MarkovModel.fit(train, order, pseudocount=w).bits_per_base(validation)
        for order in orders
        for w in pseudocounts
    }
    assert (best.order, best.pseudocount) == min(costs, key=lambda key: costs[key])
    assert best.bits_per_base(validation) == costs[best.order, best.pseudocount]
    assert len(best.counts) == best.order + 1


@pytest.mark.parametrize("order", [-1, MAX_ORDER + 1])
def test_order_out_of_range(order: int) -> None:
    codes = encode("ACGT")
    with pytest.raises(ArgumentError, match=f"0 to {MAX_ORDER} and {order} was given"):
        MarkovModel.fit(codes, order)
    with pytest.raises(ArgumentError, match=f"0 to {MAX_ORDER} and {order} was given"):
        fit_best(codes, codes, orders=[0, order])


@pytest.mark.parametrize("pseudocount", [0.0, -1.0, math.inf, math.nan])
def test_pseudocount_out_of_range(pseudocount: float) -> None:
    codes = encode("ACGT")
    with pytest.raises(ArgumentError, match="a positive number"):
        MarkovModel.fit(codes, 1, pseudocount=pseudocount)
    with pytest.raises(ArgumentError, match="a positive number"):
        fit_best(codes, codes, pseudocounts=[1.0, pseudocount])


def test_nothing_known_and_nothing_to_try() -> None:
    codes, unknown = encode("ACGT"), encode("NN")
    with pytest.raises(DataError, match="no known base to count among 2"):
        MarkovModel.fit(unknown, 1)
    with pytest.raises(DataError, match="no known base to score among 0"):
        MarkovModel.fit(codes, 1).bits_per_base(codes[:0])
    with pytest.raises(DataError, match="no known base to score among 2"):
        fit_best(codes, unknown)
    with pytest.raises(ArgumentError, match="at least one order"):
        fit_best(codes, codes, orders=[])
