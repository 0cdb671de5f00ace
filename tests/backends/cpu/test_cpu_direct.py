"""The algorithm `direct` against direct sums in float64, made to serve everything it can, and where it is chosen."""

from __future__ import annotations

import pytest
import torch
from arguments import Case, compare
from test_cpu_values import TAKEN
from test_long_conv_values import EVERYTHING

import longwave
from longwave.backends.cpu import direct, fir_program
from longwave.bench.tolerances import relative_l2


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "MOST_TAPS", ((0, 10**6),))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("case", [case for case in TAKEN if case.mode != "circular"], ids=str)
def test_value_and_gradients_equal_the_direct_sum(case: Case) -> None:
    compare(case, "cpu")


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("mode", ["causal", "same", "full"])
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
def test_value_and_gradients_across_chunks_and_spans(dtype: torch.dtype, mode: str, layout: str) -> None:
    K_rev, P = (5, 1030) if mode == "causal" else (0, 0)
    L = fir_program.SPAN_SAMPLES + fir_program.CHUNK_SAMPLES + 3
    compare(Case(L=L, K=9, H=5, dtype=dtype, mode=mode, layout=layout, K_rev=K_rev, P=P, **EVERYTHING), "cpu")


@pytest.mark.parametrize("K", [1, 3, 16])
def test_a_row_has_the_same_bits_in_any_company(K: int) -> None:
    """Alone, in a batch, in either layout, through strides, and on any number of threads."""
    u, gate, k, D = torch.randn(3, 35, 2500), torch.randn(3, 35, 2500), torch.randn(35, K), torch.randn(35)

    def run(b: slice, h: slice, layout: str = "BHL") -> list[torch.Tensor]:
        turned = [t[b, h] if layout == "BHL" else t[b, h].transpose(1, 2).contiguous() for t in (u, gate)]
        leaves = [turned[0].requires_grad_(), k[h].clone().requires_grad_(), D[h].clone().requires_grad_()]
        y = longwave.long_conv(*leaves, pregate=turned[1], layout=layout, backend="cpu")
        du, dk, dD = torch.autograd.grad(y, leaves, turned[1])
        return [*(t if layout == "BHL" else t.transpose(1, 2) for t in (y.detach(), du)), dk, dD]

    assert longwave.plan(u.shape, k.shape, backend="cpu").algorithm.startswith("direct")
    every = slice(None)
    whole = run(every, every)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for layout in ("BHL", "BLH"):
                for a, b in zip(whole, run(every, every, layout), strict=True):
                    assert torch.equal(a, b)
    finally:
        torch.set_num_threads(before)
    y, du, *_ = run(slice(1, 2), slice(34, 35))
    assert torch.equal(y[0, 0], whole[0][1, 34])
    assert torch.equal(du[0, 0], whole[1][1, 34])
    assert not torch.equal(whole[0], whole[0].roll(1, -1))  # equal() can fail


def test_documents_do_not_reach_each_other_bitwise() -> None:
    u, k = torch.randn(1, 5, 90), torch.randn(5, 7)
    cut = torch.tensor([0, 30, 30, 31, 90], dtype=torch.int32)
    clean = longwave.long_conv(u, k, cu_seqlens=cut, backend="cpu")
    u[..., 29] = float("nan")
    dirty = longwave.long_conv(u, k, cu_seqlens=cut, backend="cpu")
    assert torch.equal(clean[..., 30:], dirty[..., 30:])
    assert torch.equal(clean[..., :29], dirty[..., :29])
    assert dirty[..., 29].isnan().all()
    alone = longwave.long_conv(u[..., 31:], k, backend="cpu")
    assert torch.equal(alone, dirty[..., 31:])


def test_the_choice_depends_on_lags_and_length_alone() -> None:
    def algorithm(B: int, H: int, L: int, K: int, **options: str) -> str:
        return longwave.plan((B, H, L), (H, K), backend="cpu", **options).algorithm.split(",")[0].split()[-1]

    for B, H in ((1, 1), (4, 768), (64, 2)):
        assert algorithm(B, H, 4096, 4) == "direct"
        assert algorithm(B, H, 4096, 64) == "windows"
        assert algorithm(B, H, 4096, 1000) == "fused"
        assert algorithm(B, H, 2**17, 2**17) == "six_step"
        assert algorithm(B, H, 2**17, 30) == "direct"
        assert algorithm(B, H, 2**17, 64) == "windows"
        assert algorithm(B, H, 4096, 4, mode="circular") == "fused"
    assert "N =" not in str(longwave.plan((1, 1, 100), (1, 3), backend="cpu"))


def test_it_agrees_with_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    u, k = torch.randn(2, 9, 3000), torch.randn(9, 20)
    found = []
    for most in (10**6, 0):
        monkeypatch.setattr(direct, "MOST_TAPS", ((0, most),))
        leaves = u.clone().requires_grad_(), k.clone().requires_grad_()
        y = longwave.long_conv(*leaves, mode="same", backend="cpu")
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), leaves)])
    for a, b in zip(*found, strict=True):
        assert not torch.equal(a, b)
        assert relative_l2(a, b) < 1e-6
