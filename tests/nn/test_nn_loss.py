"""chunked_cross_entropy is cross entropy, value and gradients, without the logits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn import chunked_cross_entropy


@pytest.mark.parametrize("chunk", [1, 7, 26, 100])
def test_chunked_loss_is_the_full_loss_with_its_gradients(chunk: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(2, 13, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 5, (2, 13))  # 4 does not count
    expected = F.cross_entropy((hidden @ weight.T).flatten(0, 1), targets.flatten(), ignore_index=4, reduction="sum")
    wanted = torch.autograd.grad(expected, (hidden, weight))
    total, count = chunked_cross_entropy(hidden, weight, targets, ignore_index=4, chunk=chunk)
    assert count.item() == (targets != 4).sum().item()
    assert 0 < count.item() < targets.numel()
    torch.testing.assert_close(total, expected, rtol=1e-13, atol=0)
    for gradient, want in zip(torch.autograd.grad(total, (hidden, weight)), wanted, strict=True):
        assert want.abs().max() > 0
        torch.testing.assert_close(gradient, want, rtol=1e-12, atol=1e-13)


def test_chunked_loss_of_ignored_targets_alone_is_zero() -> None:
    total, count = chunked_cross_entropy(torch.randn(3, 2), torch.randn(4, 2), torch.full((3,), 4), ignore_index=4)
    assert total.item() == 0.0
    assert count.item() == 0


def test_chunked_loss_is_float32_under_autocast() -> None:
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(9, 8), torch.randn(4, 8), torch.randint(0, 4, (9,))
    alone, _ = chunked_cross_entropy(hidden, weight, targets, ignore_index=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = chunked_cross_entropy(hidden, weight, targets, ignore_index=4)
    assert torch.equal(inside, alone)


def test_chunked_loss_never_holds_all_logits() -> None:
    """Nothing with V columns and more rows than a chunk is made, forward or backward."""
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.ndim == 2 and out.shape[1] == 4:
                sizes.append(out.shape[0])
            return out

    hidden = torch.randn(1, 64, 6, requires_grad=True)
    weight, targets = torch.randn(4, 6, requires_grad=True), torch.randint(0, 4, (1, 64))
    with Watch():
        chunked_cross_entropy(hidden, weight, targets, ignore_index=4, chunk=16)[0].backward()
    assert 16 in sizes  # the control: the watch sees logits
    assert max(sizes) == 16


@pytest.mark.parametrize(
    ("hidden", "weight", "targets", "chunk"),
    [((2, 3, 4), (4, 5), (2, 3), 1), ((2, 3, 4), (4, 4), (2, 2), 1), ((2, 3, 4), (4, 4), (2, 3), 0)],
)
def test_chunked_loss_refuses_shapes_that_do_not_fit(hidden, weight, targets, chunk) -> None:
    with pytest.raises(ArgumentError):
        chunked_cross_entropy(
            torch.zeros(hidden), torch.zeros(weight), torch.zeros(targets, dtype=torch.long), ignore_index=4, chunk=chunk
        )
