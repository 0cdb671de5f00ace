"""`short_conv` against the direct sum and against the layer it is equivalent to."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import jvp, vmap

import longwave
from longwave.bench.tolerances import bound, relative_l2
from longwave.errors import ArgumentError
from longwave.reference import short_conv_ref


@pytest.mark.parametrize("layout", ["BHL", "BLH"])
@pytest.mark.parametrize("K", [1, 2, 3, 4, 7, 64, 256])
@pytest.mark.parametrize("L", [1, 2, 129, 151])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_equals_the_direct_sum(layout: str, K: int, L: int, dtype: torch.dtype) -> None:
    B, H = 2, 3
    wide = torch.randn(B, H, L + 7).to(dtype)[..., 4 : 4 + L]  # cut out of a wider tensor
    x = wide if layout == "BHL" else wide.transpose(1, 2)
    state = torch.randn(B, H, K - 1).to(dtype)
    state = state if layout == "BHL" else state.transpose(1, 2)
    w, bias = torch.randn(H, K).double().to(torch.float64 if dtype == torch.float64 else torch.float32), torch.randn(H)
    for activation in (None, "silu", "gelu"):
        for kwargs in ({}, {"bias": bias}, {"bias": bias, "state": state}):
            y = longwave.short_conv(x, w, activation=activation, layout=layout, **kwargs)
            truth = short_conv_ref(x, w, activation=activation, layout=layout, **kwargs)
            assert y.dtype == dtype
            assert y.shape == x.shape
            assert y.is_contiguous()
            allowed = bound(dtype, L + K, truth=truth if dtype.itemsize == 2 else None)
            assert relative_l2(y, truth) <= allowed


def test_equals_the_padded_conv1d_of_pytorch() -> None:
    x, w, bias = torch.randn(2, 5, 40), torch.randn(5, 4), torch.randn(5)
    want = F.silu(F.conv1d(x, w[:, None], bias, padding=3, groups=5)[..., :40])
    torch.testing.assert_close(longwave.short_conv(x, w, bias, activation="silu"), want)


def test_is_causal_where_a_rival_sees_one_future_token() -> None:
    x, w = torch.randn(1, 2, 20), torch.randn(2, 3)
    changed = x.clone()
    changed[..., 10] += 1
    difference = (longwave.short_conv(changed, w) - longwave.short_conv(x, w)).abs()
    assert difference[..., :10].max() == 0
    assert difference[..., 10:13].min() > 0
    assert difference[..., 13:].max() == 0


def test_chunks_with_state_equal_the_whole() -> None:
    x, w = torch.randn(2, 3, 30, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    whole = longwave.short_conv(x, w)
    for at in (1, 5, 6, 29):
        state = F.pad(x[..., :at], (6, 0))[..., -6:]
        torch.testing.assert_close(longwave.short_conv(x[..., at:], w, state=state), whole[..., at:])


def test_derivatives_transforms_and_autocast() -> None:
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)

    def call(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return longwave.short_conv(x, w, bias, activation="gelu", state=state)

    inputs = (x, w, bias, state)
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)
    tangents = tuple(torch.randn_like(t) for t in inputs)
    primals = tuple(t.detach() for t in inputs)
    _, got = jvp(call, primals, tangents)
    _, want = jvp(lambda *a: short_conv_ref(*a[:3], activation="gelu", state=a[3]), primals, tangents)
    torch.testing.assert_close(got, want)
    assert want.abs().max() > 0.1
    torch.testing.assert_close(
        vmap(lambda x: longwave.short_conv(x, primals[1]))(primals[0]), longwave.short_conv(primals[0], primals[1])
    )
    single = longwave.short_conv(x.float(), w.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(longwave.short_conv(x.float(), w.float()), single)
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), call(*inputs))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"x": torch.ones(2, 3, 8, dtype=torch.int32)}, "x has dtype int32; with x of int32 it must be"),
        ({"x": torch.ones(2, 3, 8, dtype=torch.complex64)}, "x has dtype complex64;"),
        ({"x": "abc"}, "x is of type str; give a torch.Tensor"),
        ({"x": None}, "x is of type NoneType"),
        ({"w": None}, "w is of type NoneType"),
        ({"activation": ["silu"]}, "activation=.*is unknown"),
        ({"x": torch.ones(8)}, r"x has shape \(8,\)"),
        ({"x": torch.ones(2, 3, 0)}, r"x has shape \(2, 3, 0\)"),
        ({"w": torch.ones(4, 3)}, r"w has shape \(4, 3\); with 3 channels it must be \(3, K\) with K from 1 to 256"),
        ({"w": torch.ones(3, 0)}, r"w has shape \(3, 0\)"),
        ({"w": torch.ones(3, 257)}, "longer filters go to longwave.long_conv"),
        ({"w": torch.ones(3, 3, dtype=torch.float64)}, "w has dtype float64; with x of float32 it must be float32"),
        ({"w": torch.ones(3, 3, device="meta")}, "w is on meta and x on cpu"),
        ({"bias": torch.ones(2)}, r"bias has shape \(2,\); give one value a channel, shape \(3,\)"),
        ({"state": torch.ones(2, 3, 3)}, r"state has shape \(2, 3, 3\); .* shape \(2, 3, 2\)"),
        ({"state": torch.ones(2, 3, 2).half()}, "state has dtype float16"),
        ({"activation": "relu"}, "activation='relu' is unknown; choose one of None, 'silu', 'gelu'"),
        ({"layout": "BCL"}, "layout='BCL' is unknown"),
    ],
)
def test_a_wrong_call_gets_one_sentence(changed: dict, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        longwave.short_conv(**{"x": torch.randn(2, 3, 8), "w": torch.randn(3, 3), **changed})
