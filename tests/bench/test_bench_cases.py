"""The case list holds what is promised, and users can pick from it."""

from __future__ import annotations

import pytest
import scipy.fft

from longwave.bench.cases import BACKWARD, FORWARD, LENGTHS, Case, case_list, select
from longwave.bench.formula import transform_length
from longwave.errors import ArgumentError


@pytest.mark.parametrize("exponent", [22, 24])
@pytest.mark.parametrize("direction", [FORWARD, BACKWARD])
def test_every_promised_length_is_measured(exponent: int, direction: str) -> None:
    sweep = [
        case
        for case in case_list([exponent])
        if "lengths" in case.tags and case.direction == direction and case.dtype == "float32" and case.mode == "causal"
    ]
    promised = {256, 512, 1_024, 2_048, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304}
    ugly = {1_000, 14_113, 100_000}
    assert {case.L for case in sweep} == promised | ugly
    for case in sweep:
        assert case.K == case.L
        assert min(4, 2**exponent // case.L) == case.B
        assert case.samples <= 2**exponent
        assert case.samples > 0.9 * 2**exponent


def test_the_variants_are_there() -> None:
    cases = case_list()
    assert {"gated", "bf16", "BLH", "small", "ugly", "pow2", "circular", "full", "short-filter", "quick"} <= {
        tag for case in cases for tag in case.tags
    }
    assert {case.H for case in cases if "small" in case.tags} == {1, 16}
    assert len({case.name for case in cases}) == len(cases)
    assert [case.direction for case in cases] == sorted((case.direction for case in cases), key=[FORWARD, BACKWARD].index)


def test_few_samples_leave_long_cases_out() -> None:
    assert max(case.L for case in case_list([12]) if "small" not in case.tags) == 4_096


def test_select_by_tag_name_and_direction() -> None:
    cases = case_list([22])
    assert {case.layout for case in select(cases, words=["BLH"])} == {"BLH"}
    assert {case.L for case in select(cases, words=["L14113"])} == {14_113}
    both = select(cases, words=["BLH", "L14113"], directions=[FORWARD])
    assert {case.direction for case in both} == {FORWARD}
    assert len(both) == 1 + len(select(cases, words=["BLH"], directions=[FORWARD]))
    assert select(cases) == cases


def test_select_refuses_a_word_that_finds_nothing() -> None:
    with pytest.raises(ArgumentError, match=r"'abacus' as a tag or in its name; the tags are BLH, bf16"):
        select(case_list([22]), words=["BLH", "abacus"])


def test_a_case_survives_json_and_counts_its_bytes() -> None:
    case = Case(B=2, H=3, L=10, K=4, mode="full", gated=True, tags=("a", "b"))
    assert Case.from_dict(case.as_dict()) == case
    assert case.name == "full-L10-K4-B2-H3-float32-gated-forward"
    assert case.out_length == 13
    # u, pregate: 10 samples each; y, postgate: 13 each; the filter.
    assert case.bytes_moved == 4 * 6 * (10 + 10 + 13 + 13) + 4 * 3 * 4
    plain = Case(B=2, H=3, L=10, K=10, dtype="bfloat16", direction=BACKWARD)
    # u, y, dy, du in bfloat16; k and dk in float32.
    assert plain.bytes_moved == 2 * 6 * 40 + 2 * 4 * 3 * 10


def test_rivals_get_fast_lengths_without_wrap_around() -> None:
    for L in (*LENGTHS, 3, 7, 257):
        assert transform_length(Case(B=1, H=1, L=L, K=L)) == scipy.fft.next_fast_len(2 * L - 1, real=True)
    assert transform_length(Case(B=1, H=1, L=14_113, K=14_113, mode="circular")) == 14_113
