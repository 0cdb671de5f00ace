"""What engines read: the tensors of a call, and the parts of them that one document has."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Operands(NamedTuple):
    """The tensors of a call: signals (B, H, ·) in any strides, filters (·, K) with their lags in order and D. In a backward of
    which only gradients of filters are wanted there need be no `k`."""

    u: Tensor
    k: Tensor | None = None
    D: Tensor | None = None
    pregate: Tensor | None = None
    postgate: Tensor | None = None
    history: Tensor | None = None

    @property
    def taps(self) -> Tensor:
        """`k`, where there must be one."""
        if self.k is None:
            raise RuntimeError("filters were asked for that were not given")
        return self.k

    def part(self, inputs: slice, outputs: slice, history: bool) -> Operands:
        """Those of some samples of u and of the result, with what precedes them or without."""
        return self._replace(
            u=cut(self.u, inputs),
            pregate=cut(self.pregate, inputs),
            postgate=cut(self.postgate, outputs),
            history=self.history if history else None,
        )


def cut(x: Any, samples: slice) -> Any:
    """Some samples of (…, length), and x itself where those are all."""
    if x is None or samples.stop - samples.start == x.shape[-1]:
        return x
    return x[..., samples]
