"""Streams of layers, and `longwave generate` on top of a model's; those of models are in `test_models_suite.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from longwave.errors import ArgumentError
from longwave.masks import FrequencyMask
from longwave.models.hyena import HyenaConfig, HyenaLM
from longwave.nn import HyenaOperator
from longwave.train import generate


def made() -> HyenaLM:
    torch.manual_seed(1)
    model = HyenaLM(HyenaConfig(d_model=8, layers=2, filter_length=300, d_inner=16, filter_width=8)).double().eval()
    with torch.no_grad():  # as drawn, blocks add a hundredth of the embedding: a test would see little else
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(10)
    return model


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
    model = made()
    prompt = np.array([0, 1, 2, 3, 3, 1], dtype=np.uint8)
    got = "".join(generate.drawn(model, prompt, 60, temperature=0, top_k=None, seed=0))
    tokens = torch.from_numpy(prompt).long()[None]
    with torch.no_grad():
        for _ in range(60):
            tokens = torch.cat([tokens, model.logits(tokens)[:, -1:].argmax(-1)], dim=1)
    assert got == "".join("ACGT"[i] for i in tokens[0, 6:])


def test_seeds_temperature_and_top_k() -> None:
    model = made()
    prompt = np.array([0, 1, 2, 3], dtype=np.uint8)

    def text(**changes: Any) -> str:
        options: dict[str, Any] = {"temperature": 1.0, "top_k": None, "seed": 5} | changes
        return "".join(generate.drawn(model, prompt, 40, **options))

    assert text() == text() != text(seed=6)
    assert text(top_k=1) == text(temperature=0)
    assert set(text(temperature=50.0)) == set("ACGT")
    logits, generator = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.Generator().manual_seed(0)
    assert {generate.choose(logits, 1.0, 2, generator) for _ in range(200)} == {0, 1}
    share = sum(generate.choose(logits, 1.0, None, generator) == 0 for _ in range(4000)) / 4000
    assert abs(share - torch.softmax(logits, 0)[0].item()) < 0.03
