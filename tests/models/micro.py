"""Every model in a size that takes milliseconds: what `test_models_suite.py` runs on.

A model has at least two: one that reads tokens and one that reads numbers (`vocabulary=0`, `values` of them a position).
`filter_length` is at most 48, so that the suite's longest input, of 60, is longer than the filters.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from longwave import models
from longwave.models import SequenceModel
from longwave.models.hyena import HyenaConfig


def both(config: Any, values: int = 3) -> list[Any]:
    """The config as it is, reading tokens, and one that reads numbers."""
    return [config, dataclasses.replace(config, vocabulary=0, predicted=0, values=values)]


MICRO: dict[str, list[Any]] = {
    "hyena": both(HyenaConfig(d_model=8, layers=2, filter_length=48, d_inner=16, filter_width=8)),
}


def made(name: str, config: Any, dtype: torch.dtype = torch.float64, **options: Any) -> SequenceModel:
    """The model with linear layers ten times as large: as drawn, blocks add a hundredth of what models read, and tests would
    see little else.
    """
    torch.manual_seed(1)
    model: SequenceModel = models.find(name).Model(config, **options).to(dtype)
    with torch.no_grad():
        for module in model.modules():
            if "Linear" in type(module).__name__:
                module.weight.mul_(10)
    return model


def drawn(config: Any, length: int, batch: int = 2, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Inputs as the config reads them: tokens (B, L), or numbers (B, L, values) in `dtype`."""
    chance = torch.Generator().manual_seed(length)
    if config.vocabulary:
        return torch.randint(0, config.vocabulary, (batch, length), generator=chance)
    return torch.randn(batch, length, config.values, generator=chance, dtype=torch.float64).to(dtype)


def changed(config: Any, inputs: torch.Tensor, *positions: int) -> torch.Tensor:
    """`inputs` with something else at the positions."""
    other = inputs.clone()
    for t in positions:
        other[:, t] = (other[:, t] + 1) % config.vocabulary if config.vocabulary else other[:, t] + 1
    return other
