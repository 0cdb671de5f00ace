"""AdamW with the groups a long-convolution model wants, and the learning rate of a step."""

from __future__ import annotations

import math

import torch
from torch import nn

from longwave.nn import HyenaFilter

FLOOR = 0.02  # the cosine ends at this share of the peak


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """The rate of step `step` (0 is the first): linear over `warmup` steps to `peak`, then a cosine to `FLOOR` ·
    peak.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(steps - 1 - warmup, 1)
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: matrices that decay, and what does not: norms, biases, `D`, embeddings, short filters and filter
    networks.

    An implicit filter's weights set its frequencies, not its size, so that decay would smooth the filter (HyenaDNA
    trains them without decay too).
    """
    exempt: set[int] = set()
    for module in model.modules():
        if isinstance(module, HyenaFilter):
            exempt |= {id(p) for p in module.parameters()}
        elif not isinstance(module, nn.Linear):
            exempt |= {id(p) for p in module.parameters(recurse=False)}
    trained = [p for p in model.parameters() if p.requires_grad]
    decays = [p for p in trained if id(p) not in exempt and p.ndim >= 2]
    decaying = {id(p) for p in decays}
    return [
        {"params": decays, "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in decaying], "weight_decay": 0.0},
    ]


def make_optimizer(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with betas (0.9, 0.98) over `parameter_groups`; the loop sets the rate of every step."""
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=(0.9, 0.98))
