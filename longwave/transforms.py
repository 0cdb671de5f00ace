"""What surrounds a call: transforms that must see through it, tracing that must not, and autocast that must not matter."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd import forward_ad

from longwave.errors import UnsupportedError


def must_be_seen_through(*gradients: Tensor) -> bool:
    """Whether a functorch transform, a forward-mode level or a batched gradient is at work: an opaque operator would give
    those zeros, or an error of PyTorch's own."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    if torch.compiler.is_compiling():
        return False  # no batched gradient gets there
    return any(torch._C._functorch.is_legacy_batchedtensor(x) for x in gradients)


def is_traced() -> bool:
    """Whether a tracer or a dispatch mode watches: it is to see the registered operator, sizes perhaps symbolic."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def refuse_forward_mode(operator: str = "long_conv") -> None:
    """For the body of a registered operator, which forward mode passes by without an error and with zeros."""
    if forward_ad._current_level >= 0:
        raise UnsupportedError(
            f"a compiled or exported {operator} cannot be differentiated in forward mode; call longwave.{operator} itself "
            "under jvp or dual_level"
        )


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Arithmetic as the dtypes say, whatever autocast is on."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
