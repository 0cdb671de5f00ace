"""Offsets that 32 bits do not hold, in every kernel that reads signals or writes results."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import longwave

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
F16 = torch.float16
# Samples from one end of an axis to the other.
FAR = 2**31 + 2**10
# Transforms in registers, windows, split rows; sums. The interpreter's are short ones (`short_shapes`, `in_windows`).
ON_A_GPU = [(200, 200), (3000, 3000), (20_000, 100), (20_000, 20_000), (300, 5)]


@pytest.fixture
def _memory_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter works on the tensors themselves, and then copies each one's whole memory to itself."""
    if DEVICE == "cpu":
        from triton.runtime import interpreter

        monkeypatch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)


def _gradients(*signals: Tensor) -> list[Tensor]:
    """A result and the gradients of a call with everything; what is written has the strides of the result's gradient."""
    *leaves, dy = (x.detach().requires_grad_() for x in signals)
    u, pregate, postgate, k, D = leaves
    y = longwave.long_conv(u, k, D, pregate=pregate, postgate=postgate, backend="triton")
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def compare_far(L: int, K: int, axis: str) -> None:
    """Signals with more than 2^31 samples between the ends of an axis, in each other's gaps, have the bits of compact ones."""
    step = FAR // (L - 1)
    strides, apart = {"sample": ((FAR, L, 1), 2 * L), "channel": ((L, FAR, 1), 2 * L), "time": ((2, 1, step), 4)}[axis]
    # Memory that nobody touches costs nothing, where it is not filled.
    memory = torch.empty(0, dtype=F16, device=DEVICE)
    memory.set_(torch.UntypedStorage(2 * (FAR + 16 * L + 2 * step), device=DEVICE))

    def signal(place: int) -> Tensor:
        return memory.as_strided((2, 2, L), strides, place * apart).copy_(torch.randn(2, 2, L))

    far = [signal(place) for place in range(4)]
    filters = [torch.randn(2, K, device=DEVICE), torch.randn(2, device=DEVICE)]
    got, want = (_gradients(*signals[:3], *filters, signals[3]) for signals in (far, [x.contiguous() for x in far]))
    assert all(x.isfinite().all() for x in want)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.usefixtures("_memory_stays")
@pytest.mark.parametrize("axis", ["sample", "channel", "time"])
@pytest.mark.parametrize(("L", "K"), [(40, 40), (60, 5)] if DEVICE == "cpu" else ON_A_GPU)
def test_signals_beyond_32_bits(L: int, K: int, axis: str) -> None:
    compare_far(L, K, axis)


@pytest.mark.usefixtures("_memory_stays", "short_shapes")
@pytest.mark.parametrize("axis", ["sample", "time"])
def test_signals_beyond_32_bits_in_split_rows(axis: str) -> None:
    compare_far(500, 500, axis)


@pytest.mark.usefixtures("_memory_stays", "in_windows", "by_transforms")
@pytest.mark.parametrize("axis", ["sample", "channel", "time"])
def test_signals_beyond_32_bits_in_windows(axis: str) -> None:
    compare_far(1100, 30, axis)
