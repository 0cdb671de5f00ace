"""What the ranks of a mesh must have in common, found by one small exchange before anything large moves.

Every rank says what it was called with, or why it cannot go on. All of them then read the same statements: either every rank
goes on, or every rank raises the same sentence, and none is left waiting.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longwave import dtypes, errors
from longwave.distributed.mesh import Ranks, told
from longwave.errors import LongwaveError

# What a statement may take, in bytes; all have this length, so that one exchange of a known size does.
STATEMENT_BYTES = 4096
_LONGEST_SENTENCE = 1500


class Statement(NamedTuple):
    """What a rank was called with: what may differ between ranks, and, by name, what may not."""

    own: dict[str, Any]
    common: dict[str, str]


def agree(ranks: Ranks, operator: str, state: Callable[[], Statement]) -> list[dict[str, Any]]:
    """Every rank's `own`, in order of ranks, where what they have in `common` is equal.

    Raises, on every rank, what `state` raised on one, or ArgumentError where they differ.
    """
    try:
        said: dict[str, Any] = {"own": (mine := state()).own, "common": mine.common}
    except Exception as error:  # whatever it is: the other ranks are waiting to hear of it
        sentence = " ".join(str(error).split())[:_LONGEST_SENTENCE]
        said = {"error": type(error).__name__, "sentence": sentence or type(error).__name__}
    statements = _exchange(ranks, json.dumps(said))
    with everywhere():
        for rank, statement in enumerate(statements):
            if "error" in statement:
                kind = getattr(errors, statement["error"], errors.ArgumentError)
                raise kind(f"{operator} on rank {rank} of {ranks.size}: {statement['sentence']}")
        for rank, statement in enumerate(statements):
            _compare(operator, statements[0]["common"], statement["common"], rank, ranks.size)
    return [statement["own"] for statement in statements]


def _compare(operator: str, first: dict[str, str], other: dict[str, str], rank: int, size: int) -> None:
    for name, value in other.items():
        if value != first.get(name):
            raise errors.ArgumentError(
                f"{operator} was called with {name} {first.get(name)} on rank 0 and {value} on rank {rank} of {size}; "
                "give every rank the same"
            )


def described(x: Tensor | None, time: int | None = None) -> str:
    """A tensor as ranks compare it; `time`: the dimension that may differ."""
    if x is None:
        return "None"
    shape = [str(n) for n in x.shape]
    if time is not None:
        shape[time] = "·"
    needs = ", which requires a gradient" if x.requires_grad and torch.is_grad_enabled() else ""
    return f"({', '.join(shape)}) {dtypes.name(x.dtype)} on {x.device.type}{needs}"


def documents(cu_seqlens: Tensor | None) -> str:
    """Boundaries as ranks compare them."""
    if cu_seqlens is None:
        return "None"
    bounds = cu_seqlens.tolist()
    return f"of {len(bounds) - 1:,} documents ({digest(str(bounds))})"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stand_in(x: Any, layout: str) -> Any:
    """What is checked in the place of a signal, without its samples: a span may be empty."""
    return _of_length(x, -2 if layout == "BLH" else -1, lambda length: max(length, 1))


def few_taps(k: Any) -> Any:
    """What is checked in the place of a filter, whose taps stand last in every layout and may be many."""
    return _of_length(k, -1, lambda length: min(length, 1))


def _of_length(x: Any, dimension: int, length: Callable[[int], int]) -> Any:
    if not isinstance(x, Tensor) or x.layout is not torch.strided or x.is_nested or x.dim() < 2:
        return x
    shape = list(x.shape)
    shape[dimension] = length(shape[dimension])
    return torch.empty((), dtype=x.dtype, device=x.device).expand(shape)


def _exchange(ranks: Ranks, text: str) -> list[dict[str, Any]]:
    content = text.encode()
    if len(content) > STATEMENT_BYTES:
        content = json.dumps({"error": "ArgumentError", "sentence": "its arguments take too long to describe"}).encode()
    mine = torch.frombuffer(bytearray(content.ljust(STATEMENT_BYTES)), dtype=torch.uint8).to(ranks.device)
    functional = torch.ops._c10d_functional
    with told("comparing what the ranks were called with"):
        sent = functional.all_gather_into_tensor(mine, ranks.size, ranks.group)
        received = functional.wait_tensor(sent).cpu().view(ranks.size, STATEMENT_BYTES)
    return [json.loads(bytes(row.tolist())) for row in received]


@contextmanager
def everywhere() -> Iterator[None]:
    """Around what every rank finds out alike: errors say so."""
    try:
        yield
    except LongwaveError as error:
        error.everywhere = True
        raise
