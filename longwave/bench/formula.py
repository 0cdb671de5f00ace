"""The FFT formula for a `Case`, forward and by hand backward, over any array library that has an rfft.

The truth (PyTorch in float64) and the rivals (torch.fft, scipy.fft, ducc0) are this formula with different transforms,
so that they cannot differ in anything else. longwave's own arithmetic is not used here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from longwave.bench.cases import Case
from longwave.planner import next_fast_len

Array = Any  # a torch.Tensor or a numpy.ndarray: only operators and methods that both have are used


@dataclass(frozen=True)
class Transform:
    """`rfft(x, n, axis)` zero-pads to n first; `irfft(X, n, axis)` undoes it, n samples long."""

    rfft: Callable[[Array, int, int], Array]
    irfft: Callable[[Array, int, int], Array]


class Arrays(NamedTuple):
    """`u`, gates and `dy` in the case's layout; `k` `(H, K)`; `D` `(H,)`. What the case lacks is None."""

    u: Array
    k: Array
    D: Array | None
    pregate: Array | None
    postgate: Array | None
    dy: Array | None


def transform_length(case: Case) -> int:
    """Samples of the transform: the period for `circular`, else the next fast length that leaves no wrap-around.

    Returns an int. A causal result needs L+K-1 too: the last taps would fall on its first samples.
    """
    return case.L if case.mode == "circular" else next_fast_len(case.L + case.K - 1)


def forward(case: Case, x: Arrays, fft: Transform) -> Array:
    """y = postgate · (conv(v, k) + D·v) with v = pregate · u.

    Returns y in the case's layout, with the dtype the operands have.
    """
    return _forward(case, x, fft)[0]


def forward_backward(case: Case, x: Arrays, fft: Transform) -> dict[str, Array]:
    """`forward`, and the gradient of sum(y·dy) for every operand, the spectra of v and k transformed once.

    Returns a dict: `y`, `du`, `dk`, and, where the case has them, `dD`, `dpregate`, `dpostgate`.
    """
    y, v, z, V_f, K_f = _forward(case, x, fft)
    n, axis = transform_length(case), _axis(case)
    results = {"y": y}
    dz = x.dy
    if x.postgate is not None:
        results["dpostgate"] = x.dy * z
        dz = x.dy * x.postgate
    dZ_f = fft.rfft(dz, n, axis)
    dv = _cut(case, fft.irfft(dZ_f * K_f.conj(), n, axis), case.L)
    dK_f = (dZ_f * V_f.conj()).sum(0)
    results["dk"] = fft.irfft(dK_f.T if case.layout == "BLH" else dK_f, n, -1)[..., : case.K]
    if x.D is not None:
        dv = dv + _per_channel(case, x.D) * dz
        results["dD"] = (dz * v).sum((0, 1) if case.layout == "BLH" else (0, 2))
    if x.pregate is not None:
        results["dpregate"] = dv * x.u
        dv = dv * x.pregate
    return results | {"du": dv}


def _forward(case: Case, x: Arrays, fft: Transform) -> tuple[Array, Array, Array, Array, Array]:
    n, axis = transform_length(case), _axis(case)
    v = x.u if x.pregate is None else x.u * x.pregate
    V_f = fft.rfft(v, n, axis)
    K_f = fft.rfft(x.k, n, -1)
    if case.layout == "BLH":
        K_f = K_f.T
    z = _cut(case, fft.irfft(V_f * K_f, n, axis), case.out_length)
    if x.D is not None:
        z = z + _per_channel(case, x.D) * v
    y = z if x.postgate is None else z * x.postgate
    return y, v, z, V_f, K_f


def _axis(case: Case) -> int:
    return 1 if case.layout == "BLH" else -1


def _cut(case: Case, x: Array, length: int) -> Array:
    return x[:, :length] if case.layout == "BLH" else x[..., :length]


def _per_channel(case: Case, D: Array) -> Array:
    return D if case.layout == "BLH" else D[:, None]
