"""`short_conv` against the depthwise `F.conv1d` that it is equivalent to; right at every shape first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave import short_conv
from longwave.bench.timer import Spread, alternate, ratio, timer_for
from longwave.bench.tolerances import bound, relative_l2
from longwave.errors import DataError

SCHEMA, SUFFIX = "longwave short_conv 1", "short_conv"
TAPS, LAYOUTS = (3, 4, 7, 64, 256), ("BHL", "BLH")
B, H, L = 4, 768, 4096


def about() -> dict[str, Any]:
    """What every row has in common."""
    return {"B": B, "H": H, "L": L, "dtype": "float32", "bias": True}


@dataclass(frozen=True)
class ShortResult:
    """One shape: medians in milliseconds, the median over rounds of the rival's time over ours, and the largest error."""

    taps: int
    layout: str
    direction: str
    ms: float
    rival_ms: float
    times_faster: float
    error: float
    raw_seconds: dict[str, list[float]]

    @property
    def line(self) -> str:
        shape = f"K={self.taps:<4d}{self.layout}  {self.direction:<17s}"
        return f"{shape}{self.ms:9.2f} ms  F.conv1d {self.rival_ms:9.2f} ms  {self.times_faster:6.2f} ×  error {self.error:.1e}"


def measure(backends: Sequence[str], rounds: int, seconds: float) -> Iterator[ShortResult]:
    """Every shape in turn; `short_conv` chooses its backend itself.

    Raises DataError where a result is outside of its bound: nothing wrong is timed.
    """
    for K in TAPS:
        for layout in LAYOUTS:
            x = torch.randn(B, H, L) if layout == "BHL" else torch.randn(B, L, H)
            leaves = [x.requires_grad_(), torch.randn(H, K, requires_grad=True), torch.randn(H, requires_grad=True)]
            dy = torch.randn_like(x)

            def ours(x: Tensor, w: Tensor, bias: Tensor, layout: str = layout) -> Tensor:
                return short_conv(x, w, bias, layout=layout)

            def theirs(x: Tensor, w: Tensor, bias: Tensor, layout: str = layout) -> Tensor:
                x = x if layout == "BHL" else x.transpose(1, 2)
                y = F.conv1d(x, w[:, None], bias, padding=w.shape[1] - 1, groups=w.shape[0])[..., : x.shape[-1]]
                return y if layout == "BHL" else y.transpose(1, 2)

            def forward(operator: Callable[..., Tensor], leaves: list[Tensor] = leaves) -> list[Tensor]:
                with torch.no_grad():
                    return [operator(*leaves)]

            def both(operator: Callable[..., Tensor], leaves: list[Tensor] = leaves, dy: Tensor = dy) -> list[Tensor]:
                return list(torch.autograd.grad(operator(*leaves), leaves, dy))

            for direction, run in (("forward", forward), ("forward+backward", both)):
                exact = run(
                    theirs, [leaf.detach().double().requires_grad_() for leaf in leaves], *([dy.double()] * (run is both))
                )
                error = max(relative_l2(a, b) for a, b in zip(run(ours), exact, strict=True))
                if not error <= bound(torch.float32, L):
                    raise DataError(f"short_conv is wrong by {error:.1e} at K={K}, {layout}, {direction}: nothing is measured")
                times = alternate(
                    {"ours": lambda run=run: run(ours), "rival": lambda run=run: run(theirs)},  # type: ignore[misc]
                    timer_for("cpu"), rounds=rounds, seconds=seconds,
                )  # fmt: skip
                yield ShortResult(
                    taps=K,
                    layout=layout,
                    direction=direction,
                    ms=1e3 * Spread.of(times["ours"]).median,
                    rival_ms=1e3 * Spread.of(times["rival"]).median,
                    times_faster=ratio(times["ours"], times["rival"]),
                    error=error,
                    raw_seconds=times,
                )
