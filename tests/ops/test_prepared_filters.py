"""Prepared filters: the values and gradients of the filter itself, files, compilers, and what is refused."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import devices
import pytest
import torch
from arguments import Case, arguments, backends_here, check, floating, truth_of
from devices import randn
from torch import Tensor
from torch.func import grad, jvp, vmap

import longwave
from longwave import PreparedFilter, backends, prepare_filter
from longwave.bench.tolerances import relative_l2
from longwave.errors import ArgumentError, LongwaveError, UnsupportedError
from longwave.masks import FrequencyMask

EVERYTHING = {"D": True, "pregate": True, "postgate": True}
HALF = FrequencyMask.lowpass(0.5, leaks_future=True)
CASES = [
    *[Case(mode=m, L=L, K=K) for m in ("causal", "circular", "same", "full") for L, K in ((31, 31), (40, 13), (23, 60))],
    *[Case(mode=m, L=29, K=17, layout="BLH", **EVERYTHING) for m in ("causal", "circular", "same", "full")],
    *[Case(mode=m, L=29, K=17, K_rev=9, **EVERYTHING) for m in ("causal", "circular")],
    *[Case(L=17, K=11, H=6, filters=f, **EVERYTHING) for f in ("shared", "group")],
    *[Case(mode=m, L=29, K=17, mask=HALF, **EVERYTHING) for m in ("causal", "circular", "same", "full")],
    Case(L=29, K=17, mask=HALF, filters="group", K_rev=5, **EVERYTHING),
    Case(L=1, K=1),
    *[Case(L=301, K=301, dtype=d, filter_dtype=torch.float32, **EVERYTHING) for d in (torch.float32, torch.bfloat16)],
    Case(L=301, K=200, dtype=torch.float32, mask=HALF, **EVERYTHING),
    Case(L=20, K=9, dtype=torch.complex128, **EVERYTHING),
    Case(L=20, K=9, K_rev=4, dtype=torch.complex128, filter_dtype=torch.float32),
]


def _prepared(kwargs: dict[str, Any], **options: Any) -> tuple[PreparedFilter, dict[str, Any]]:
    """The filters of a call, prepared, and the call with it."""
    names = ("k_rev", "frequency_mask", "mode")
    filters = {name: kwargs[name] for name in names if name in kwargs}
    filters = {name: x.detach() if isinstance(x, Tensor) else x for name, x in filters.items()}
    length = kwargs["u"].shape[-1 if kwargs["layout"] == "BHL" else -2]
    found = prepare_filter(kwargs["k"].detach(), length, dtype=kwargs["u"].dtype, **filters, **options)
    rest = {name: x for name, x in kwargs.items() if name not in ("k_rev", "frequency_mask")}
    return found, {**rest, "k": found}


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients_equal_the_direct_sum(case: Case, backend: str) -> None:
    kwargs = arguments(case)
    try:
        _, call = _prepared(kwargs, backend=backend)
    except UnsupportedError as refusal:
        pytest.skip(str(refusal))
    truth = truth_of(kwargs)
    y = longwave.long_conv(**call)
    assert y.dtype == case.dtype
    check(y.detach(), truth.detach(), case, "y")
    inputs = {name: x for name, x in floating(call).items() if name != "k"}
    dy = randn(truth.shape, dtype=truth.dtype).to(y.dtype)
    got = torch.autograd.grad(y, list(inputs.values()), dy)
    exact = {n: x.detach().to(truth.dtype if x.is_complex() else torch.float64).requires_grad_() for n, x in inputs.items()}
    want = torch.autograd.grad(truth_of({**kwargs, **exact}), list(exact.values()), dy.to(truth.dtype))
    for name, a, b in zip(inputs, got, want, strict=True):
        check(a, b, case, f"gradient of {name}")
    others = {name: x.detach() if isinstance(x, Tensor) else x for name, x in call.items()}
    assert not longwave.long_conv(**others).requires_grad


@pytest.mark.parametrize("case", [Case(**EVERYTHING), Case(mask=HALF), Case(filters="group", layout="BLH", D=True)], ids=str)
def test_the_spectrum_itself_is_used(case: Case) -> None:
    """On `plain` the taps are not looked at again; a wrong spectrum gives a wrong result."""
    found, call = _prepared(arguments(case), backend="plain")
    assert found.spectrum is not None
    want = longwave.long_conv(**call).detach()
    broken = copy.copy(found)
    object.__setattr__(broken, "spectrum", 2 * found.spectrum)
    got = longwave.long_conv(**{**call, "k": broken, "D": None if "D" not in call else 2 * call["D"]})
    torch.testing.assert_close(got, 2 * want)
    (du,) = torch.autograd.grad(got.sum(), call["u"])
    (once,) = torch.autograd.grad(longwave.long_conv(**call).sum(), call["u"])
    torch.testing.assert_close(du, 2 * once)


@pytest.mark.parametrize("backend", backends_here())
def test_any_batch_and_any_channels_that_its_rows_divide(backend: str) -> None:
    k = randn(2, 30)
    found = prepare_filter(k, 40, backend=backend)
    for B, H in ((1, 2), (3, 6)):
        u = randn(B, H, 40)
        torch.testing.assert_close(longwave.long_conv(u, found), longwave.long_conv(u, k, backend=backend))
    torch.testing.assert_close(longwave.long_conv(u[0], found), longwave.long_conv(u[0], k))
    want = longwave.long_conv(u, k)
    k.zero_()  # it is a copy
    torch.testing.assert_close(longwave.long_conv(u, found), want)


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("mask", [None, HALF], ids=["whole", "masked"])
def test_it_survives_files(backend: str, mask: FrequencyMask | None) -> None:
    u, k = randn(2, 3, 50), randn(3, 40)
    found = prepare_filter(k, 50, frequency_mask=mask, backend=backend)
    want = longwave.long_conv(u, found)
    stored = io.BytesIO()
    torch.save(found.state_dict(), stored)
    stored.seek(0)
    loaded = PreparedFilter.from_state_dict(torch.load(stored, weights_only=True))
    for again in (loaded, pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert torch.equal(longwave.long_conv(u, again), want)
        assert (again.backend, again.mask, again.length, again.tag) == (found.backend, found.mask, 50, found.tag)


def test_a_spectrum_of_another_form_is_made_again() -> None:
    u, k = randn(2, 3, 50), randn(3, 40)
    found = prepare_filter(k, 50, backend="plain")
    state = found.state_dict()
    broken = {**state, "spectrum": torch.zeros_like(found.spectrum)}
    assert longwave.long_conv(u, PreparedFilter.from_state_dict(broken)).abs().max() == 0  # the control: it is believed
    mended = PreparedFilter.from_state_dict({**broken, "tag": "of an older version"})
    assert torch.equal(longwave.long_conv(u, mended), longwave.long_conv(u, found))
    for bad in ({}, [1], {**state, "format": "longwave-prepared-0"}, {**state, "taps": None, "extra": 1}):
        if isinstance(bad, dict) and "extra" in bad:
            bad.pop("taps")
        with pytest.raises(ArgumentError, match=r"no state of a prepared filter of this version.*state_dict\(\) returned"):
            PreparedFilter.from_state_dict(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", [Case(L=6, K=4, H=2, **EVERYTHING), Case(L=6, K=6, H=2, D=True, mask=HALF)], ids=str)
def test_derivatives_of_every_order_and_transforms(case: Case) -> None:
    kwargs = arguments(case)
    _, call = _prepared(kwargs)
    names = [name for name in floating(call) if name != "k"]
    inputs = [call[name] for name in names]

    def run(*tensors: Tensor) -> Tensor:
        return longwave.long_conv(**{**call, **dict(zip(names, tensors, strict=True))})

    def truth(*tensors: Tensor) -> Tensor:
        return truth_of({**kwargs, "k": kwargs["k"].detach(), **dict(zip(names, tensors, strict=True))})

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)
    primals, tangents = tuple(x.detach() for x in inputs), tuple(torch.randn_like(x) for x in inputs)
    got, want = jvp(run, primals, tangents)[1], jvp(truth, primals, tangents)[1]
    assert want.abs().max() > 0.1
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    mapped = vmap(run)(*[x.unsqueeze(0) for x in primals])[0]
    torch.testing.assert_close(mapped, truth(*primals), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("mask", [None, HALF], ids=["whole", "masked"])
def test_maps_and_second_gradients_are_those_of_the_filter(backend: str, mask: FrequencyMask | None) -> None:
    """Over any axis, of the input, of D or of both; gradients a sample; gradients of gradients."""
    L = 40
    k, u, D = randn(3, L), randn(5, 2, 3, L), randn(5, 3)
    found = prepare_filter(k, L, frequency_mask=mask, backend=backend)
    assert found.spectrum is not None

    def prepared(u: Tensor, D: Tensor) -> Tensor:
        return longwave.long_conv(u, found, D, pregate=u)

    def whole(u: Tensor, D: Tensor) -> Tensor:
        return longwave.long_conv(u.double(), k.double(), D.double(), pregate=u.double(), frequency_mask=mask, backend="plain")

    def close(a: Tensor, b: Tensor) -> None:
        assert b.norm() > 1
        assert relative_l2(a, b) <= 1e-6

    for axes in ((0, 0), (0, None), (None, 0), (1, None)):
        x = u if axes[0] is not None else u[0]
        d = D if axes[1] is not None else D[0]
        x = x.movedim(0, axes[0]) if axes[0] else x
        close(vmap(prepared, in_dims=axes)(x, d), vmap(whole, in_dims=axes)(x, d))
    each = vmap(grad(lambda u, D: prepared(u, D).square().sum()), in_dims=(0, None))(u, D[0])
    close(each, vmap(grad(lambda u, D: whole(u, D).square().sum()), in_dims=(0, None))(u, D[0]))

    def second(call: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        leaves = u[0].clone().requires_grad_(), D[0].clone().requires_grad_()
        first = torch.autograd.grad(call(*leaves).square().sum(), leaves, create_graph=True)
        return list(torch.autograd.grad(sum(g.square().sum() for g in first), leaves))

    for a, b in zip(second(prepared), second(whole), strict=True):
        close(a, b.double())


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("mask", [None, HALF], ids=["whole", "masked"])
def test_compiled_exported_and_checked(backend: str, mask: FrequencyMask | None) -> None:
    torch._dynamo.reset()
    found = prepare_filter(randn(3, 20), 20, frequency_mask=mask, backend=backend)
    u, D = randn(2, 3, 20, requires_grad=True), randn(3, requires_grad=True)

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = found

        def forward(self, u: Tensor, D: Tensor) -> Tensor:
            return longwave.long_conv(u.sin(), self.k, D, pregate=u)

    layer = Layer()
    want = layer(u, D)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(u, D)
    assert torch.equal(compiled, want)
    dy = torch.randn_like(want)
    for a, b in zip(torch.autograd.grad(compiled, (u, D), dy), torch.autograd.grad(want, (u, D), dy), strict=True):
        assert torch.equal(a, b)
    exported = torch.export.export(layer, (u.detach(), D.detach()), dynamic_shapes={"u": {0: torch.export.Dim("B")}, "D": None})
    more = randn(5, 3, 20)
    assert torch.equal(exported.module()(more, D), layer(more, D))
    call = (found.lag0, 20, False, False, None, found.backend, found.mask)
    torch.library.opcheck(
        torch.ops.longwave.long_conv.default, (u.detach(), found.taps, None, None, None, None, None, found.spectrum, *call)
    )


r = randn
REFUSALS: list[tuple[Callable[[], Any], str]] = [
    (lambda: _call(r(2, 4, 9)), r"prepared for inputs of length 8, and u has 9; prepare another for it"),
    (lambda: _call(r(2, 4, 8, dtype=torch.float64)), r"prepared for inputs of float32, and u has float64"),
    (lambda: _call(torch.randn(2, 4, 8, device="meta")), rf"prepared for inputs on {devices.DEVICE}\S*, and u has meta"),
    (lambda: _call(mode="same"), r"prepared for mode='causal' and called with mode='same'; pass the same"),
    (lambda: _call(history=r(2, 4, 3)), r"history does not go with a prepared filter"),
    (lambda: _call(r(1, 4, 8), cu_seqlens=torch.tensor([0, 8], dtype=torch.int32)), r"cu_seqlens does not go with a prepared"),
    (lambda: _call(k_rev=r(4, 3)), r"k_rev does not go with a prepared filter; give it to prepare_filter"),
    (lambda: _call(frequency_mask=HALF), r"frequency_mask does not go with a prepared filter"),
    (lambda: _call(backend="cuda"), r"prepared by the backend '\w+' and called with backend='cuda'"),
    (lambda: _call(r(2, 3, 8)), r"k has 4 rows"),
    (lambda: _call([1.0]), r"u is of type list"),
    (lambda: prepare_filter(r(4, 5, requires_grad=True), 8), r"k requires a gradient.*prepare k.detach\(\)"),
    (lambda: prepare_filter(r(4, 5), 8, k_rev=r(4, 5, requires_grad=True)), r"k_rev requires a gradient"),
    (lambda: prepare_filter(r(2, 4, 5), 8), r"k has shape \(2, 4, 5\); a filter to prepare is \(H, K\), \(1, K\) or \(G, K\)"),
    (lambda: prepare_filter([1.0], 8), r"k is of type list"),
    (lambda: prepare_filter(r(4, 5), 0), r"length is 0; give the number of samples"),
    (lambda: prepare_filter(r(4, 5), 8.0), r"length is 8.0"),
    (lambda: prepare_filter(r(4, 5), 8, dtype="float32"), r"dtype is 'float32'"),
    (lambda: prepare_filter(r(4, 5), 8, dtype=torch.int32), r"u has dtype int32"),
    (lambda: prepare_filter(r(4, 5), 8, mode="valid"), r"mode='valid' is unknown"),
    (lambda: prepare_filter(r(4, 5), 8, backend="fast"), r"backend='fast' is unknown"),
    (lambda: prepare_filter(r(4, 5), 8, frequency_mask=FrequencyMask.lowpass(0.5)), r"leaks_future=True"),
    (lambda: prepare_filter(r(4, 5), 8, frequency_mask=FrequencyMask.from_blocks([0], 7, leaks_future=True)), r"grid of 8"),
]


def _call(u: Any = None, **options: Any) -> Tensor:
    return longwave.long_conv(r(2, 4, 8) if u is None else u, prepare_filter(r(4, 5), 8), **options)


@pytest.mark.parametrize(("call", "sentence"), REFUSALS, ids=[str(i) for i in range(len(REFUSALS))])
def test_a_wrong_use_gets_one_sentence(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(LongwaveError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_right_call_beside_them_runs_and_it_tells_of_itself() -> None:
    assert _call().shape == (2, 4, 8)
    text = repr(prepare_filter(r(4, 5), 8, mode="same", frequency_mask=FrequencyMask.lowpass(0.5), backend="plain"))
    for part in ("4 filters of 5 lags from -2", "mode='same'", "length=8", "lowpass(0.5)", "backend='plain': torch.fft of"):
        assert part in text
    for name in backends.names():
        assert callable(backends.load(name).prepare)


def test_a_damaged_state_gets_one_sentence() -> None:
    state = longwave.prepare_filter(randn(2, 30), 30).state_dict()
    for changed in ({"taps": None}, {"lag0": "a"}, {"length": "x"}, {"dtype": "float99"}, {"mode": "zz"}, {"mask": "zz"}):
        with pytest.raises(ArgumentError, match="damaged") as caught:
            longwave.PreparedFilter.from_state_dict({**state, **changed})
        assert "\n" not in str(caught.value)
    for k_rev, length in (([1], 9), (None, 2**63)):
        with pytest.raises(ArgumentError):
            longwave.prepare_filter(randn(2, 5), length, k_rev=k_rev)  # type: ignore[arg-type]
