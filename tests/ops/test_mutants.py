"""The bounds can fail: broken operators, each wrong in one classical way, are all outside them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from arguments import Case, compare, long_conv_ref
from devices import randn
from torch import Tensor

import longwave
from longwave import long_conv
from longwave.bench.tolerances import bound, pointwise_bound, relative_l2


def _cyclic(u: Tensor, k: Tensor, n: int, conjugate: bool = False) -> Tensor:
    S = torch.fft.rfft(k, n)
    return torch.fft.irfft(torch.fft.rfft(u, n) * (S.conj() if conjugate else S), n)[..., : u.shape[-1]]


def _zeroed_first_block(u: Tensor, k: Tensor) -> Tensor:
    y = longwave.long_conv(u, k)
    y[..., :16] = 0
    return y


def _dropped_tap(u: Tensor, k: Tensor) -> Tensor:
    k = k.clone()
    k[..., k.shape[-1] // 2] = 0
    return longwave.long_conv(u, k)


MUTANTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "zeros": lambda u, k: torch.zeros_like(u),
    "one-sample shift": lambda u, k: longwave.long_conv(u, k).roll(1, -1),
    "dropped tap": _dropped_tap,
    "last tap dropped": lambda u, k: longwave.long_conv(u, k[..., :-1].contiguous()),
    "wrap-around left in": lambda u, k: _cyclic(u, k, u.shape[-1]),
    "one sample of wrap-around": lambda u, k: _cyclic(u, k, 2 * u.shape[-1] - 2),
    "zeroed first block": _zeroed_first_block,
    "forgotten conjugate": lambda u, k: _cyclic(u, k, 2 * u.shape[-1], conjugate=True),
    "another channel's filter": lambda u, k: longwave.long_conv(u, k.roll(1, 0)),
    "rounded to bfloat16 inside": lambda u, k: longwave.long_conv(u.bfloat16().to(u.dtype), k),
}


@pytest.mark.parametrize(
    ("dtype", "L"),
    [
        *[(dtype, L) for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16) for L in (64, 701)],
        (torch.float32, 4096),
    ],
    ids=str,
)
def test_every_broken_operator_is_outside_the_bound(dtype: torch.dtype, L: int) -> None:
    u, k = randn(1, 4, L).to(dtype), randn(4, L) * L**-0.5
    k = k.double() if dtype == torch.float64 else k
    truth = long_conv_ref(u, k)
    norms = (u.double().norm(dim=-1) * k.double().norm(dim=-1)).unsqueeze(-1)

    def excess(got: Tensor) -> float:
        """By what factor the contract is broken, in the mean or at the worst sample; at most 1 keeps it."""
        in_the_mean = relative_l2(got, truth) / bound(dtype, 2 * L, "plain", truth=truth if dtype.itemsize == 2 else None)
        at_worst = ((got.double() - truth).abs() / pointwise_bound(truth, norms, dtype)).max().item()
        return max(in_the_mean, at_worst)

    assert excess(longwave.long_conv(u, k, backend="plain")) <= 1
    for name, mutant in MUTANTS.items():
        if dtype.itemsize == 2 and name == "rounded to bfloat16 inside":
            continue  # u is 16-bit already
        wrong = mutant(u.float(), k).to(dtype) if dtype.itemsize == 2 else mutant(u, k)
        assert excess(wrong) > 1.4, f"{name}: passes the contract with {excess(wrong):.2f} of what is allowed"


MISTAKES: dict[str, Callable[..., Tensor]] = {
    "zeros": lambda u, k, **options: 0 * long_conv(u, k, **options),
    "D dropped": lambda u, k, D, **options: long_conv(u, k, 0 * D, **options),
    "a shifted result": lambda u, k, **options: long_conv(u, k, **options).roll(1, -1).contiguous(),
    "a forgotten gradient": lambda u, k, **options: long_conv(u.detach() + 0 * u, k, **options),
    "a gradient a little too large": lambda u, k, **options: long_conv(u, k + 1e-5 * (k - k.detach()), **options),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("L", [2, 100])
def test_every_mistake_is_seen_in_a_case(mistake: str, L: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(L=L, K=L, D=True, pregate=True, strides="any", dtype=torch.float32)
    compare(case, "plain")
    monkeypatch.setattr(longwave, "long_conv", MISTAKES[mistake])
    with pytest.raises(AssertionError, match=r"above .* in Case\("):
        compare(case, "plain")
