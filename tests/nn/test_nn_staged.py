"""A Hyena block in stages: what it computes, and what it holds."""

from __future__ import annotations

from typing import Any

import devices
import pytest
import torch
from allocated import gated_scratch_bytes, peak_bytes
from devices import here
from torch.autograd import forward_ad

from longwave.errors import UnsupportedError
from longwave.models import hyena
from longwave.models.hyena import HyenaConfig, HyenaLM
from longwave.nn import filters, staged


def _tokens(B: int, L: int) -> torch.Tensor:
    """The same on every device."""
    return here(torch.randint(0, 4, (B, L), generator=torch.Generator().manual_seed(B), device="cpu"))


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (staged, filters, hyena):
        monkeypatch.setattr(module, "PART", 16)


def _model(order: int = 2, dtype: torch.dtype = torch.float64) -> HyenaLM:
    torch.manual_seed(0)
    # 40 channels are three groups, the last of them smaller.
    config = HyenaConfig(d_model=40, layers=2, filter_length=100, d_inner=64, order=order, filter_features=9)
    model = HyenaLM(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and all, so that nothing is zero
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def _run(model: HyenaLM, L: int, **autocast: Any) -> list[torch.Tensor]:
    tokens = _tokens(2, L)
    with torch.autocast(devices.DEVICE, dtype=torch.bfloat16, enabled=bool(autocast)):
        hidden = model(tokens)
    weights = torch.linspace(-1, 1, hidden.numel(), dtype=hidden.dtype).view(hidden.shape)
    return [hidden.detach(), *torch.autograd.grad((hidden * weights).sum(), list(model.parameters()))]


@pytest.mark.parametrize(("order", "L"), [(2, 77), (2, 128), (3, 33), (2, 17)])
def test_stages_give_what_the_whole_block_does(order: int, L: int, short_parts: None) -> None:
    model = _model(order)
    whole = _run(model, L)
    model.activation_checkpointing = True
    found = _run(model, L)
    for a, b in zip(whole, found, strict=True):
        assert a.abs().max() > 1e-6  # or nothing would be compared
        torch.testing.assert_close(b, a, rtol=1e-11, atol=1e-12 * float(a.abs().max()))
    with torch.no_grad():  # in place
        tokens = _tokens(2, L)
        torch.testing.assert_close(model(tokens), whole[0], rtol=1e-11, atol=1e-12)


def test_stages_under_autocast(short_parts: None) -> None:
    model = _model(dtype=torch.float32)
    whole = _run(model, 77, bf16=True)
    model.activation_checkpointing = True
    for a, b in zip(whole, _run(model, 77, bf16=True), strict=True):
        assert (a - b).norm() <= 0.02 * a.norm()  # roundings to 8 bits, in another order


def test_a_frozen_parameter_gets_no_gradient_and_others_do(short_parts: None) -> None:
    model = _model()
    model.activation_checkpointing = True
    block: Any = model.blocks[0]
    block.mixer.in_proj.weight.requires_grad_(False)
    model(torch.randint(0, 4, (1, 40))).sum().backward()
    assert block.mixer.in_proj.weight.grad is None
    assert block.mixer.in_proj.bias.grad.abs().max() > 0


@pytest.mark.parametrize("trained", ["mixer.in_proj", "mixer.filter", "mlp_out"])
def test_all_but_a_part_frozen(trained: str, short_parts: None) -> None:
    """As where a trained model learns something new: whatever is frozen, the others' gradients are those of the whole block."""
    model = _model()
    model.requires_grad_(False)
    parameters = list(model.blocks[0].get_submodule(trained).requires_grad_().parameters())
    wanted = torch.autograd.grad(model(_tokens(1, 40)).square().sum(), parameters)
    model.activation_checkpointing = True
    for a, b in zip(wanted, torch.autograd.grad(model(_tokens(1, 40)).square().sum(), parameters), strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-12)


def test_hooks_of_parameters_see_their_gradient_once(short_parts: None) -> None:
    model = _model()
    model.activation_checkpointing = True
    block: Any = model.blocks[0]
    hooked = [block.mlp_in.weight, block.mixer.D, block.mixer.in_proj.weight, block.mixer.filter.out.weight]
    wanted = torch.autograd.grad(model(_tokens(1, 40)).square().sum(), hooked)
    seen: list[torch.Tensor] = []
    for parameter in hooked:
        parameter.register_hook(lambda gradient: (seen.append(gradient), gradient / 2)[1])
    model(_tokens(1, 40)).square().sum().backward()
    assert len(seen) == len(hooked)
    for parameter, whole in zip(hooked, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, whole / 2)


def test_gradients_of_parameters_that_stood_in(short_parts: None) -> None:
    """Those of `functional_call`, which the model no longer has in the backward pass; its own are there again after it."""
    model = _model()
    own = list(model.parameters())
    others = {name: (1.5 * parameter.detach()).requires_grad_() for name, parameter in model.named_parameters()}
    found = []
    for again in (False, True):
        model.activation_checkpointing = again
        hidden = torch.func.functional_call(model, others, (_tokens(1, 40),))
        found.append(torch.autograd.grad(hidden.square().sum(), list(others.values())))
    for a, b in zip(*found, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-11 * float(a.abs().max()))
    assert all(a is b for a, b in zip(own, model.parameters(), strict=True))


def test_parameters_that_are_shared(short_parts: None) -> None:
    model = _model()
    first, second = model.blocks
    first.mlp_norm, second.mlp_in = first.mixer_norm, first.mlp_in  # type: ignore[union-attr]
    first.mixer.out_proj.bias = first.mixer_norm.bias  # type: ignore[union-attr]
    whole = _run(model, 50)
    model.activation_checkpointing = True
    for a, b in zip(whole, _run(model, 50), strict=True):
        assert a.abs().max() > 1e-6
        torch.testing.assert_close(b, a, rtol=1e-11, atol=1e-12 * float(a.abs().max()))


def test_a_convolution_that_leaves_its_filter_out(short_parts: None) -> None:
    model = _model()
    for block in model.blocks:
        block.mixer.conv = lambda u, k, D, *, pregate, postgate, **options: pregate * u  # type: ignore[union-attr]
    model.activation_checkpointing = True
    model(_tokens(1, 40)).square().sum().backward()
    first: Any = model.blocks[0]
    assert first.mixer.in_proj.weight.grad.abs().max() > 0
    assert not first.mixer.filter.out.weight.grad.any()


def test_a_gradient_of_a_gradient_is_refused(short_parts: None) -> None:
    """A sum of squares of gradients would leave the blocks' part out."""
    model = _model()
    model.activation_checkpointing = True
    with pytest.raises(UnsupportedError, match=r"create_graph.* set the model's activation_checkpointing to False"):
        torch.autograd.grad(model(_tokens(1, 40)).square().sum(), list(model.parameters()), create_graph=True)


def test_forward_mode_goes_through_whole_blocks(short_parts: None) -> None:
    config = HyenaConfig(d_model=8, layers=2, filter_length=40, d_inner=8, vocabulary=0, predicted=0, values=2)
    model = HyenaLM(config).double()
    x, direction = torch.randn(2, 1, 40, 2, dtype=torch.float64)
    wanted = torch.autograd.functional.jvp(model, x, direction)[1]
    assert wanted.abs().max() > 0
    model.activation_checkpointing = True
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(model(forward_ad.make_dual(x, direction))).tangent
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.cpu_only("the CPU's allocator is watched")
def test_memory_is_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """(layers + 6) d_model values a position, as `HyenaLM` says, beside what the engine has for each thread: here one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for module in (staged, filters, hyena):
        monkeypatch.setattr(module, "PART", 256)
    L, d, layers = 16_384, 128, 3
    model = HyenaLM(HyenaConfig(d_model=d, layers=layers, filter_length=L, d_inner=4 * d), activation_checkpointing=True)
    tokens = torch.randint(0, 4, (1, L))
    model(tokens).mean().backward()  # compiled, and what is kept is there
    try:
        most = peak_bytes(lambda: model(tokens).mean().backward()) - gated_scratch_bytes(staged.group_channels(d), L)
    finally:
        torch.set_num_threads(threads)
    unit = 4 * L * d
    assert layers * unit < most < (layers + 5.3) * unit


@pytest.mark.parametrize("taps", [16, 17, 50, 100])
def test_a_long_filter_in_parts_is_the_filter(taps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = filters.HyenaFilter(6, 100, features=9).double()
    whole = layer(taps)
    direction = torch.randn_like(whole)
    wanted = torch.autograd.grad((whole * direction).sum(), list(layer.parameters()))
    monkeypatch.setattr(filters, "PART", 16)
    parts = layer(taps)
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=1e-15)
    with torch.no_grad():
        torch.testing.assert_close(layer(taps), whole, rtol=1e-13, atol=1e-15)
    for a, b in zip(wanted, torch.autograd.grad((parts * direction).sum(), list(layer.parameters())), strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("transform", [False, True])
def test_a_long_filter_of_other_parameters(transform: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `functional_call`, in the backward pass too, and under `torch.func.grad`."""
    layer = filters.HyenaFilter(6, 100, features=9).double()
    others = {name: (1.5 * parameter.detach()).requires_grad_() for name, parameter in layer.named_parameters()}

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(layer, parameters, ()).square().sum()

    wanted = torch.autograd.grad(loss(others), list(others.values()))
    monkeypatch.setattr(filters, "PART", 16)
    if transform:
        found = list(torch.func.grad(loss)(others).values())
    else:
        found = list(torch.autograd.grad(loss(others), list(others.values())))
    for a, b in zip(wanted, found, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-12)
