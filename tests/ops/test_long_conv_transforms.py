"""Derivatives of every order, functorch, compile, export and autocast: right, or refused; never silently wrong."""

from __future__ import annotations

import itertools
import sys
import threading
import warnings
from collections.abc import Callable

import devices
import pytest
import torch
from arguments import Case, arguments, floating, long_conv_ref
from devices import here, randn
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import longwave
from longwave.errors import UnsupportedError
from longwave.masks import FrequencyMask
from longwave.ops import pair

ops = sys.modules["longwave.ops.long_conv"]

LOW = FrequencyMask.lowpass(0.6, leaks_future=True)

SMALL = [
    Case(B=2, H=2, L=5, K=5, P=3, D=True, pregate=True, postgate=True),
    Case(B=2, H=2, L=5, K=3, K_rev=4, pregate=True, layout="BLH"),
    Case(B=1, H=2, L=5, K=7, mode="circular", K_rev=2, postgate=True, filters="shared"),
    Case(B=2, H=2, L=5, K=4, mode="same", D=True, filters="sample"),
    Case(B=2, H=2, L=4, K=3, mode="full", D=True, postgate=True, filters="group"),
    Case(B=1, H=2, L=7, K=5, documents=(0, 3, 3, 7), P=2, D=True, pregate=True),
    Case(B=1, H=2, L=3, K=3, dtype=torch.complex128, P=1, D=True, pregate=True, postgate=True),
    Case(B=2, H=2, L=5, K=5, P=3, D=True, pregate=True, postgate=True, mask=LOW),
    Case(B=2, H=2, L=5, K=3, K_rev=4, pregate=True, layout="BLH", filters="sample", mask=LOW),
    Case(B=1, H=2, L=5, K=7, mode="circular", K_rev=2, postgate=True, filters="shared", mask=LOW),
    Case(B=2, H=2, L=4, K=3, mode="full", D=True, postgate=True, filters="group", mask=LOW),
    Case(B=1, H=2, L=7, K=5, documents=(0, 3, 3, 7), P=2, D=True, pregate=True, mask=LOW),
    Case(B=1, H=2, L=3, K=3, dtype=torch.complex128, P=1, D=True, pregate=True, postgate=True, mask=LOW),
]


def _as_function(case: Case) -> tuple[Callable[..., Tensor], list[Tensor], dict]:
    kwargs = arguments(case)
    inputs = floating(kwargs)

    def call(*tensors: Tensor) -> Tensor:
        return longwave.long_conv(**{**kwargs, **dict(zip(inputs, tensors, strict=True))})

    return call, list(inputs.values()), kwargs


@pytest.mark.parametrize("frozen", ["k", "k_rev"])
def test_one_side_of_a_filter_may_be_frozen(frozen: str) -> None:
    call, inputs, kwargs = _as_function(Case(B=2, H=2, L=5, K=3, K_rev=4, D=True))
    names = list(floating(kwargs))
    dy = torch.randn_like(call(*inputs))
    whole = dict(zip(names, torch.autograd.grad(call(*inputs), inputs, dy), strict=True))
    given = {name: x.detach().requires_grad_(name != frozen) for name, x in zip(names, inputs, strict=True)}
    call(*given.values()).backward(dy)
    for name, x in given.items():
        assert x.grad is None if name == frozen else torch.equal(x.grad, whole[name])


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_gradcheck_to_second_order(case: Case) -> None:
    call, inputs, _ = _as_function(case)
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_third_derivatives_equal_the_reference(case: Case) -> None:
    call, inputs, kwargs = _as_function(case)
    names = list(floating(kwargs))

    def truth(*tensors: Tensor) -> Tensor:
        return long_conv_ref(**{**kwargs, **dict(zip(names, tensors, strict=True))})

    def third(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        total = function(*inputs).abs().square().sum()
        for _ in range(2):
            total = sum(g.abs().square().sum() for g in torch.autograd.grad(total, inputs, create_graph=True))
        return torch.autograd.grad(total, inputs)

    for name, a, b in zip(names, third(call), third(truth), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_second_order_when_one_argument_is_made_from_another() -> None:
    """A filter computed from the input must not count its path twice."""

    def of(function: Callable[..., Tensor]) -> Tensor:
        u = here(torch.linspace(-1, 1, 6, dtype=torch.float64)).reshape(1, 1, 6).requires_grad_()
        y = function(u, u[0] ** 2)
        (g,) = torch.autograd.grad((y**2).sum(), u, create_graph=True)
        return torch.autograd.grad((g**2).sum(), u)[0]

    torch.testing.assert_close(of(longwave.long_conv), of(long_conv_ref), rtol=1e-11, atol=1e-11)


def test_gradients_in_eval_mode_and_for_some_arguments_only() -> None:
    """A rival saves for backward only in training mode, and needs every gradient at once."""
    case = Case(L=12, K=12, P=3, K_rev=4, D=True, pregate=True, postgate=True)
    _, inputs, kwargs = _as_function(case)
    names = list(floating(kwargs))
    full = dict(zip(names, torch.autograd.grad(longwave.long_conv(**kwargs).sum(), inputs), strict=True))
    for name in names:
        only = {n: x.detach().requires_grad_(n == name) if n in names else x for n, x in kwargs.items()}
        longwave.long_conv(**only).sum().backward()
        torch.testing.assert_close(only[name].grad, full[name], rtol=1e-12, atol=1e-12)
        assert all(only[n].grad is None for n in names if n != name)
    with torch.no_grad():
        assert not longwave.long_conv(**kwargs).requires_grad


def test_gradients_that_arrive_expanded_or_strided() -> None:
    call, inputs, _ = _as_function(Case(L=10, K=10, D=True, pregate=True))
    y = call(*inputs)
    one = here(torch.ones(1, 1, 1, dtype=y.dtype))
    for dy in (one.expand(y.shape), randn(*y.shape[::-1], dtype=y.dtype).permute(2, 1, 0)):
        got = torch.autograd.grad(y, inputs, dy, retain_graph=True)
        want = torch.autograd.grad(y, inputs, dy.contiguous(), retain_graph=True)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_saved_arguments_written_over_before_backward_are_refused() -> None:
    u, k = randn(1, 2, 8, requires_grad=True), randn(2, 8, requires_grad=True)
    y = longwave.long_conv(u, k)
    with torch.no_grad():
        k.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_forward_mode_equals_the_reference_and_is_not_zero(case: Case) -> None:
    call, inputs, kwargs = _as_function(case)
    names = list(floating(kwargs))
    tangents = tuple(torch.randn_like(x) for x in inputs)
    primals = tuple(x.detach() for x in inputs)

    def truth(*tensors: Tensor) -> Tensor:
        return long_conv_ref(**{**kwargs, **dict(zip(names, tensors, strict=True))})

    _, want = jvp(truth, primals, tangents)
    _, got = jvp(call, primals, tangents)
    assert want.abs().max() > 0.1
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, t) for x, t in zip(primals, tangents, strict=True)]
        tangent = forward_ad.unpack_dual(call(*duals)).tangent
    torch.testing.assert_close(tangent, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_vmap_over_every_argument_equals_a_loop(case: Case) -> None:
    call, inputs, _ = _as_function(case)
    stacked = [torch.stack([x.detach(), -2 * x.detach(), torch.randn_like(x)]) for x in inputs]
    want = torch.stack([call(*row) for row in zip(*stacked, strict=True)])
    torch.testing.assert_close(vmap(call)(*stacked), want, rtol=1e-12, atol=1e-12)
    only_first = (0, *[None] * (len(inputs) - 1))
    want = torch.stack([call(x, *[i.detach() for i in inputs[1:]]) for x in stacked[0]])
    got = vmap(call, in_dims=only_first)(stacked[0], *[i.detach() for i in inputs[1:]])
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_functional_gradients_equal_autograd() -> None:
    case = Case(B=2, H=2, L=6, K=6, P=2, D=True, pregate=True, postgate=True)
    call, inputs, _ = _as_function(case)
    primals = tuple(x.detach() for x in inputs)

    def energy(*tensors: Tensor) -> Tensor:
        return call(*tensors).square().sum()

    want = torch.autograd.grad(energy(*inputs), inputs)
    got = grad(energy, argnums=tuple(range(len(inputs))))(*primals)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    per_sample = vmap(grad(lambda k, u: longwave.long_conv(u, k).square().sum()), in_dims=(None, 0))(primals[1], primals[0])
    torch.testing.assert_close(
        per_sample.sum(0), torch.autograd.grad(longwave.long_conv(inputs[0], inputs[1]).square().sum(), inputs[1])[0]
    )
    u, k = primals[0][:1, :1], primals[1][:1]
    J = jacrev(lambda k: longwave.long_conv(u, k))(k)
    for s in range(6):
        torch.testing.assert_close(J[0, 0, s:, 0, s], u[0, 0, : 6 - s])
    H = hessian(lambda k: longwave.long_conv(u, k).square().sum() / 2)(k)[0, :, 0, :]
    torch.testing.assert_close(H, J[0, 0, :, 0].T @ J[0, 0, :, 0])


def test_a_named_engine_under_a_transform_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    u, k = randn(1, 2, 8), randn(2, 8)
    monkeypatch.setattr(ops.backends, "load", lambda name: object())
    with pytest.raises(UnsupportedError, match=r"backend='engine' cannot run under vmap.*use backend='auto'"):
        vmap(lambda u: longwave.long_conv(u, k, backend="engine"))(u.unsqueeze(0))


OPCHECK_CASES = [c for c in SMALL if not c.dtype.is_complex]


@pytest.mark.parametrize("case", OPCHECK_CASES, ids=str)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck_of_the_fused_operator(case: Case, requires_grad: bool) -> None:
    kwargs = arguments(case)
    a = ops.lower(**_lowerable(kwargs))
    tensors = [None if x is None else x.detach().clone().requires_grad_(requires_grad) for x in a.given]
    integers = (a.lag0, a.out_len, a.circular, a.channels_last, None, "auto", None if case.mask is None else case.mask.text)
    torch.library.opcheck(ops._op, (*tensors, kwargs.get("cu_seqlens"), None, *integers))
    if not requires_grad:
        needs = [x is not None for x in tensors]
        dy = randn(*a.given.u.shape[:2], a.out_len, dtype=a.given.u.dtype)
        torch.library.opcheck(ops._backward_op, (needs, dy, *tensors, kwargs.get("cu_seqlens"), None, *integers))


def _lowerable(kwargs: dict) -> dict:
    names = ("D", "k_rev", "pregate", "postgate", "history", "cu_seqlens", "precision")
    return {**dict.fromkeys(names), "layout": "BHL", "mode": "causal", **kwargs}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("mask", [None, LOW], ids=["whole", "masked"])
def test_opcheck_and_gradcheck_of_the_pair(reverse: bool, circular: bool, mask: FrequencyMask | None) -> None:
    x, k = randn(1, 2, 6, dtype=torch.float64), randn(1, 3, dtype=torch.float64)
    in_start, out_start, out_len = (0, 0, 6) if circular else (-2, 1, 7)
    y = randn(1, 2, out_len, dtype=torch.float64)
    conv_args = (None, in_start, out_start, out_len, 1, reverse, circular, "plain", mask and mask.text)
    corr_args = (None, out_start, in_start, 3, 1, reverse, circular, 1, False, "plain", mask and mask.text)
    for op, registered, tensors, rest in (
        (pair.conv, pair._conv_op, (x, k), conv_args),
        (pair.corr, pair._corr_op, (y, x), corr_args),
    ):
        leaves = [t.clone().requires_grad_() for t in tensors]
        torch.library.opcheck(registered, (*leaves, *rest))
        assert torch.autograd.gradcheck(lambda a, b, op=op, rest=rest: op(a, b, *rest), leaves)
        assert torch.autograd.gradgradcheck(lambda a, b, op=op, rest=rest: op(a, b, *rest), leaves, fast_mode=True)


def test_the_pair_writes_down_its_sums() -> None:
    x, k = randn(1, 1, 6, dtype=torch.float64), randn(1, 3, dtype=torch.float64)
    for reverse in (False, True):
        got = pair.conv(x, k, None, -2, 1, 7, 1, reverse, False, "plain")[0, 0]
        lag = [1 - s if reverse else 1 + s for s in range(3)]
        for t in range(1, 8):
            want = sum(k[0, s] * x[0, 0, t - lag[s] + 2] for s in range(3) if 0 <= t - lag[s] + 2 < 6)
            assert abs(got[t - 1] - want) < 1e-12
        w = pair.corr(got.reshape(1, 1, 7), x, None, 1, -2, 3, 1, reverse, False, 1, False, "plain")[0]
        for s in range(3):
            want = sum(got[t - 1] * x[0, 0, t - lag[s] + 2] for t in range(1, 8) if 0 <= t - lag[s] + 2 < 6)
            assert abs(w[s] - want) < 1e-12


COMPILE_CASES = [
    Case(L=20, K=20, P=4, K_rev=6, D=True, pregate=True, postgate=True, layout="BLH"),
    Case(L=20, K=9, mode="full", D=True, postgate=True, filters="group"),
    Case(B=1, L=20, K=9, documents=(0, 7, 20), D=True, dtype=torch.float32),
    Case(L=20, K=9, mode="same", filters="sample", dtype=torch.bfloat16, filter_dtype=torch.float32),
    Case(L=9, K=9, mode="circular", dtype=torch.complex128),
    Case(L=20, K=20, P=4, D=True, pregate=True, postgate=True, layout="BLH", mask=LOW),
    Case(B=1, L=20, K=9, documents=(0, 7, 20), D=True, dtype=torch.float32, mask=LOW),
]


@pytest.mark.parametrize("case", COMPILE_CASES, ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_equals_eager(case: Case, dynamic: bool) -> None:
    torch._dynamo.reset()
    call, inputs, _ = _as_function(case)
    # aot_eager runs all of tracing and fake kernels; inductor has no code to generate for one opaque operator.
    compiled = torch.compile(call, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*complex operators.*")
        y, z = compiled(*inputs), call(*inputs)
        assert torch.equal(y, z)
        dy = torch.randn_like(z)
        for a, b in zip(torch.autograd.grad(y, inputs, dy), torch.autograd.grad(z, inputs, dy), strict=True):
            assert torch.equal(a, b)


def test_compiled_once_for_every_length() -> None:
    torch._dynamo.reset()
    frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(
        lambda u, k, g: longwave.long_conv(u, k, pregate=g, postgate=g), fullgraph=True, dynamic=True, backend=frames
    )
    k = randn(3, 16)
    for L in (10, 16, 17, 40, 1001):
        u = randn(2, 3, L)
        assert torch.equal(compiled(u, k, u), longwave.long_conv(u, k, pregate=u, postgate=u))
    assert frames.frame_count == 1


def test_inductor_compiles_around_the_operator() -> None:
    torch._dynamo.reset()
    u, k = randn(2, 4, 33), randn(4, 33, requires_grad=True)

    def block(u: Tensor, k: Tensor) -> Tensor:
        return torch.nn.functional.gelu(longwave.long_conv(u.sin(), k * 0.5, layout="BHL")).cumsum(-1)

    y, z = torch.compile(block, fullgraph=True)(u, k), block(u, k)
    torch.testing.assert_close(y, z)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), k)[0], torch.autograd.grad(z.sum(), k)[0], rtol=1e-4, atol=1e-4)


class _Block(torch.nn.Module):
    def __init__(self, mask: FrequencyMask | None = None) -> None:
        super().__init__()
        self.mask = mask
        self.k = torch.nn.Parameter(randn(4, 9))
        self.D = torch.nn.Parameter(randn(4))

    def forward(self, u: Tensor, gate: Tensor) -> Tensor:
        return longwave.long_conv(u, self.k, self.D, pregate=gate, k_rev=self.k, frequency_mask=self.mask, layout="BLH")


@pytest.mark.parametrize("mask", [None, FrequencyMask.lowpass(0.25)], ids=["whole", "masked"])
def test_exports_with_a_dynamic_length(mask: FrequencyMask | None) -> None:
    module = _Block(mask)
    L = torch.export.Dim("L", min=2, max=2**20)
    sample = (randn(2, 40, 4), randn(2, 40, 4))
    exported = torch.export.export(module, sample, dynamic_shapes={"u": {1: L}, "gate": {1: L}})
    for length in (2, 9, 40, 333):
        u, gate = randn(2, length, 4), randn(2, length, 4)
        assert torch.equal(exported.module()(u, gate), module(u, gate))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    call, inputs, _ = _as_function(Case(L=50, K=50, D=True, pregate=True, dtype=torch.float32))
    want = call(*inputs)
    want_grads = torch.autograd.grad(want.sum(), inputs)
    with torch.autocast(devices.DEVICE, dtype=dtype):
        got = call(*inputs)
        grads = torch.autograd.grad(got.sum(), inputs)
        mapped = vmap(call)(*[x.detach().unsqueeze(0) for x in inputs])[0]
        twice = torch.autograd.grad(
            torch.autograd.grad(call(*inputs).square().sum(), inputs[0], create_graph=True)[0].sum(), inputs[1]
        )
    assert torch.equal(got, want)
    assert all(torch.equal(a, b) for a, b in zip(grads, want_grads, strict=True))
    torch.testing.assert_close(mapped, want)
    plain = torch.autograd.grad(
        torch.autograd.grad(call(*inputs).square().sum(), inputs[0], create_graph=True)[0].sum(), inputs[1]
    )
    assert torch.equal(twice[0], plain[0])


def test_four_threads_at_once_give_what_one_gives() -> None:
    call, inputs, _ = _as_function(Case(L=200, K=200, D=True, pregate=True, postgate=True))
    want = torch.autograd.grad(call(*inputs).sum(), inputs)
    found: list[tuple[Tensor, ...]] = []

    def work() -> None:
        found.append(torch.autograd.grad(call(*inputs).sum(), inputs))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(a, b) for grads in found for a, b in zip(grads, want, strict=True))


def test_gradients_of_a_graph_made_outside_a_transform() -> None:
    """jvp, vmap and batched gradients of a backward pass: an opaque operator in it would give zeros or an error."""
    u, k = (
        randn(1, 2, 6, dtype=torch.float64, requires_grad=True),
        randn(2, 6, dtype=torch.float64, requires_grad=True),
    )
    for layout in ("BHL", "BLH"):
        signal = u if layout == "BHL" else u.transpose(1, 2)

        def pull(
            function: Callable[..., Tensor], dy: Tensor, create_graph: bool, signal: Tensor = signal, layout: str = layout
        ) -> Tensor:
            y = function(signal, k, layout=layout)
            return torch.autograd.grad(y, k, dy, create_graph=create_graph)[0]

        shape = signal.shape
        dy, tangent = randn(shape, dtype=torch.float64), randn(shape, dtype=torch.float64)
        many = torch.stack([dy, tangent])
        y = longwave.long_conv(signal, k, layout=layout)
        for create_graph in (False, True):

            def pulled(d: Tensor, y: Tensor = y, create_graph: bool = create_graph) -> Tensor:
                return torch.autograd.grad(y, k, d, create_graph=create_graph, retain_graph=True)[0]

            torch.testing.assert_close(jvp(pulled, (dy,), (tangent,))[1], pull(long_conv_ref, tangent, False))
            torch.testing.assert_close(vmap(pulled)(many), torch.stack([pull(long_conv_ref, d, False) for d in many]))
        batched = torch.autograd.grad(longwave.long_conv(signal, k, layout=layout), k, many, is_grads_batched=True)[0]
        torch.testing.assert_close(batched, torch.stack([pull(long_conv_ref, d, False) for d in many]))

    def energy(k: Tensor) -> Tensor:
        return longwave.long_conv(u.detach(), k).square().sum()

    for vectorize in (False, True):
        H = torch.autograd.functional.hessian(energy, k, vectorize=vectorize)
        want = torch.autograd.functional.hessian(lambda k: long_conv_ref(u.detach(), k).square().sum(), k)
        torch.testing.assert_close(H, want)


def test_second_gradients_seen_by_an_outer_forward_mode() -> None:
    u, k = randn(1, 1, 5, dtype=torch.float64), randn(1, 5, dtype=torch.float64)

    def product(function: Callable[..., Tensor]) -> Tensor:
        leaf = k.clone().requires_grad_()
        (g,) = torch.autograd.grad(function(u, leaf).pow(3).sum(), leaf, create_graph=True)
        direction = torch.ones_like(g)
        return jvp(lambda d: torch.autograd.grad(g, leaf, d, retain_graph=True)[0], (direction,), (2 * direction,))[1]

    want = product(long_conv_ref)
    assert want.abs().max() > 0.1
    torch.testing.assert_close(product(longwave.long_conv), want)


def test_forward_mode_through_an_exported_module_is_refused() -> None:
    module = _Block()
    u, gate = randn(2, 8, 4), randn(2, 8, 4)
    exported = torch.export.export(module, (u, gate)).module()
    with pytest.raises(UnsupportedError, match=r"cannot be differentiated in forward mode; call longwave\.long_conv itself"):
        jvp(lambda u: exported(u, gate), (u,), (gate,))


@pytest.mark.parametrize("layout", ["BHL", "BLH"])
@pytest.mark.parametrize("batched", [True, False])
def test_the_result_may_be_written_to_in_place(layout: str, batched: bool) -> None:
    kwargs = arguments(Case(L=7, K=7, layout=layout, batched=batched))
    y = longwave.long_conv(**kwargs)
    y += 1
    torch.nn.functional.relu_(y).square().sum().backward()
    want = torch.autograd.grad(torch.relu(longwave.long_conv(**kwargs) + 1).square().sum(), kwargs["k"])[0]
    torch.testing.assert_close(kwargs["k"].grad, want)


def test_symbolic_tracing_and_meta_tensors() -> None:
    u, k = randn(2, 3, 12), randn(3, 12)
    traced = make_fx(lambda u, k: longwave.long_conv(u, k, pregate=u), tracing_mode="symbolic")(u, k)
    wider = randn(2, 3, 20)
    assert torch.equal(traced(wider, k), longwave.long_conv(wider, k, pregate=wider))
    assert longwave.long_conv(u.to("meta"), k.to("meta")).shape == u.shape
    assert longwave.short_conv(u.to("meta"), k.to("meta")).shape == u.shape
    assert vmap(lambda u: longwave.long_conv(u, k.to("meta")))(u.to("meta")).shape == u.shape


def test_real_and_complex_arguments_mixed() -> None:
    """Each of k, D and history may be real beside a complex signal; each has its own precision and gradient."""
    for complex_k, complex_D, complex_h in itertools.product((False, True), repeat=3):

        def leaf(*shape: int, is_complex: bool) -> Tensor:
            return randn(*shape, dtype=torch.complex64 if is_complex else torch.float32, requires_grad=True)

        u, k = leaf(1, 2, 9, is_complex=True), leaf(2, 9, is_complex=complex_k)
        D, h = leaf(2, is_complex=complex_D), leaf(1, 2, 4, is_complex=complex_h)
        y, truth = longwave.long_conv(u, k, D, history=h), long_conv_ref(u, k, D, history=h)
        torch.testing.assert_close(y.to(truth.dtype), truth, rtol=1e-4, atol=1e-4)
        dy = torch.randn_like(y)
        for create_graph in (False, True):
            got = torch.autograd.grad(y, (u, k, D, h), dy, create_graph=create_graph, retain_graph=True)
            want = torch.autograd.grad(truth, (u, k, D, h), dy.to(truth.dtype), retain_graph=True)
            for a, b in zip(got, want, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        mapped = vmap(lambda u, k=k, D=D, h=h: longwave.long_conv(u, k, D, history=h))(u.detach().unsqueeze(0))[0]
        torch.testing.assert_close(mapped.to(truth.dtype), truth, rtol=1e-4, atol=1e-4)
