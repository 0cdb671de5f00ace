"""Random calls of every option at once, by every algorithm: the right numbers, and the same bits in any company."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
import torch
from arguments import Case, arguments, compare, floating, result_gradient
from hypothesis import HealthCheck, given, settings
from random_cases import REAL, cases
from torch import Tensor

import longwave
from longwave.backends.cpu import threads

# What a row has the same bits of, alone and in any batch. The gradients of filters and of D are sums over the batch: a channel
# that shares its filters with no other has the same bits of them among any channels. Threads change nothing at all.
OF_A_ROW = ("y", "u", "pregate", "postgate", "history")

ROUTES = ["as_planned", "by_transforms", "by_six_steps", "by_windows"]


@pytest.fixture
def as_planned() -> None:
    """Whatever algorithm the engine chooses."""


@pytest.fixture
def on_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets the number of threads, which then take the smallest call apart."""
    monkeypatch.setattr(threads, "INLINE_SECONDS", 1e-9)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _made(kwargs: dict[str, Any], dy: Tensor) -> dict[str, Tensor]:
    """The result and the gradients, (B, H, ·) whatever the layout."""
    y, inputs = longwave.long_conv(**kwargs, backend="cpu"), floating(kwargs)
    found = {"y": y.detach()}
    if inputs:
        found |= zip(inputs, torch.autograd.grad(y, list(inputs.values()), dy), strict=True)
    return {name: _as_BHL(x, kwargs) if name in OF_A_ROW else x for name, x in found.items()}


def _as_BHL(x: Tensor, kwargs: dict[str, Any]) -> Tensor:
    x = x if kwargs["u"].dim() == 3 else x.unsqueeze(0)
    return x if kwargs["layout"] == "BHL" else x.transpose(1, 2)


def _part(kwargs: dict[str, Any], b: slice, h: slice) -> dict[str, Any]:
    """The same call of some rows and channels alone, each channel with a filter of its own, and every gradient asked for."""

    def cut(name: str, x: Tensor) -> Tensor:
        if name == "D":
            x = x[h]
        elif name in ("k", "k_rev"):
            H = _as_BHL(kwargs["u"], kwargs).shape[1]
            x = x.repeat_interleave(H // x.shape[-2], dim=-2)
            x = x[b, h] if x.dim() == 3 else x[h]
        else:
            x = _as_BHL(x, kwargs)[b, h]
        return x.detach().clone().requires_grad_()

    tensors = {name: cut(name, x) for name, x in kwargs.items() if isinstance(x, Tensor) and name != "cu_seqlens"}
    return {**kwargs, "layout": "BHL", **tensors}


def _has_the_same_bits(case: Case, set_threads: Callable[[int], None]) -> None:
    kwargs, dy = arguments(case), result_gradient(case)
    set_threads(1)
    whole = _made(kwargs, dy)
    for count in (2, 3):
        set_threads(count)
        for name, x in _made(kwargs, dy).items():
            assert torch.equal(whole[name], x), f"{name} on {count} threads in {case!r}"
    chance = Random(case.seed)
    B, H = whole["y"].shape[:2]
    b0, h0 = chance.randrange(B), chance.randrange(H)
    b = chance.choice((slice(b0, b0 + 1), slice(b0, chance.randint(b0 + 1, B)), slice(0, B)))
    h = chance.choice((slice(h0, h0 + 1), slice(h0, chance.randint(h0 + 1, H))))
    set_threads(chance.choice((1, 2, 3)))
    part = _made(_part(kwargs, b, h), _as_BHL(dy, kwargs)[b, h])
    for name in whole:
        if name in OF_A_ROW:
            same = torch.equal(whole[name][b, h], part[name])
        elif case.filters == "channel" and case.filters_rev in (None, "channel") and b == slice(0, B):
            same = torch.equal(whole[name][h], part[name])
        else:
            continue
        assert same, f"{name} of rows {b} and channels {h} alone in {case!r}"


@pytest.mark.parametrize("route", ROUTES)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(cases(REAL))
def test_any_combination_of_options(
    route: str, request: pytest.FixtureRequest, on_threads: Callable[[int], None], case: Case
) -> None:
    request.getfixturevalue(route)
    compare(case, "cpu")
    _has_the_same_bits(case, on_threads)


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("block", range(5))
@settings(
    max_examples=250,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(cases(REAL))
def test_thousands_of_combinations_of_options(
    block: int, route: str, request: pytest.FixtureRequest, on_threads: Callable[[int], None], case: Case
) -> None:
    """Half of ten thousand cases; one that fails is printed as `Case(…)`: `@example` runs it again."""
    request.getfixturevalue(route)
    compare(case, "cpu")
    _has_the_same_bits(case, on_threads)
