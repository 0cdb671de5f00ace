"""float16 from its smallest numbers to its largest: every row has a power of two of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import longwave
from longwave.backends.triton.blocks import headroom
from longwave.bench.tolerances import bound, relative_l2

F16, F32 = torch.float16, torch.float32
SCALES = (1e-6, 6e4)
pytestmark = pytest.mark.usefixtures("by_transforms")


@pytest.fixture(params=[40, 300, "split"], ids=str)
def L(request: pytest.FixtureRequest) -> int:
    """A length of every kind of tile, or one in splits of short transforms."""
    if request.param != "split":
        return int(request.param)
    request.getfixturevalue("short_shapes")
    return 300


def _signals(L: int, scale: float, device: str) -> Tensor:
    """(1, 3, L), the largest sample of each row `scale`: noise, one sample, a tone."""
    noise, tone = torch.randn(L), torch.cos(torch.arange(L) * 0.3)
    rows = torch.stack([noise, torch.zeros(L), tone])
    rows[1, L // 3] = 1.0
    return (rows / rows.abs().amax(dim=-1, keepdim=True) * scale)[None].to(device=device, dtype=F16)


def _errors(u: Tensor, k: Tensor, dy: Tensor, gate: Tensor | None = None) -> dict[str, list[float]]:
    """Of y and of the gradients of u and k, each row's error as part of its bound."""
    leaves = [x.detach().requires_grad_() for x in (u, k)]
    y = longwave.long_conv(*leaves, pregate=gate, backend="triton")
    du, dk = torch.autograd.grad(y, leaves, dy)
    L = u.shape[-1]
    g = 1.0 if gate is None else gate.double()
    v = u.double() * g
    V, S, Y = (torch.fft.rfft(x.double(), 2 * L) for x in (v, k, dy))
    found = {}
    for name, got, spectrum, times in (("y", y, V * S, 1.0), ("u", du, Y * S.conj(), g), ("k", dk[None], Y * V.conj(), 1.0)):
        truth = torch.fft.irfft(spectrum, 2 * L)[..., :L] * times
        # A float32 gradient of 16-bit products is held to what rounding such numbers costs on average.
        rows = (torch.randn_like(truth) if name == "k" else truth)[0].cpu()
        allowed = [bound(F16, L, "triton", truth=row) for row in rows]
        found[name] = [relative_l2(got[0, h].detach().cpu(), truth[0, h].cpu()) / most for h, most in enumerate(allowed)]
    return found


@pytest.mark.parametrize("scale", SCALES)
def test_rows_of_any_scale_are_as_exact_as_others(L: int, scale: float, device: str) -> None:
    """Taps and the result's gradient are such that results are of the order of 1."""
    u, dy = _signals(L, scale, device), _signals(L, min(1 / scale, 6e4), device).roll(1, 1)
    k = torch.randn(3, L, device=device) / scale / L**0.5
    found = _errors(u, k, dy)
    assert max(max(parts) for parts in found.values()) <= 1, found


def test_products_with_a_gate_may_be_larger_than_float16(L: int, device: str) -> None:
    u, dy = _signals(L, 6e4, device), _signals(L, 1.0, device).roll(1, 1)
    k = torch.randn(3, L, device=device) * 1e-10
    gate = torch.full_like(u, 3e4)
    found = _errors(u, k, dy, gate)
    assert max(max(parts) for parts in found.values()) <= 1, found


@pytest.mark.parametrize("dtype", [F16, F32], ids=str)
def test_a_row_beside_one_of_another_scale_has_its_bits(L: int, dtype: torch.dtype, device: str) -> None:
    u = torch.randn(2, 2, L, device=device).to(dtype)
    k, dy = torch.randn(2, L, device=device), torch.randn(2, 2, L, device=device).to(dtype)

    def run(u: Tensor, dy: Tensor) -> list[Tensor]:
        leaf = u.detach().requires_grad_()
        y = longwave.long_conv(leaf, k, backend="triton")
        return [y.detach(), *torch.autograd.grad(y, leaf, dy)]

    clean = run(u, dy)
    loud, quiet = (x.clone() for x in (u, dy))
    loud[0, 0], loud[1, 1], quiet[0, 0], quiet[1, 1] = 6e4, 1e-6, 1e-6, 6e4
    for a, b in zip(clean, run(loud, quiet), strict=True):
        assert torch.equal(a[0, 1], b[0, 1])
        assert torch.equal(a[1, 0], b[1, 0])
        assert not torch.equal(a[0, 0], b[0, 0])


def test_a_split_rows_norm_leaves_room_for_a_product() -> None:
    """However its energy is spread over spans, twice its power of two, times a number of the spectrum below 2√2, is finite."""
    for spans in (1, 2, 3, 1024, 2048, 2**20):
        assert 2 ** (headroom(spans) + 1) * spans**0.5 * 8**0.5 < torch.finfo(F16).max
    assert headroom(2048) >= 7  # the spectrum of one sample among 2^24 is then above what float16 loses
