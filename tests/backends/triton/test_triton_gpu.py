"""What only a GPU can show: graphs, streams, memory, every case and random ones, lengths as they are used."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from arguments import Case, compare
from hypothesis import HealthCheck, given, settings
from random_cases import cases
from test_long_conv_values import CASES
from torch import Tensor

import longwave
from longwave.bench.tolerances import bound, relative_l2
from longwave.errors import UnsupportedError
from longwave.masks import FrequencyMask

F16, F32 = torch.float16, torch.float32
DTYPES = (F32, F16, torch.bfloat16)


@pytest.mark.gpu
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases(dtypes=DTYPES))
def test_random_calls(case: Case, device: str) -> None:
    compare(case, "triton", device)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [case for case in CASES if not case.dtype.is_complex], ids=str)
def test_value_and_gradients_of_every_case(case: Case, dtype: torch.dtype, device: str) -> None:
    compare(replace(case, dtype=dtype), "triton", device)


def _errors(L: int, K: int, dtype: torch.dtype, device: str) -> dict[str, tuple[float, float]]:
    """(error, bound) of y and of the gradients, against float64 transforms."""
    u = torch.randn(1, 1, L, device=device).to(dtype).requires_grad_()
    k = (torch.randn(1, K, device=device) / K**0.5).to(dtype).requires_grad_()
    dy = torch.randn(1, 1, L, device=device).to(dtype)
    y = longwave.long_conv(u, k, backend="triton")
    du, dk = torch.autograd.grad(y, (u, k), dy)
    n = 2 * L
    U, S, Y = (torch.fft.rfft(x.detach().double(), n) for x in (u, k, dy))
    spectra = {"y": (y, U * S, L), "du": (du, Y * S.conj(), L), "dk": (dk[None], Y * U.conj(), K)}
    found = {}
    for name, (got, spectrum, length) in spectra.items():
        truth = torch.fft.irfft(spectrum, n)[..., :length]
        found[name] = relative_l2(got.detach(), truth), bound(dtype, L, "triton", truth=truth)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("L", "K", "dtype"),
    [(4096, 4096, F16), (2048, 2048, F32), (16_384, 16_384, F16), (10_000, 10_000, F32), (20_000, 200, F16)],
)
def test_lengths_as_they_are_used(L: int, K: int, dtype: torch.dtype, device: str) -> None:
    errors = _errors(L, K, dtype, device)
    assert all(error <= allowed for error, allowed in errors.values()), errors


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("L", "K"), [(2**16, 2**16), (14_113, 14_113), (2**20, 2**20), (2**22, 500), (2**24, 2**24)])
def test_long_rows(L: int, K: int, dtype: torch.dtype, device: str) -> None:
    errors = _errors(L, K, dtype, device)
    assert all(error <= allowed for error, allowed in errors.values()), errors


# Transforms in registers, split ones, windows, and sums.
EVERY_REGIME = pytest.mark.parametrize(("L", "K"), [(500, 500), (4096, 4096), (10_000, 10_000), (100_000, 200), (4096, 7)])


def _step(u: Tensor, k: Tensor, dy: Tensor, mask: FrequencyMask | None = None) -> list[Tensor]:
    """A result and the gradients of a call with everything."""
    D, gate, leaves = torch.ones(u.shape[1], device=u.device), u.detach(), [x.detach().requires_grad_() for x in (u, k)]
    y = longwave.long_conv(*leaves, D, pregate=gate, postgate=gate, frequency_mask=mask, backend="triton")
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def _tensors(L: int, K: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    return [torch.randn(*shape, device=device).to(dtype) for shape in ((2, 4, L), (4, K), (2, 4, L))]


@pytest.mark.gpu
@EVERY_REGIME
@pytest.mark.parametrize("dtype", [F16, F32], ids=str)
def test_a_call_and_its_gradients_can_be_captured_in_a_graph(L: int, K: int, dtype: torch.dtype, device: str) -> None:
    tensors = _tensors(L, K, dtype, device)
    want = _step(*tensors)  # compiles, and makes the tables
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = _step(*tensors)
    for x in got:
        x.zero_()
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.gpu
@EVERY_REGIME
@pytest.mark.parametrize("dtype", [F16, F32], ids=str)
def test_a_call_runs_on_the_current_stream_and_does_not_wait(L: int, K: int, dtype: torch.dtype, device: str) -> None:
    tensors = _tensors(L, K, dtype, device)
    want = _step(*tensors)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.stream(stream):
            got = _step(*tensors)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.gpu
def test_a_call_behind_a_mask_gives_the_same_bits_again(device: str) -> None:
    tensors, mask = _tensors(3000, 3000, F32, device), FrequencyMask.lowpass(0.5, leaks_future=True)
    for a, b in zip(_step(*tensors, mask), _step(*tensors, mask), strict=True):
        assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one CUDA device")
def test_a_call_runs_where_its_tensors_are(device: str) -> None:
    tensors = _tensors(5000, 5000, F16, device)
    for a, b in zip(_step(*tensors), _step(*(x.to("cuda:1") for x in tensors)), strict=True):
        assert b.device == torch.device("cuda:1")
        assert torch.equal(a, b.to(a.device))


@pytest.mark.gpu
@pytest.mark.parametrize(("L", "K"), [(1000, 1000), (20_000, 20_000), (100_000, 100), (4096, 7)])
@pytest.mark.parametrize("dtype", [F16, F32], ids=str)
def test_a_plan_states_the_memory_of_a_call(L: int, K: int, dtype: torch.dtype, device: str) -> None:
    """As it was asked for: the allocator gives out multiples of 512 bytes."""
    u, k = torch.randn(4, 32, L, device=device, dtype=dtype), torch.randn(32, K, device=device)
    longwave.long_conv(u, k, backend="triton")
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["requested_bytes.all.current"]
    torch.cuda.reset_peak_memory_stats()
    longwave.long_conv(u, k, backend="triton")
    used = torch.cuda.memory_stats()["requested_bytes.all.peak"] - before
    assert used == longwave.plan(u.shape, k.shape, dtype=dtype, device="cuda", backend="triton").bytes


@pytest.mark.gpu
def test_what_the_backend_refuses_on_a_gpu_names_who_can(device: str) -> None:
    with pytest.raises(UnsupportedError, match="backend='plain' takes them"):
        longwave.long_conv(torch.randn(1, 1, 9, device=device).double(), torch.randn(1, 9, device=device), backend="triton")
