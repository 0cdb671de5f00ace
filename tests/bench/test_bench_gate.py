"""The truth is true, everyone who is right passes the gate, and nobody who is wrong does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from longwave.bench import truth as truth_module
from longwave.bench.cases import BACKWARD, FORWARD, Case
from longwave.bench.contestants import FLOOR, LONGWAVE, RIVAL, RIVALS, Contestant, contestants
from longwave.bench.formula import Arrays
from longwave.bench.gate import judge
from longwave.bench.mutants import MUTANTS, Mutant, truth
from longwave.bench.runner import measure
from longwave.bench.timer import WallTimer
from longwave.bench.tolerances import bound, relative_l2
from longwave.bench.truth import exact, make_arrays
from longwave.errors import ArgumentError, UnsupportedError
from longwave.reference import long_conv_ref

CASES = [
    Case(B=2, H=3, L=65, K=65, direction=BACKWARD),
    Case(B=2, H=3, L=65, K=65, dtype="bfloat16", gated=True, skip=True, direction=BACKWARD),
    Case(B=1, H=5, L=64, K=64, layout="BLH", gated=True, skip=True, direction=BACKWARD),
    Case(B=2, H=2, L=50, K=20, mode="circular", skip=True, direction=BACKWARD),
    Case(B=2, H=2, L=50, K=20, mode="full", gated=True, direction=BACKWARD),
    Case(B=2, H=2, L=33, K=80, dtype="float16", direction=FORWARD),
    Case(B=1, H=1, L=40, K=7, dtype="float64", direction=BACKWARD),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_truth_agrees_with_the_direct_sum_and_its_gradients(case: Case) -> None:
    x = make_arrays(case)
    leaves = [None if t is None else t.double().requires_grad_() for t in x[:5]]
    u, k, D, pregate, postgate = leaves
    y = long_conv_ref(u, k, D, mode=case.mode, pregate=pregate, postgate=postgate, layout=case.layout)
    found = exact(case, x)
    torch.testing.assert_close(found["y"], y, rtol=0, atol=1e-12)
    if case.direction == BACKWARD:
        present = [(name, leaf) for name, leaf in zip(Arrays._fields, leaves, strict=False) if leaf is not None]
        gradients = torch.autograd.grad(y, [leaf for _, leaf in present], x.dy.double())
        assert set(found) == {"y"} | {f"d{name}" for name, _ in present}
        for (name, _), gradient in zip(present, gradients, strict=True):
            torch.testing.assert_close(found[f"d{name}"], gradient, rtol=0, atol=1e-11)


def test_channels_in_pieces_are_the_same_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in CASES[1:3]:
        x = make_arrays(case)
        whole = exact(case, x)
        monkeypatch.setattr(truth_module, "_CHUNK_SAMPLES", 1)
        for name, piece in exact(case, x).items():
            torch.testing.assert_close(piece, whole[name], rtol=0, atol=1e-12)
        monkeypatch.undo()


def test_a_wrong_truth_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(CASES[0], direction=FORWARD)
    monkeypatch.setattr(truth_module, "transform_length", lambda case: case.L)  # nothing but the size of a piece
    exact(case, make_arrays(case))
    monkeypatch.setattr("longwave.bench.formula.transform_length", lambda case: case.L)  # wrap-around
    with pytest.raises(ArithmeticError, match="by a direct sum"):
        exact(case, make_arrays(case))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_longwave_and_every_rival_pass(case: Case) -> None:
    field, absent = contestants(["plain"])
    assert not absent
    assert [one.name for one in field if one.kind == RIVAL] == [rival.name for rival in RIVALS]
    x = make_arrays(case)
    for one in field:
        results = one.bind(case, x)()
        if one.kind != FLOOR:
            verdict = judge(case, results, exact(case, x), one.backend)
            assert verdict.passed, (one.name, verdict.failure)
            assert set(verdict.errors) == set(results)
    assert field[0].kind == LONGWAVE


@pytest.mark.parametrize(
    ("mutant", "dtype"),
    [
        pytest.param(mutant, dtype, id=f"{mutant.name}, {dtype}")
        for mutant in MUTANTS
        for dtype in ("float32", "bfloat16", "float16")
        # One tap that meets one sample of 255 is below what 16 bits hold.
        if dtype == "float32" or mutant.name != "last tap dropped"
    ],
)
def test_the_gate_refuses_a_broken_operator(mutant: Mutant, dtype: str) -> None:
    L = 255
    case = Case(B=2, H=3, L=L, K=L, dtype=dtype, direction=BACKWARD)
    x = make_arrays(case)
    right = exact(case, x)
    stored = {name: value.to(torch.float32 if name == "dk" else getattr(torch, dtype)) for name, value in right.items()}
    assert judge(case, stored, right).passed
    signal = x.u if mutant.quantity == "y" else x.dy
    broken = mutant.result(signal.double(), x.k.double()).to(getattr(torch, dtype))
    assert not judge(case, stored | {mutant.quantity: broken}, right).passed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutants_stand_beside_a_true_truth_and_miss_it(mutant: Mutant) -> None:
    x, k = torch.randn(2, 2, 100, dtype=torch.float64)
    right = truth(mutant.quantity, x, k)
    ours = long_conv_ref(x if mutant.quantity == "y" else x.flip(-1), k)
    assert relative_l2(ours if mutant.quantity == "y" else ours.flip(-1), right) < 1e-14
    assert relative_l2(mutant.result(x, k), right) > bound(torch.float32, 100)


def test_the_gate_refuses_nan_missing_results_and_other_shapes_and_dtypes() -> None:
    case = Case(B=2, H=3, L=65, K=65)
    right = exact(case, make_arrays(case))
    y = right["y"].float()
    assert judge(case, {"y": y}, right).passed
    spoilt = y.clone()
    spoilt[1, 2, 64] = torch.nan
    for results in ({}, {"y": spoilt}, {"y": y[..., :-1]}, {"y": y.double()}, {"y": y, "du": y}):
        verdict = judge(case, results, right)
        assert not verdict.passed
        assert verdict.failure


def test_who_fails_gets_no_time_and_who_refuses_is_no_failure() -> None:
    case = Case(B=1, H=2, L=64, K=64)

    def zeros(case: Case, x: Arrays):
        return lambda: {"y": torch.zeros_like(x.u)}

    def refusing(case: Case, x: Arrays):
        def call() -> dict[str, Tensor]:
            raise UnsupportedError("takes no such thing")

        return call

    field = contestants(["plain"])[0]
    field += [Contestant("zeros", RIVAL, zeros), Contestant("refusing", LONGWAVE, refusing)]
    entries = {entry.name: entry for entry in measure(case, field, WallTimer()).entries}
    assert entries["zeros"].failure.startswith("y is off by 1.0e+00")
    assert not entries["zeros"].refused
    assert entries["refusing"].refused
    assert not entries["zeros"].seconds
    assert not entries["refusing"].seconds
    assert len(entries["longwave:plain"].seconds) == len(entries["copy"].seconds) == 5


def test_contestants_names_who_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longwave.bench.contestants.RIVALS", (replace(RIVALS[1], module="no_such_module"),))
    field, absent = contestants(["plain"])
    assert not [one for one in field if one.kind == RIVAL]
    assert "pip install 'longwave[bench]'" in absent["scipy.fft"]


def test_contestants_refuses_a_backend_that_is_not_one() -> None:
    with pytest.raises(ArgumentError, match="--backend abacus is unknown; choose from"):
        contestants(["abacus"])
