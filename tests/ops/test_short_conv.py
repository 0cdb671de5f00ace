"""`short_conv` against the direct sum and against the layer it is equivalent to."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import devices
import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from arguments import short_conv_ref
from devices import here, ones, randn
from torch.func import jvp, vmap

import longwave
from longwave import backends
from longwave.backends import plain
from longwave.bench.tolerances import bound, relative_l2
from longwave.errors import ArgumentError
from longwave.problem import ShortCall

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
ACTIVATIONS = (None, "silu", "gelu")


def engine() -> str:
    return backends.for_short_conv(devices.DEVICE).__name__.rpartition(".")[2]


def needs_an_engine() -> None:
    if engine() == "plain":
        pytest.skip("a promise of engines, and PyTorch's own operators run on this device")


@pytest.mark.parametrize("layout", ["BHL", "BLH"])
@pytest.mark.parametrize("K", [1, 2, 3, 4, 7, 64, 256])
@pytest.mark.parametrize("L", [1, 2, 129, 151])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_equals_the_direct_sum(layout: str, K: int, L: int, dtype: torch.dtype) -> None:
    B, H = 2, 3
    wide = randn(B, H, L + 7).to(dtype)[..., 4 : 4 + L]  # cut out of a wider tensor
    x = wide if layout == "BHL" else wide.transpose(1, 2)
    state = randn(B, H, K - 1).to(dtype)
    state = state if layout == "BHL" else state.transpose(1, 2)
    w, bias = randn(H, K).double().to(torch.float64 if dtype == torch.float64 else torch.float32), randn(H)
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
    x, w, bias = randn(2, 5, 40), randn(5, 4), randn(5)
    want = F.silu(F.conv1d(x, w[:, None], bias, padding=3, groups=5)[..., :40])
    torch.testing.assert_close(longwave.short_conv(x, w, bias, activation="silu"), want)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batched", [True, False])
def test_one_channel_is_never_given_to_what_rounds_it_to_tf32(
    activation: str | None, batched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, whose cuDNN would take a single group: PyTorch is asked for two, of which one is looked at."""
    groups: list[int] = []
    conv1d, backward = F.conv1d, torch.ops.aten.convolution_backward
    monkeypatch.setattr(backends, "for_short_conv", lambda device: plain)
    monkeypatch.setattr(plain.short, "_rounds", lambda signal, taps: taps.shape[0] == 1)
    monkeypatch.setattr(plain.short.F, "conv1d", lambda *x, groups=1: (groups_of(groups), conv1d(*x, groups=groups))[1])
    monkeypatch.setattr(torch.ops.aten, "convolution_backward", lambda *x: (groups_of(x[9]), backward(*x))[1])

    def groups_of(number: int) -> None:
        groups.append(number)

    x = randn(*((2,) if batched else ()), 1, 20, dtype=torch.float64, requires_grad=True)
    w, bias = (randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((1, 4), (1,)))
    state = randn(*((2,) if batched else ()), 1, 3, dtype=torch.float64, requires_grad=True)
    y = longwave.short_conv(x, w, bias, activation=activation, state=state)
    truth = short_conv_ref(x, w, bias, activation=activation, state=state)
    torch.testing.assert_close(y, truth)
    dy, leaves = torch.randn_like(y), (x, w, bias, state)
    call = ShortCall(*leaves, activation, channels_last=False)
    want = torch.autograd.grad(truth, leaves, dy)
    for got in (torch.autograd.grad(y, leaves, dy), plain.short_backward((True,) * 4, dy, call)):
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)
    (dx,) = plain.short_backward((True, False, False, False), dy, call)
    torch.testing.assert_close(dx, want[0])
    assert groups.count(2) == len(groups) >= 3


def test_is_causal_where_a_rival_sees_one_future_token() -> None:
    x, w = randn(1, 2, 20), randn(2, 3)
    changed = x.clone()
    changed[..., 10] += 1
    difference = (longwave.short_conv(changed, w) - longwave.short_conv(x, w)).abs()
    assert difference[..., :10].max() == 0
    assert difference[..., 10:13].min() > 0
    assert difference[..., 13:].max() == 0


def test_chunks_with_state_equal_the_whole() -> None:
    x, w = randn(2, 3, 30, dtype=torch.float64), randn(3, 7, dtype=torch.float64)
    whole = longwave.short_conv(x, w)
    for at in (1, 5, 6, 29):
        state = F.pad(x[..., :at], (6, 0))[..., -6:]
        torch.testing.assert_close(longwave.short_conv(x[..., at:], w, state=state), whole[..., at:])


PACKED = (0, 0, 1, 1, 3, 12, 13, 30, 30)


@pytest.mark.parametrize("layout", ["BHL", "BLH"])
@pytest.mark.parametrize("K", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("batched", [True, False])
def test_packed_documents_are_convolved_apart(layout: str, K: int, batched: bool) -> None:
    """Empty ones, ones shorter than the filter, and a state before the first: values, gradients, and the bits of each alone."""
    needs_an_engine()
    cu_seqlens = torch.tensor(PACKED, dtype=torch.int32)
    turned = (lambda t: t) if layout == "BHL" else (lambda t: t.transpose(-2, -1).contiguous())
    lead = (1,) if batched else ()
    inputs = {"x": turned(randn(*lead, 5, 30)), "w": randn(5, K), "bias": randn(5)}
    inputs["state"] = turned(randn(*lead, 5, K - 1))
    leaves = {name: t.clone().requires_grad_() for name, t in inputs.items()}
    exact = {name: t.double().requires_grad_() for name, t in inputs.items()}
    y = longwave.short_conv(**leaves, activation="silu", layout=layout, cu_seqlens=cu_seqlens)
    truth = short_conv_ref(**exact, activation="silu", layout=layout, cu_seqlens=cu_seqlens)
    assert y.is_contiguous()
    assert relative_l2(y, truth) <= bound(torch.float32, 30, engine())
    dy = torch.randn_like(y)
    got = torch.autograd.grad(y, list(leaves.values()), dy)
    want = torch.autograd.grad(truth, list(exact.values()), dy.double(), materialize_grads=True)
    for name, a, b in zip(inputs, got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5, msg=name)
    time = -1 if layout == "BHL" else -2
    for start, end in itertools.pairwise(PACKED[2:]):
        if start < end:
            alone = longwave.short_conv(
                inputs["x"].narrow(time, start, end - start), inputs["w"], inputs["bias"], activation="silu", layout=layout
            )
            assert torch.equal(y.narrow(time, start, end - start), alone)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_packed_documents_differentiate_and_compile(activation: str | None) -> None:
    x = randn(1, 2, 9, dtype=torch.float64, requires_grad=True)
    w = randn(2, 4, dtype=torch.float64, requires_grad=True)
    cu_seqlens = torch.tensor([0, 2, 2, 7, 9], dtype=torch.int32)

    def call(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return longwave.short_conv(x, w, activation=activation, cu_seqlens=cu_seqlens)

    assert torch.autograd.gradcheck(call, (x, w), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, w), fast_mode=True)
    primals, tangents = (x.detach(), w.detach()), (torch.randn_like(x), torch.randn_like(w))
    _, got = jvp(call, primals, tangents)
    _, want = jvp(lambda x, w: short_conv_ref(x, w, activation=activation, cu_seqlens=cu_seqlens), primals, tangents)
    torch.testing.assert_close(got, want)
    assert want.abs().max() > 0.1
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(call, fullgraph=True, backend="aot_eager")(x, w), call(x, w))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
@pytest.mark.parametrize("way", ["engine", "plain", "traced", "recorded", "vmap"])
def test_a_bad_document_reaches_no_other(
    way: str, layout: str, activation: str | None, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its values nor its gradients, of those before it (shorter than the filter) and behind it."""
    if way == "plain":
        monkeypatch.setattr(backends, "for_short_conv", lambda device: plain)
    bounds, turned = [0, 6, 7, 16, 17, 18, 30], (lambda t: t) if layout == "BHL" else (lambda t: t.transpose(1, 2))
    clean, w, dy = (t.double() for t in (randn(1, 3, 30), randn(3, 5), randn(1, 3, 30)))
    dirty = clean.clone()
    dirty[..., 7:16] = bad

    def call(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
        return turned(longwave.short_conv(turned(x), w, activation=activation, layout=layout, cu_seqlens=cu_seqlens))

    def values(x: torch.Tensor) -> list[torch.Tensor]:
        x = x.clone().requires_grad_()
        torch._dynamo.reset()
        run = torch.compile(call, fullgraph=True, backend="aot_eager") if way == "traced" else call
        y = vmap(run, in_dims=(0, None))(x[None], w)[0] if way == "vmap" else run(x, w)
        (dx,) = torch.autograd.grad(y, x, dy, create_graph=way == "recorded")
        found = [y.detach(), dx.detach()]
        if way == "recorded" and activation is not None:
            found.append(torch.autograd.grad(dx, x, dy)[0])
        return found

    others = here(torch.ones(30, dtype=torch.bool))
    others[7:16] = False
    got, want = values(dirty), values(clean)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a[..., others], b[..., others], rtol=0, atol=1e-12 if way == "recorded" else 0)
    for a, b in zip(got[: 1 if activation is None else 3], want, strict=False):
        assert not torch.equal(a[..., ~others], b[..., ~others])  # the control: it is seen where it stands


class _Documents(torch.nn.Module):
    """Both convolutions of packed documents, with something of a compiler's own around them."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.k = (torch.nn.Parameter(randn(3, n)) for n in (4, 20))

    def forward(self, x: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        x = longwave.short_conv(x.sin(), self.w, activation="silu", cu_seqlens=cu_seqlens)
        return longwave.long_conv(x * 2, self.k, cu_seqlens=cu_seqlens).cos()


def test_inductor_compiles_packed_documents() -> None:
    """Boundaries are values: another row of as many documents is no other program."""
    torch._dynamo.reset()
    module = _Documents()
    counted = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=counted)
    for bounds in ([0, 7, 8, 20], [0, 1, 19, 20], [0, 5, 5, 30], [0, 2, 3, 4, 40]):
        x = randn(1, 3, bounds[-1], requires_grad=True)
        cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
        y, z = compiled(x, cu_seqlens), module(x, cu_seqlens)
        torch.testing.assert_close(y, z)
        inputs = [x, *module.parameters()]
        for a, b in zip(torch.autograd.grad(y.sum(), inputs), torch.autograd.grad(z.sum(), inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert counted.frame_count == 1


def test_packed_documents_export_with_any_length_and_number() -> None:
    module = _Documents().requires_grad_(False)
    L, S = torch.export.Dim("L", min=2), torch.export.Dim("S", min=4)
    sample = (randn(1, 3, 20), torch.tensor([0, 7, 9, 12, 20], dtype=torch.int32))
    exported = torch.export.export(module, sample, dynamic_shapes={"x": {2: L}, "cu_seqlens": {0: S}})
    for bounds in ([0, 5, 5, 30], [0, 2, 3, 4, 5, 6, 40]):
        given = randn(1, 3, bounds[-1]), torch.tensor(bounds, dtype=torch.int32)
        assert torch.equal(exported.module()(*given), module(*given))


@pytest.mark.parametrize("bounds", [[0, 7, 21], [0, 9, 5, 20], [1, 7, 20], [0, 7, 19], [0, -3, 7, 20], [0, 300, 20]], ids=str)
def test_boundaries_are_checked_in_a_traced_call_too(bounds: list[int]) -> None:
    torch._dynamo.reset()
    w = randn(3, 4)
    compiled = torch.compile(
        lambda x, cu_seqlens: longwave.short_conv(x, w, cu_seqlens=cu_seqlens), fullgraph=True, backend="aot_eager"
    )
    x, right = randn(1, 3, 20), torch.tensor([0, *range(5, 3 + len(bounds)), 20], dtype=torch.int32)
    assert torch.equal(compiled(x, right), longwave.short_conv(x, w, cu_seqlens=right))
    with pytest.raises(ArgumentError, match=r"cu_seqlens (runs|falls) from"):
        compiled(x, torch.tensor(bounds, dtype=torch.int32))


@pytest.mark.parametrize("layout", ["BHL", "BLH"])
def test_packed_documents_compile_where_a_default_device_is_set(layout: str) -> None:
    torch._dynamo.reset()
    x, w, cu_seqlens = randn(1, 9, 9), randn(9, 4), torch.tensor([0, 2, 2, 7, 9], dtype=torch.int32)

    def call(x: torch.Tensor) -> torch.Tensor:
        return longwave.short_conv(x, w, layout=layout, cu_seqlens=cu_seqlens)

    with torch.device("cpu"):
        assert torch.equal(torch.compile(call, fullgraph=True, backend="aot_eager")(x), call(x))


@pytest.mark.parametrize(
    ("shape", "bounds", "words"),
    [
        ((2, 3, 8), [0, 8], "x has a batch of 2"),
        ((1, 3, 8), [0, 9], "runs from 0 to 9"),
        ((3, 8), [0, 5, 3, 8], "falls from 5 to 3"),
    ],
)
def test_packed_documents_that_do_not_fit_are_refused(shape: tuple[int, ...], bounds: list[int], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        longwave.short_conv(randn(shape), randn(3, 2), cu_seqlens=torch.tensor(bounds, dtype=torch.int32))


def test_derivatives_transforms_and_autocast() -> None:
    x = randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    w = randn(3, 4, dtype=torch.float64, requires_grad=True)
    bias = randn(3, dtype=torch.float64, requires_grad=True)
    state = randn(2, 3, 3, dtype=torch.float64, requires_grad=True)

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
    with torch.autocast(devices.DEVICE, dtype=torch.bfloat16):
        assert torch.equal(longwave.short_conv(x.float(), w.float()), single)
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), call(*inputs))


def _inputs(H: int, K: int, L: int, dtype: torch.dtype, layout: str, *, state: bool) -> dict[str, torch.Tensor]:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    turned = (lambda t: t) if layout == "BHL" else (lambda t: t.transpose(1, 2).contiguous())
    inputs = {"x": turned(randn(2, H, L).to(dtype)), "w": randn(H, K, dtype=wide) * K**-0.5}
    inputs["bias"] = randn(H, dtype=wide)
    if state:
        inputs["state"] = turned(randn(2, H, K - 1).to(dtype))
    return inputs


def compare(L: int, H: int, K: int, layout: str, dtype: torch.dtype, activation: str | None) -> None:
    """The result and every gradient, within the contract of the backend that runs here."""
    inputs = _inputs(H, K, L, dtype, layout, state=activation != "silu")
    leaves = {name: t.clone().requires_grad_() for name, t in inputs.items()}
    exact = {name: t.double().requires_grad_() for name, t in inputs.items()}
    y = longwave.short_conv(**leaves, activation=activation, layout=layout)
    truth = short_conv_ref(**exact, activation=activation, layout=layout)
    dy = randn(y.shape).to(dtype)
    got = torch.autograd.grad(y, list(leaves.values()), dy)
    want = torch.autograd.grad(truth, list(exact.values()), dy.double(), materialize_grads=True)
    for name, a, b in zip(["y", *inputs], [y, *got], [truth, *want], strict=True):
        about = f"{name}: {dtype} {activation}"
        assert a.dtype == (dtype if name == "y" else inputs[name].dtype), about
        assert a.is_contiguous() or (name != "y" and engine() == "plain"), about
        if not b.any():  # a state that no tap reaches, or none
            assert not a.any()
            continue
        # Slopes of an activation are taken at a rounded place, and sums over time may cancel.
        slack = 1.0 if activation is None and b.numel() > 100 else 4.0
        slack *= max(1.0, (dy.double().norm() / b.norm()).item()) if name in ("w", "bias") else 1.0
        assert relative_l2(a, b) <= slack * bound(a.dtype, L + K, engine(), truth=b if a.itemsize == 2 else None), about


# Around the blocks of the engine: vectors, chains of 32 taps, chunks of 1,024 samples, spans of 4,096, strips of 32 channels.
@pytest.mark.parametrize(("L", "H"), [(1, 35), (9, 3), (64, 35), (1023, 3), (1041, 33), (4100, 2)])
@pytest.mark.parametrize("K", [1, 2, 3, 4, 7, 31, 64, 65, 255, 256])
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
def test_values_and_gradients_equal_the_direct_sum(L: int, H: int, K: int, layout: str) -> None:
    for dtype in DTYPES:
        for activation in ACTIVATIONS:
            compare(L, H, K, layout, dtype, activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_activations_are_those_of_pytorch_everywhere(activation: str | None, dtype: torch.dtype) -> None:
    """One tap of 1 gives the activation itself, from the smallest numbers to where it is flat, infinity and NaN."""
    needs_an_engine()
    scale = here(torch.logspace(-30, 2.3, 4001, dtype=torch.float64).to(dtype))
    special = here(torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e30, -1e30], dtype=dtype))
    x = torch.cat([scale, -scale, special])[None, None].requires_grad_()
    one = here(torch.ones(1, 1, dtype=dtype))
    y = longwave.short_conv(x, one, activation=activation)
    wide = x.detach().double().requires_grad_()
    want = (
        short_conv_ref(wide, one, activation=activation)
        if activation != "gelu"
        else wide * torch.special.erfc(wide * -(0.5**0.5)) / 2
    )
    assert torch.equal(y.isnan(), want.to(dtype).isnan())
    finite = want.to(dtype).isfinite()
    eps = torch.finfo(dtype).eps
    # A Gaussian's tail is off by the rounding of its exponent, which is x²/2.
    unit = eps * (8 + 2 * wide.detach() ** 2) if activation == "gelu" else torch.full_like(wide, 3 * eps)
    tiny = 100 * torch.finfo(dtype).smallest_normal  # where exp(-x) is infinite
    allowed = want.abs() * unit + tiny
    wrong = finite & ((y - want).abs() > allowed)
    assert not wrong.any(), (x[wrong], y[wrong], want[wrong])
    (slope,) = torch.autograd.grad(y.sum(), x)
    (exact,) = torch.autograd.grad(want.sum(), wide)
    inside = x.detach().abs() < 1e4
    torch.testing.assert_close(slope[inside].double(), exact[inside], rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize("K", [3, 64])
@pytest.mark.parametrize("L", [1, 40, 5000])
def test_a_row_has_the_same_bits_in_any_company(K: int, L: int) -> None:
    needs_an_engine()
    compare_bits(37, L, K)


def compare_bits(H: int, L: int, K: int, widths: tuple[int, ...] = (1, 2, 3)) -> None:
    """Of a row alone, in a batch, in either layout, through any strides, on any number of threads."""
    x, w, bias = randn(3, H, L), randn(H, K), randn(H)
    dy = randn(3, H, L)

    def run(rows: slice, channels: slice, layout: str = "BHL") -> list[torch.Tensor]:
        given = [t[rows, channels] for t in (x, dy)]
        if layout == "BLH":
            given = [t.transpose(1, 2).contiguous() for t in given]
        elif layout == "strided":
            given = [torch.stack([t, t.flip(-1)], dim=-1).flatten(-2)[..., ::2] for t in given]
        leaves = [given[0].requires_grad_(), w[channels].clone().requires_grad_(), bias[channels].clone().requires_grad_()]
        y = longwave.short_conv(*leaves, activation="gelu", layout="BLH" if layout == "BLH" else "BHL")
        dx, dw, dbias = torch.autograd.grad(y, leaves, given[1])
        signals = [t.transpose(1, 2) if layout == "BLH" else t for t in (y.detach(), dx)]
        return [*signals, dw, dbias]

    everything = slice(None)
    whole = run(everything, everything)
    before = torch.get_num_threads()
    try:
        for threads in widths:
            torch.set_num_threads(threads)
            for layout in ("BHL", "BLH", "strided"):
                for a, b in zip(whole, run(everything, everything, layout), strict=True):
                    assert torch.equal(a, b)
    finally:
        torch.set_num_threads(before)
    for b, h in ((0, 0), (2, H - 1), (1, H // 2)):
        y, dx, *_ = run(slice(b, b + 1), slice(h, h + 1))
        assert torch.equal(y[0, 0], whole[0][b, h])
        assert torch.equal(dx[0, 0], whole[1][b, h])
    moved = longwave.short_conv(x, w, bias, activation="gelu").roll(1, -1)
    assert L == 1 or not torch.equal(moved, whole[0])  # equal() can fail


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
def test_a_bad_row_reaches_no_other(bad: float, layout: str) -> None:
    needs_an_engine()
    compare_bad_row(19, 300, 31, bad, layout)


def compare_bad_row(H: int, L: int, K: int, bad: float, layout: str) -> None:
    """With a bad sample in the last channel of the last row: what it does not reach has the bits it has without."""
    x, w = randn(2, H, L), randn(H, K)
    dirty = x.clone()
    dirty[1, -1, 7] = bad
    others = here(torch.ones(2, H, dtype=torch.bool))
    others[1, -1] = False
    found = []
    for t in (x, dirty):
        leaf, taps = (t if layout == "BHL" else t.transpose(1, 2)).clone().requires_grad_(), w.clone().requires_grad_()
        y = longwave.short_conv(leaf, taps, activation="silu", layout=layout)
        dx, dw = torch.autograd.grad(y.sum(), [leaf, taps])
        found.append([v if layout == "BHL" else v.transpose(1, 2) for v in (y.detach(), dx)] + [dw])
    (y, dx, dw), (dirty_y, dirty_dx, dirty_dw) = found
    assert torch.equal(y[others], dirty_y[others])
    assert torch.equal(dx[others], dirty_dx[others])
    assert torch.equal(dw[:-1], dirty_dw[:-1])
    assert not torch.equal(y[1, -1], dirty_y[1, -1])
    assert torch.equal(y[1, -1, :7], dirty_y[1, -1, :7])
    assert torch.equal(y[1, -1, 7 + K :], dirty_y[1, -1, 7 + K :])


def test_gradients_of_some_arguments_are_those_of_all() -> None:
    needs_an_engine()
    inputs = _inputs(5, 4, 50, torch.float32, "BLH", state=True)
    dy = randn(2, 50, 5)

    def grads(wanted: list[str]) -> dict[str, torch.Tensor]:
        leaves = {name: t.clone().requires_grad_(name in wanted) for name, t in inputs.items()}
        y = longwave.short_conv(**leaves, activation="silu", layout="BLH")
        return dict(zip(wanted, torch.autograd.grad(y, [leaves[name] for name in wanted], dy), strict=True))

    whole = grads(list(inputs))
    for wanted in (["x"], ["w"], ["bias"], ["state"], ["w", "state"], ["x", "bias"]):
        for name, grad in grads(wanted).items():
            assert torch.equal(grad, whole[name])


def test_expanded_and_unbatched_and_batched_gradients() -> None:
    w = randn(4, 3)
    row = randn(1, 1, 20)
    assert torch.equal(longwave.short_conv(row.expand(2, 4, 20), w), longwave.short_conv(row.repeat(2, 4, 1), w))
    x = randn(4, 20, dtype=torch.float64, requires_grad=True)
    assert longwave.short_conv(x.detach(), w).shape == (4, 20)
    y = longwave.short_conv(x, w.double(), activation="silu")
    every = here(torch.eye(80, dtype=torch.float64)).view(80, 4, 20)
    (batched,) = torch.autograd.grad(y, x, every, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(y, x, one, retain_graph=True)[0] for one in every]
    torch.testing.assert_close(batched, torch.stack(single))


def test_a_result_may_be_written_to() -> None:
    x, w = randn(2, 3, 9, requires_grad=True), randn(3, 2)
    for layout in ("BHL", "BLH"):
        turned = x if layout == "BHL" else x.transpose(1, 2)
        y = longwave.short_conv(turned, w, layout=layout)
        y += 1
        y.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("layout", ["BHL", "BLH"])
def test_the_registered_operator_keeps_its_promises(layout: str) -> None:
    inputs = _inputs(3, 4, 10, torch.float32, layout, state=True)
    leaves = [t.requires_grad_() for t in inputs.values()]
    torch.library.opcheck(torch.ops.longwave.short_conv.default, (*leaves, "silu", layout == "BLH"))


def test_compiled_gradients_and_an_exported_length() -> None:
    inputs = _inputs(3, 4, 10, torch.float32, "BHL", state=True)

    def call(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return longwave.short_conv(x, w, bias, activation="gelu", state=state) * 2

    def grads(function: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, ...]:
        leaves = [t.clone().requires_grad_() for t in inputs.values()]
        return torch.autograd.grad(function(*leaves).square().sum(), leaves)

    torch._dynamo.reset()
    for a, b in zip(grads(torch.compile(call, fullgraph=True, backend="aot_eager")), grads(call), strict=True):
        assert torch.equal(a, b)

    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return longwave.short_conv(x, inputs["w"], activation="silu")

    exported = torch.export.export(Layer(), (inputs["x"],), dynamic_shapes=({2: torch.export.Dim("L", min=2)},))
    longer = randn(2, 3, 77)
    assert torch.equal(exported.module()(longer), Layer()(longer))


def test_without_an_engine_the_formula_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "for_short_conv", lambda device: plain)
    inputs = _inputs(3, 4, 10, torch.float32, "BHL", state=True)
    leaves = [t.clone().requires_grad_() for t in inputs.values()]
    y = longwave.short_conv(*leaves[:3], activation="silu", state=leaves[3])
    truth = short_conv_ref(*leaves[:3], activation="silu", state=leaves[3])
    assert relative_l2(y, truth) <= bound(torch.float32, 14)
    truth = torch.autograd.grad(truth.sum(), leaves)
    by_operator = torch.ops.longwave.short_conv(*leaves, "silu", False)
    for result in (y, by_operator):
        for a, b in zip(torch.autograd.grad(result.sum(), leaves), truth, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"x": ones(2, 3, 8, dtype=torch.int32)}, "x has dtype int32; with x of int32 it must be"),
        ({"x": ones(2, 3, 8, dtype=torch.complex64)}, "x has dtype complex64;"),
        ({"x": "abc"}, "x is of type str; give a torch.Tensor"),
        ({"x": None}, "x is of type NoneType"),
        ({"w": None}, "w is of type NoneType"),
        ({"activation": ["silu"]}, "activation=.*is unknown"),
        ({"x": ones(8)}, r"x has shape \(8,\)"),
        ({"x": ones(2, 3, 0)}, r"x has shape \(2, 3, 0\)"),
        ({"w": ones(4, 3)}, r"w has shape \(4, 3\); with 3 channels it must be \(3, K\) with K from 1 to 256"),
        ({"w": ones(3, 0)}, r"w has shape \(3, 0\)"),
        ({"w": ones(3, 257)}, "longer filters go to longwave.long_conv"),
        ({"w": ones(3, 3, dtype=torch.float64)}, "w has dtype float64; with x of float32 it must be float32"),
        ({"w": torch.ones(3, 3, device="meta")}, "w is on meta and x on "),
        ({"bias": ones(2)}, r"bias has shape \(2,\); give one value a channel, shape \(3,\)"),
        ({"state": ones(2, 3, 3)}, r"state has shape \(2, 3, 3\); .* shape \(2, 3, 2\)"),
        ({"state": ones(2, 3, 2).half()}, "state has dtype float16"),
        ({"activation": "relu"}, "activation='relu' is unknown; choose one of None, 'silu', 'gelu'"),
        ({"layout": "BCL"}, "layout='BCL' is unknown"),
    ],
)
def test_a_wrong_call_gets_one_sentence(changed: dict, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        longwave.short_conv(**{"x": randn(2, 3, 8), "w": randn(3, 3), **changed})
