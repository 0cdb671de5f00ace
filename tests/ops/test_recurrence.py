"""Sums of exponentials against their terms, last states and streams against the recurrence, step by step in float64."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from arguments import long_conv_ref
from devices import here, randn

from longwave.errors import ArgumentError
from longwave.ops.exponentials import PART, exponential_sums, last_state
from longwave.ops.recurrence import RecurrentState, RecurrentStream


def spaces(H: int, N: int, slowest: float = 1e-3) -> tuple[torch.Tensor, torch.Tensor]:
    decay = slowest * here(torch.rand(H, N, dtype=torch.float64)).add(1)
    return torch.complex(-decay, 3 * randn(H, N, dtype=torch.float64)), randn(H, N, dtype=torch.complex128)


def recurrence(log_z: torch.Tensor, c: torch.Tensor, u: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition: one step after the other."""
    z, y = torch.exp(log_z), []
    for t in range(u.shape[-1]):
        x = z * x + u[..., t, None]
        y.append((c * x).sum(-1).real)
    return torch.stack(y, dim=-1), x


@pytest.mark.parametrize("taps", [1, 2, 3, 16, 17, 255, 1009])
@pytest.mark.parametrize("rows", [(), (2,)])
def test_sums_of_exponentials_are_their_terms(taps: int, rows: tuple[int, ...]) -> None:
    log_z, _ = spaces(3, 5)
    c = randn(*rows, 3, 5, dtype=torch.complex128)
    steps = here(torch.arange(taps, dtype=torch.float64))
    expected = (c.unsqueeze(-1) * torch.exp(log_z.unsqueeze(-1) * steps)).sum(-2).real
    torch.testing.assert_close(exponential_sums(log_z, c, taps, dtype=torch.float64), expected, rtol=1e-11, atol=1e-11)
    single = exponential_sums(log_z, c, taps)
    assert single.dtype == torch.float32
    assert (single - expected).norm() < 4e-7 * expected.norm()


def test_a_million_taps_keep_the_accuracy_of_float32() -> None:
    """Phases of three million radians, as one product they would be wrong by 0.2 in float32."""
    log_z, c = spaces(2, 4, slowest=1e-6)
    taps = 1_000_000
    found = exponential_sums(log_z, c, taps)
    for begin in (0, 500_000, taps - 1_000):
        steps = here(torch.arange(begin, begin + 1_000, dtype=torch.float64))
        expected = (c.unsqueeze(-1) * torch.exp(log_z.unsqueeze(-1) * steps)).sum(-2).real
        assert (found[:, begin : begin + 1_000] - expected).norm() < 4e-7 * expected.norm()
        assert expected.abs().max() > 0.1


def test_gradients_of_sums_of_exponentials() -> None:
    log_z, c = (x.requires_grad_() for x in spaces(2, 3, slowest=0.1))
    assert torch.autograd.gradcheck(lambda a, b: exponential_sums(a, b, 11, dtype=torch.float64), (log_z, c))


@pytest.mark.cpu_only("PyTorch's profiler counts the memory of the CPU")
@pytest.mark.parametrize("H_N_taps", [(4, 16, 65_536)])
def test_no_array_has_all_taps_of_all_states(H_N_taps: tuple[int, int, int]) -> None:
    """Neither forward nor for the backward pass: two tables of √taps powers, and the filter."""
    H, N, taps = H_N_taps
    log_z, c = (x.requires_grad_() for x in spaces(H, N))
    saved: list[int] = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        saved.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(counted, lambda x: x):
        k = exponential_sums(log_z, c, taps)
    assert max(saved) <= 2 * H * N * math.isqrt(taps)
    assert sum(saved) < H * N * taps / 10
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        k.square().sum().backward()
    largest = max(abs(event.self_cpu_memory_usage) for event in profile.events())
    assert 0 < largest < 8 * H * N * taps / 10


@pytest.mark.parametrize("length", [0, 1, 2, 30, 1000, PART + 3])
def test_last_state_is_that_of_the_recurrence(length: int) -> None:
    log_z, c = spaces(2, 3)
    u, x = randn(2, 2, length, dtype=torch.float64), randn(2, 2, 3, dtype=torch.complex128)
    if length > PART:  # by a sum over all powers: so many steps take long
        powers = torch.exp(log_z.unsqueeze(-1) * here(torch.arange(length - 1, -1, -1, dtype=torch.float64)))
        expected = torch.exp(log_z * length) * x + (u.unsqueeze(-2) * powers).sum(-1)
    else:
        expected = recurrence(log_z, c, u, x)[1] if length else x
    torch.testing.assert_close(last_state(log_z, u, x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(3))
def test_any_mixture_of_pieces_is_one_convolution(dtype: torch.dtype, seed: int) -> None:
    """And what is taken back leaves no trace."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    log_z, c = spaces(3, 4, slowest=0.01)
    D = randn(3)
    u = randn(2, 3, 400).to(dtype)
    expected, _ = recurrence(log_z, c, u.double(), here(torch.zeros(2, 3, 4, dtype=torch.complex128)))
    expected = expected + D[:, None].double() * u
    whole = long_conv_ref(u, exponential_sums(log_z, c, 400, dtype=torch.float64), D)
    torch.testing.assert_close(whole, expected, rtol=1e-11, atol=1e-11)
    stream = RecurrentStream(log_z, c, D, batch_size=2, dtype=dtype, max_rollback=6)
    stream.prefill(randn(2, 3, 5).to(dtype))
    t = chance.randrange(1, 200)
    parts = [stream.prefill(u[..., :t])]
    while t < 400:
        n = min(400 - t, chance.choice([1, 1, 2, 6, 7, 40]))
        parts.append(stream.step(u[..., t])[..., None] if n == 1 else stream.extend(u[..., t : t + n]))
        t += n
        tried = chance.randrange(7)
        for _ in range(tried):
            stream.step(randn(2, 3).to(dtype))
        stream.rollback(tried)
    y = torch.cat(parts, dim=-1)
    assert y.dtype == dtype
    error = (y - expected).norm() / expected.norm()
    assert error < {torch.float64: 1e-13, torch.float32: 4e-7, torch.bfloat16: 3e-3}[dtype]


def test_rows_of_different_lengths_beams_and_states() -> None:
    log_z, c = spaces(2, 3)
    u = randn(3, 2, 40, dtype=torch.float64)
    stream = RecurrentStream(log_z, c, batch_size=3, dtype=torch.float64, max_rollback=2)
    y = stream.prefill(u, lengths=[40, 13, 0])
    own = here(torch.arange(40) >= 40 - torch.tensor([40, 13, 0])[:, None, None])
    expected = long_conv_ref(u * own, exponential_sums(log_z, c, 40, dtype=torch.float64)) * own
    torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)
    saved = stream.snapshot()
    next_one = randn(3, 2, dtype=torch.float64)
    first = stream.step(next_one)
    stream.restore(RecurrentState.from_tensors(saved.tensors()))
    assert stream.position == 40
    torch.testing.assert_close(stream.step(next_one), first, rtol=1e-12, atol=1e-12)
    stream.rollback(2)  # one of them from before the snapshot
    stream.extend(torch.stack([(u * own)[..., -1], next_one], dim=-1))
    stream.rollback(1)
    stream.reorder(here(torch.tensor([2, 0, 0])))
    torch.testing.assert_close(stream.step(next_one[[2, 0, 0]]), first[[2, 0, 0]], rtol=1e-12, atol=1e-12)
    assert (first[0] - first[1]).abs().max() > 0.1


def test_recurrent_streams_refuse_in_one_sentence() -> None:
    log_z, c = spaces(2, 3)
    stream = RecurrentStream(log_z, c, batch_size=1, max_length=4, max_rollback=1)
    u = randn(1, 2, 3)
    for wrong in (u[0], u.double(), randn(1, 3, 3), u.requires_grad_(), 3):
        with pytest.raises(ArgumentError):
            stream.extend(wrong)
    stream.prefill(u.detach())
    with pytest.raises(ArgumentError, match="max_length=4"):
        stream.extend(u.detach())
    stream.rollback(1)
    with pytest.raises(ArgumentError, match="a rollback of 1"):
        stream.rollback(1)
    other = RecurrentStream(log_z, 2 * c, batch_size=1)
    with pytest.raises(ArgumentError, match="another state space"):
        other.restore(stream.snapshot())
    with pytest.raises(ArgumentError, match="has shape"):
        RecurrentStream(log_z, c, batch_size=2, max_rollback=1).restore(stream.snapshot())
    with pytest.raises(ArgumentError, match="not the tensors"):
        RecurrentState.from_tensors({})
    for rows in (here(torch.tensor([1])), here(torch.tensor([0.0]))):
        with pytest.raises(ArgumentError, match="rows"):
            stream.reorder(rows)
    for options in ({"batch_size": 0}, {"max_length": 0}, {"dtype": torch.complex64}):
        with pytest.raises(ArgumentError):
            RecurrentStream(log_z, c, **{"batch_size": 1} | options)
    with pytest.raises(ArgumentError, match="complex128"):
        RecurrentStream(log_z.to(torch.complex64), c, batch_size=1)
    assert "3 states" in repr(stream)
    assert stream.nbytes < 10_000


def test_memory_does_not_grow_with_the_position() -> None:
    log_z, c = spaces(2, 3)
    stream = RecurrentStream(log_z, c, batch_size=1, max_rollback=4)
    stream.extend(randn(1, 2, 50))
    sizes = []
    for _, length in itertools.product(range(3), (1, 5, 50)):
        stream.extend(randn(1, 2, length))
        sizes.append(stream.nbytes)
    assert len(set(sizes)) == 1
