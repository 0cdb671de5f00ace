"""What engines write: fresh results and gradients of a Problem, and the parts of them that one document has."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from longwave import dtypes
from longwave.documents import Document, cover, documents
from longwave.operands import Operands, cut
from longwave.problem import Problem


class Gradients(NamedTuple):
    """Where the gradients of a call go, or None for those that nobody wants: to be written, but those of k and D, which are of
    the arithmetic type, to be added to (that of k unless its engine says that it writes it)."""

    u: Tensor | None = None
    k: Tensor | None = None
    D: Tensor | None = None
    pregate: Tensor | None = None
    postgate: Tensor | None = None
    history: Tensor | None = None

    def of(self, document: Document) -> Gradients:
        """Those that a document writes."""
        return self._replace(
            u=cut(self.u, document.inputs),
            pregate=cut(self.pregate, document.inputs),
            postgate=cut(self.postgate, document.outputs),
            history=self.history if document.problem.history else None,
        )


def empty(p: Problem, length: int, beside: Tensor) -> Tensor:
    """Uninitialised (B, H, length) in the result's layout, of the dtype of `beside`."""
    if p.channels_last:
        return beside.new_empty(p.batch, length, p.channels).transpose(1, 2)
    return beside.new_empty(p.batch, p.channels, length)


def fresh_gradients(
    p: Problem,
    needs: tuple[bool, ...],
    given: Operands,
    wide: torch.dtype,
    empty: Callable[[Problem, int, Tensor], Tensor] = empty,
    writes_k: bool = False,
) -> Gradients:
    """Those that are needed (u, k, D, pregate, postgate, history): zeros of the dtype `wide` for k and D, and zeros where no
    document has a sample. `writes_k`: that of k is to be written too, every tap of it, and not added to."""
    need_u, need_k, need_D, need_pregate, need_postgate, need_history = needs
    u, L = given.u, p.in_len - p.history
    grads = Gradients(
        u=empty(p, L, u) if need_u else None,
        k=(u.new_empty if writes_k else u.new_zeros)(p.filter_shape, dtype=wide) if need_k else None,
        D=u.new_zeros(p.channels, dtype=wide) if need_D and given.D is not None else None,
        pregate=empty(p, L, u) if need_pregate else None,
        postgate=empty(p, p.out_len, u) if need_postgate else None,
        history=empty(p, p.history, given.history) if need_history and given.history is not None else None,
    )
    found = documents(p)
    if not cover(p, found):
        for grad in (grads.u, grads.pregate, grads.postgate):
            if grad is not None:
                grad.zero_()
    if grads.history is not None and not any(document.problem.history for document in found):
        grads.history.zero_()
    return grads


def rounded(p: Problem, grads: Gradients, D: Tensor | None) -> list[Tensor]:
    """What a backend's `backward` gives back: every gradient in its argument's dtype, but those that nobody wants."""
    k = None if grads.k is None else dtypes.cast(grads.k, dtypes.named(p.filter_dtype))
    of_D = None if grads.D is None or D is None else dtypes.cast(grads.D, D.dtype)
    return [grad for grad in grads._replace(k=k, D=of_D) if grad is not None]
