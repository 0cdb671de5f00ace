"""The whole contract of accuracy in 16 bits: every kind of input in every regime, with gradients, as a whole and by rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import longwave
from longwave.backends.triton import configurations, layouts, shapes
from longwave.bench.tolerances import bound, cancellation_bound, relative_l2, rounding_error
from longwave.operands import Operands
from longwave.ops.long_conv import Call, problem_of

F16 = torch.float16
# A regime, samples and taps in small transforms, and what makes them so. The gradients of `fused_l2` are the same kernels
# again, and the interpreter takes a minute for them: a GPU has them.
REGIMES = {
    "direct": (200, 12, ()),
    "fused": (250, 250, ("by_transforms",)),
    "windows": (1100, 60, ("by_transforms", "in_windows")),
    "split": (500, 500, ("by_transforms", "short_shapes")),
    "fused_l2": (300, 300, ("by_transforms", "short_shapes")),
}


def _plain(u: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return u, k


def _decaying(u: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    k = k * torch.exp(torch.arange(k.shape[-1]) * (-50.0 / k.shape[-1]))
    return u, k / k.norm(dim=-1, keepdim=True)


def _mean(u: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return u + 20, k


def _hundredth(u: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return u * 1e-2, k * 1e-2


def _thousandth(u: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return u * 1e-3, k * 1e-3


def _cancelled(u: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """A constant under filters without a mean, short beside it: a row keeps what it gives before it has met all taps."""
    taps = max(3, k.shape[-1] // 16)
    k[..., :taps] -= k[..., :taps].mean(dim=-1, keepdim=True)
    k[..., taps:] = 0
    return torch.full_like(u, 6e3), k


KINDS = (_plain, _decaying, _mean, _hundredth, _thousandth)


@pytest.fixture(params=REGIMES)
def regime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """(samples, taps) of a call that the regime takes."""
    L, K, fixtures = REGIMES[request.param]
    for name in fixtures:
        request.getfixturevalue(name)
    if request.param == "fused_l2":
        monkeypatch.setitem(configurations.PASSED, "fused_l2", "this test")
        for wide in (False, True):  # of at least a tile of points, as the shipped ones
            monkeypatch.setitem(shapes.INNER, wide, (shapes.Shape(48, 16),))
    u, k = torch.empty(1, 2, L, dtype=F16), torch.empty(2, K)
    p = problem_of(Call(0, L, False, False, None, "triton"), Operands(u, k), None)
    if request.param != "direct":
        assert layouts.layout(p).regime == request.param
    return L, K


def _errors(u: Tensor, k: Tensor, dy: Tensor, precision: str | None) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Of y and of the gradients of u and k: what was got, the truth, and |a|·|b| of what each row of it convolves."""
    leaves = [x.detach().requires_grad_() for x in (u, k)]
    y = longwave.long_conv(*leaves, precision=precision, backend="triton")
    in_l2 = "fused_l2" in configurations.PASSED and not u.is_cuda
    du, dk = (None, None) if in_l2 else torch.autograd.grad(y, leaves, dy)
    L, K = u.shape[-1], k.shape[-1]
    u, k, dy = (x.cpu().double() for x in (u, k, dy))
    n = L + max(L, K)
    U, S, Y = (torch.fft.rfft(x, n) for x in (u, k, dy))
    of_u, of_k, of_y = (x.norm(dim=-1) for x in (u, k, dy))
    found = {"y": (y, U * S, L, of_u * of_k)}
    if du is not None and dk is not None:
        found |= {"du": (du, Y * S.conj(), L, of_y * of_k), "dk": (dk[None], Y * U.conj(), K, of_y * of_u)}
    return {
        name: (got.detach().cpu().double(), torch.fft.irfft(spectrum, n)[..., :length], norms)
        for name, (got, spectrum, length, norms) in found.items()
    }


def _rows(x: Tensor) -> list[Tensor]:
    return list(x.flatten(0, -2))


def _tensors(L: int, K: int, kind: object, device: str) -> list[Tensor]:
    u, k = kind(torch.randn(1, 2, L), torch.randn(2, K) / K**0.5)  # type: ignore[operator]
    return [u.to(F16).to(device), k.to(device), torch.randn(1, 2, L).to(F16).to(device)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_input_is_within_the_contract(kind: object, regime: tuple[int, int], device: str) -> None:
    """Within 5 times what rounding costs, together and by rows; of rows that cancel, within the error of the operands."""
    L, K = regime
    for name, (got, truth, norms) in _errors(*_tensors(L, K, kind, device), None).items():
        # A float32 gradient of 16-bit products is held to what rounding such numbers costs on average.
        like = torch.randn_like(truth) if name == "dk" else truth
        assert relative_l2(got, truth) <= bound(F16, L, "triton", truth=like), name
        cancelled = cancellation_bound(truth, norms, F16, "triton")
        for row, exact, shape, beside in zip(_rows(got), _rows(truth), _rows(like), cancelled.flatten(), strict=True):
            allowed = bound(F16, L, "triton", truth=shape) * exact.norm()
            assert (row - exact).norm() <= max(allowed, beside), name


def test_what_a_filter_takes_out_leaves_the_error_of_its_operands(regime: tuple[int, int], device: str) -> None:
    """No multiple of rounding can hold here: the more cancels, the less is left beside it."""
    L, K = regime
    got, truth, norms = _errors(*_tensors(L, K, _cancelled, device), None)["y"]
    error, allowed = (got - truth).norm(dim=-1), cancellation_bound(truth, norms, F16, "triton")
    assert (allowed > 0).all()
    assert (error <= allowed + 1.5 * rounding_error(truth, F16) * truth.norm(dim=-1)).all()
    # The bound is not idle: a result of zeros is beyond it.
    assert (truth.norm(dim=-1) > 4 * allowed).all()


def test_high_precision_rounds_once(regime: tuple[int, int], device: str) -> None:
    L, K = regime
    for name, (got, truth, _) in _errors(*_tensors(L, K, _mean, device), "high").items():
        allowed = bound(torch.float32, L, "triton") if name == "dk" else bound(F16, L, "plain", truth=truth)
        assert relative_l2(got, truth) <= allowed, name
        assert math.isfinite(allowed)
