"""Decoding equals the full forward, for every causal model; `longwave generate` on top of it."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
import torch

from longwave import models
from longwave.errors import ArgumentError
from longwave.masks import FrequencyMask
from longwave.models.hyena import HyenaConfig
from longwave.nn import HyenaOperator
from longwave.train import generate

CONFIGS: dict[str, Any] = {
    "hyena": HyenaConfig(d_model=8, layers=2, filter_length=300, d_inner=16, filter_width=8),
}


def made(name: str, dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    torch.manual_seed(1)
    model = models.find(name).Model(dataclasses.replace(CONFIGS[name], **changes)).to(dtype).eval()
    with torch.no_grad():  # as drawn, blocks add a hundredth of the embedding: a test would see little else
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(10)
    return model


def test_every_model_has_a_small_one_here() -> None:
    assert CONFIGS.keys() == models.available().keys()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("length", [40, 500])
def test_decoding_equals_the_full_forward(name: str, dtype: torch.dtype, length: int) -> None:
    model, chance = made(name, dtype), random.Random(length)
    tokens = torch.randint(0, 5, (2, length))
    with torch.no_grad():
        whole = model(tokens)
    stream = model.stream(2, max_rollback=9)
    t = length // 3
    parts = [stream.prefill(tokens[:, :t])]
    while t < length:
        n = min(length - t, chance.choice([1, 1, 1, 7, 64]))
        parts.append(stream.step(tokens[:, t])[:, None] if n == 1 else stream.extend(tokens[:, t : t + n]))
        t += n
        if t + 5 < length:  # a draft that is refused
            stream.extend(torch.randint(0, 5, (2, 5)))
            stream.rollback(5)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=tolerance, atol=tolerance * whole.abs().max().item())
    assert (whole[:, 1:] - whole[:, :-1]).abs().max() > 0.1  # the control: neighbours differ by far more


@pytest.mark.parametrize("name", CONFIGS)
def test_prompts_of_different_lengths_go_on_together(name: str) -> None:
    model = made(name)
    tokens = torch.randint(0, 5, (2, 60))
    stream = model.stream(2)
    stream.prefill(tokens[:, :50], lengths=[50, 13])
    got = torch.stack([stream.step(tokens[:, t]) for t in range(50, 60)], dim=1)
    with torch.no_grad():
        for row, n in ((0, 50), (1, 13)):
            alone = model(tokens[row : row + 1, 50 - n :])[:, n:]
            torch.testing.assert_close(got[row : row + 1], alone, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", CONFIGS)
def test_beams_are_reordered_and_states_restored(name: str) -> None:
    model = made(name)
    tokens = torch.randint(0, 5, (3, 30))
    stream = model.stream(3)
    stream.prefill(tokens)
    saved = stream.snapshot()
    rows = torch.tensor([1, 1, 0])
    stream.reorder(rows)
    step = torch.tensor([0, 1, 2])
    with torch.no_grad():
        expected = model(torch.cat([tokens[rows], step[:, None]], dim=1))[:, -1]
    torch.testing.assert_close(stream.step(step), expected, rtol=1e-8, atol=1e-8)
    stream.restore(saved)
    with torch.no_grad():
        expected = model(torch.cat([tokens, step[:, None]], dim=1))[:, -1]
    torch.testing.assert_close(stream.step(step), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("order", [2, 3])
def test_an_operator_streams_with_every_order(order: int) -> None:
    layer = HyenaOperator(6, 200, order=order, filter_options={"width": 8}).double()
    u = torch.randn(2, 260, 6, dtype=torch.float64)
    stream = layer.stream(2)
    parts = [stream.prefill(u[:, :100])] + [stream.step(u[:, t])[:, None] for t in range(100, 260)]
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(parts, dim=1), layer(u), rtol=1e-9, atol=1e-10)


def test_a_masked_operator_is_not_streamed() -> None:
    layer = HyenaOperator(4, 20, frequency_mask=FrequencyMask.lowpass(0.5, leaks_future=True))
    with pytest.raises(ArgumentError, match="looks ahead"):
        layer.stream(1)


def test_generation_is_what_recomputing_gives() -> None:
    model = made("hyena")
    prompt = torch.tensor([0, 1, 2, 3, 3, 1])
    got = list(generate.drawn(model, prompt, 60, temperature=0, top_k=None, seed=0))
    tokens = prompt[None]
    with torch.no_grad():
        for _ in range(60):
            tokens = torch.cat([tokens, model.logits(tokens)[:, -1:].argmax(-1)], dim=1)
    assert got == tokens[0, 6:].tolist()


def test_seeds_temperature_and_top_k() -> None:
    model = made("hyena")
    prompt = torch.tensor([0, 1, 2, 3])

    def tokens(**changes: Any) -> list[int]:
        options: dict[str, Any] = {"temperature": 1.0, "top_k": None, "seed": 5} | changes
        return list(generate.drawn(model, prompt, 40, **options))

    assert tokens() == tokens() != tokens(seed=6)
    assert tokens(top_k=1) == tokens(temperature=0)
    assert set(tokens(temperature=50.0)) == {0, 1, 2, 3}
    logits, generator = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.Generator().manual_seed(0)
    assert {generate.choose(logits, 1.0, 2, generator) for _ in range(200)} == {0, 1}
    share = sum(generate.choose(logits, 1.0, None, generator) == 0 for _ in range(4000)) / 4000
    assert abs(share - torch.softmax(logits, 0)[0].item()) < 0.03
