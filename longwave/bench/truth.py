"""The operands of a case, and what the exact answer is: the FFT formula in float64, itself checked by direct sums."""

from __future__ import annotations

import torch
from torch import Tensor

from longwave.bench.cases import BACKWARD, Case
from longwave.bench.formula import Arrays, Transform, forward, forward_backward, transform_length

TORCH_FFT = Transform(
    rfft=lambda x, n, axis: torch.fft.rfft(x, n, dim=axis),
    irfft=lambda x, n, axis: torch.fft.irfft(x, n, dim=axis),
)
# Of larger cases the results of some channels are compared.
MOST_CHECKED_SAMPLES = 2**25
# Channels go through in pieces of about this many samples, so that the truth of 2^24 samples needs no gigabytes.
_CHUNK_SAMPLES = 2**21
_SPOTS = 4


def make_arrays(case: Case, *, device: str = "cpu", seed: int = 0) -> Arrays:
    """Random operands of a case: N(0,1), the filter scaled by 1/sqrt(K) so that results are of size one in every dtype.

    Returns Arrays of contiguous tensors on `device`; `dy` is None for a forward case.
    """
    generator = torch.Generator(device).manual_seed(seed)  # what a large GPU holds would take a CPU minutes to draw
    dtype, parameters = getattr(torch, case.dtype), getattr(torch, case.parameter_dtype)

    def normal(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
        # Drawn in one dtype: float32 and bfloat16 cases then see the same numbers.
        draw = torch.float64 if dtype == torch.float64 else torch.float32
        return torch.randn(*shape, generator=generator, dtype=draw, device=device).mul_(scale).to(dtype)

    def signal(length: int) -> Tensor:
        shape = (case.B, length, case.H) if case.layout == "BLH" else (case.B, case.H, length)
        return normal(*shape, dtype=dtype)

    return Arrays(
        u=signal(case.L),
        k=normal(case.H, case.K, dtype=parameters, scale=case.K**-0.5),
        D=normal(case.H, dtype=parameters) if case.skip else None,
        pregate=signal(case.L) if case.gated else None,
        postgate=signal(case.out_length) if case.gated else None,
        dy=signal(case.out_length) if case.direction == BACKWARD else None,
    )


def exact(case: Case, operands: Arrays) -> dict[str, Tensor]:
    """The exact results of a case, on the CPU, in float64, computed from the operands as they are stored.

    Returns a dict: `y`, and for a forward+backward case the gradients too (see `formula.forward_backward`).
    Raises ArithmeticError when a direct sum at random places disagrees: then nothing may be measured.
    """
    wide = Arrays(*(None if x is None else x.detach().to("cpu", torch.float64) for x in operands))
    step = max(1, _CHUNK_SAMPLES // (case.B * transform_length(case)))
    pieces = [_channels(case, wide, start, min(start + step, case.H)) for start in range(0, case.H, step)]
    results = {name: torch.cat([piece[name] for piece in pieces], dim=_channel_axis(case, name)) for name in pieces[0]}
    _check_by_direct_sums(case, wide, results)
    return results


def checked_channels(case: Case) -> list[int] | None:
    """The channels whose results are compared with the truth, the first and the last among them; None for all."""
    if case.samples <= MOST_CHECKED_SAMPLES:
        return None
    count = min(case.H, max(2, MOST_CHECKED_SAMPLES // (case.B * case.L)))
    return sorted({i * (case.H - 1) // max(1, count - 1) for i in range(count)})


def of_channels(case: Case, tensors: dict[str, Tensor], channels: list[int] | None) -> dict[str, Tensor]:
    """The part of operands or results, by name, that belongs to these channels."""
    if channels is None:
        return tensors
    found = {}
    for name, x in tensors.items():
        axis = 0 if name.removeprefix("d") in ("k", "D") else _channel_axis(case, name)
        found[name] = x.detach().index_select(axis, torch.tensor(channels, device=x.device))
    return found


def _channel_axis(case: Case, name: str) -> int:
    if name in ("dk", "dD"):
        return 0
    return 2 if case.layout == "BLH" else 1


def _channels(case: Case, x: Arrays, start: int, stop: int) -> dict[str, Tensor]:
    def part(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.narrow(2 if case.layout == "BLH" else 1, start, stop - start)

    D = None if x.D is None else x.D[start:stop]
    piece = Arrays(part(x.u), x.k[start:stop], D, part(x.pregate), part(x.postgate), part(x.dy))
    if case.direction == BACKWARD:
        return forward_backward(case, piece, TORCH_FFT)
    return {"y": forward(case, piece, TORCH_FFT)}


def _check_by_direct_sums(case: Case, x: Arrays, results: dict[str, Tensor]) -> None:
    """Compares y, du and dk with sums over the definition at a few random places."""
    places = torch.Generator().manual_seed(case.L)

    def draw(below: int) -> int:
        return int(torch.randint(below, (1,), generator=places))

    def rows(tensor: Tensor) -> Tensor:  # as (B, H, time), whatever the layout
        return tensor.transpose(1, 2) if case.layout == "BLH" else tensor

    pre, post = (None if gate is None else rows(gate) for gate in (x.pregate, x.postgate))
    v = rows(x.u) if pre is None else rows(x.u) * pre
    dz = None
    if x.dy is not None:
        dz = rows(x.dy) if post is None else rows(x.dy) * post
    for _ in range(_SPOTS):
        b, h, t, s, tap = draw(case.B), draw(case.H), draw(case.out_length), draw(case.L), draw(case.K)
        skip = 0.0 if x.D is None else x.D[h]
        z = _sum(v[b, h], x.k[h], case, t) + (skip * v[b, h, t] if x.D is not None else 0.0)
        _agree("y", rows(results["y"])[b, h, t], z * (1.0 if post is None else post[b, h, t]), case)
        if dz is not None:
            # d/dv[s] meets dz[s+tap] with k[tap]; d/dk[tap] meets dz[t] with v[t-tap].
            dv = _lagged(x.k[h], dz[b, h], s, case) + skip * dz[b, h, s]
            _agree("du", rows(results["du"])[b, h, s], dv * (1.0 if pre is None else pre[b, h, s]), case)
            dk = torch.stack([_lagged(v[i, h], dz[i, h], tap, case) for i in range(case.B)]).sum()
            _agree("dk", results["dk"][h, tap], dk, case)


def _sum(v: Tensor, k: Tensor, case: Case, t: int) -> Tensor:
    """sum over s of k[s]·v[t-s], the indices wrapping only for `circular`."""
    s = torch.arange(case.K)
    at = t - s
    if case.mode == "circular":
        return (k * v[at % case.L]).sum()
    inside = (at >= 0) & (at < case.L)
    return (k[inside] * v[at[inside]]).sum()


def _lagged(weights: Tensor, dz: Tensor, lag: int, case: Case) -> Tensor:
    """sum over i of weights[i]·dz[i+lag], the indices wrapping only for `circular`."""
    at = torch.arange(len(weights)) + lag
    if case.mode == "circular":
        return (weights * dz[at % case.L]).sum()
    inside = at < len(dz)
    return (weights[inside] * dz[at[inside]]).sum()


def _agree(name: str, formula: Tensor, direct: Tensor, case: Case) -> None:
    # Rows are N(0,1) beside a filter of norm one, gates N(0,1): sums are of size one to sqrt(B·L) (dk); 1e-9 of that is
    # far above float64's rounding and far below anything a wrong formula does.
    if not abs(formula - direct) <= 1e-9 * max(1.0, abs(float(direct)), (case.B * case.L) ** 0.5):
        raise ArithmeticError(
            f"the float64 truth of {case.name} is wrong: {name} is {float(formula)} by FFT and {float(direct)} by a direct sum"
        )
