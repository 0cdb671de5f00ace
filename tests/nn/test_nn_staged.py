"""A Hyena block in stages: what it computes, and what it holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from longwave.models import hyena
from longwave.models.hyena import HyenaConfig, HyenaLM
from longwave.nn import filters, staged


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
    tokens = torch.randint(0, 4, (2, L), generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(autocast)):
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
        tokens = torch.randint(0, 4, (2, L), generator=torch.Generator().manual_seed(1))
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


def test_memory_is_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """(layers + 7) d_model values a position, as `HyenaLM` says."""
    for module in (staged, filters, hyena):
        monkeypatch.setattr(module, "PART", 256)
    L, d, layers = 16_384, 64, 3
    model = HyenaLM(HyenaConfig(d_model=d, layers=layers, filter_length=L, d_inner=4 * d), activation_checkpointing=True)
    tokens = torch.randint(0, 4, (1, L))
    model(tokens).mean().backward()  # compiled, and what is kept is there
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        model(tokens).mean().backward()
    held = most = 0
    for event in sorted(measured.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    unit = 4 * L * d
    assert layers * unit < most < (layers + 7.5) * unit


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
