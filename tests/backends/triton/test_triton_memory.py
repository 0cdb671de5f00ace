"""What a plan says of memory is what a call asks of the allocator, to the byte. No kernel runs: they allocate nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from allocated import peak_bytes
from torch import Tensor

import longwave
from longwave.backends.triton import blocks, configurations, plans

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
GATES = ("pregate", "postgate")


@pytest.fixture(autouse=True)
def _idle(grids: list[tuple[int, ...]]) -> Iterator[None]:
    plans.plan.cache_clear()
    yield
    plans.plan.cache_clear()


def _peak(call: Callable[[], object]) -> int:
    """The most that PyTorch's allocator had given out at a time, once all tables are there."""
    call()
    return peak_bytes(call)


def _held(
    B: int, H: int, L: int, K: int, dtype: torch.dtype, *, taps: torch.dtype = F32, groups: int = 0, per_sample: bool = False,
    beside: bool = False, P: int = 0, documents: tuple[int, ...] | None = None, **options: Any,
) -> None:  # fmt: skip
    def leaf(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape).to(dtype).requires_grad_()

    u, k = leaf(B, H, L), leaf(*((B,) if per_sample else ()), groups or H, K, dtype=taps)
    given, asked = dict(options), dict(options)
    if beside:
        out = L + K - 1 if options.get("mode") == "full" else L
        given |= {"D": leaf(H, dtype=F32), "pregate": leaf(B, H, L), "postgate": leaf(B, H, out)}
        asked |= dict.fromkeys(("D", *GATES), True)
    if P:
        given["history"], asked["history"] = leaf(B, H, P), P
    leaves = [u, k, *(x for x in given.values() if isinstance(x, Tensor))]
    if documents is not None:
        given["cu_seqlens"], asked["cu_seqlens"] = torch.tensor(documents, dtype=torch.int32), documents
    plan = longwave.plan(u.shape, k.shape, dtype=dtype, filter_dtype=taps, backend="triton", **asked)
    with torch.no_grad():
        assert _peak(lambda: longwave.long_conv(u, k, backend="triton", **given)) == plan.bytes
    y = longwave.long_conv(u, k, backend="triton", **given)
    dy = torch.randn_like(y)
    assert _peak(lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)) == plan.backward_bytes


pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU's allocator is watched"),
    # The profiler of a call is done in a moment, and says so.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.mark.parametrize("dtype", [F16, BF16, F32], ids=str)
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 4, 1000, 1000), {}),
        ((2, 4, 1000, 1000), {"beside": True, "P": 30}),
        ((2, 4, 20_000, 20_000), {}),
        ((2, 4, 20_000, 20_000), {"beside": True, "P": 300}),
        ((1, 2, 2**19, 2**19), {}),
        ((2, 4, 30_000, 200), {"beside": True}),
        ((2, 4, 3000, 3000), {"mode": "circular"}),
        ((2, 4, 3000, 700), {"mode": "same", "beside": True}),
        ((2, 4, 3000, 700), {"mode": "full", "beside": True, "groups": 2}),
        ((2, 4, 300, 300), {"per_sample": True, "beside": True}),
        ((2, 4, 20_000, 20_000), {"per_sample": True}),
        ((2, 4, 300, 7), {"beside": True}),
        ((1, 4, 3000, 700), {"beside": True, "documents": (0, 1000, 1000, 3000)}),
        ((18, 4, 3000, 700), {"groups": 1}),
    ],
    ids=str,
)
def test_a_plan_states_memory_to_the_byte(
    shape: tuple[int, int, int, int], options: dict[str, Any], dtype: torch.dtype
) -> None:
    _held(*shape, dtype, **options)


def test_of_taps_and_precision_too() -> None:
    _held(2, 4, 1000, 1000, F16, taps=F16, beside=True)
    _held(2, 4, 20_000, 20_000, F16, precision="high")


@pytest.mark.parametrize("most", [2**20, 2**21, 2**22])
@pytest.mark.parametrize("dtype", [F16, F32], ids=str)
def test_of_many_blocks_of_rows(most: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one block holds is gone when the next one begins."""
    monkeypatch.setattr(blocks, "SCRATCH_BYTES", most)
    _held(3, 4, 20_000, 20_000, dtype, beside=True)
    _held(40, 6, 10_000, 10_000, dtype, groups=2)
    _held(3, 4, 20_000, 20_000, dtype, per_sample=True)
    _held(40, 6, 1000, 1000, dtype, groups=2)
    _held(1, 2, 2**18, 2**18, dtype)


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_through_the_second_level_cache(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configurations.PASSED, "fused_l2", "this test")
    for batch in (1, 300):
        _held(batch, 4, 20_000, 20_000, dtype)
