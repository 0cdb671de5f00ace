"""AdamW with the groups a long-convolution model wants, and the learning rate of a step."""

from __future__ import annotations

import fnmatch
import math
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

FLOOR = 0.02  # the cosine ends at this share of the peak


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """The rate of step `step` (0 is the first): linear over `warmup` steps to `peak`, then a cosine to `FLOOR` ·
    peak.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(steps - 1 - warmup, 1)
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups of parameters with their `weight_decay` and their `lr_scale`, the factor of the learning rate.

    Matrices of linear layers decay; norms, biases, `D`, embeddings and short filters do not. A layer says otherwise in its
    class's `optimizer_options`: a name of its parameters, perhaps with `*`, to `{"lr_scale": ..., "weight_decay": ...}`, either
    of them; an inner layer's word counts before an outer one's.
    """
    said: dict[int, dict[str, float]] = {}
    usual: dict[int, float] = {}
    for module in model.modules():
        decays = weight_decay if isinstance(module, nn.Linear) else 0.0
        for parameter in module.parameters(recurse=False):  # one that two layers share decays if both let it
            decay = decays if parameter.ndim >= 2 else 0.0
            usual[id(parameter)] = min(decay, usual.get(id(parameter), decay))
        options: dict[str, dict[str, float]] = getattr(module, "optimizer_options", {})
        for pattern, values in options.items():
            for name, parameter in module.named_parameters():
                if fnmatch.fnmatchcase(name, pattern):
                    said[id(parameter)] = {**said.get(id(parameter), {}), **values}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            options_of = {"weight_decay": usual[id(parameter)], "lr_scale": 1.0, **said.get(id(parameter), {})}
            groups.setdefault((options_of["weight_decay"], options_of["lr_scale"]), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), parameters in sorted(groups.items(), key=lambda group: group[0], reverse=True)
    ]


def make_optimizer(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with betas (0.9, 0.98) over `parameter_groups`; `set_rate` sets the rate of every step."""
    groups = parameter_groups(model, weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), foreach=all_at_once(model))


def all_at_once(model: nn.Module) -> bool | None:
    """What PyTorch's `foreach` should be: an operation on a sharded tensor costs more in Python than in arithmetic."""
    return True if any(isinstance(parameter, DTensor) for parameter in model.parameters()) else None


def clip_gradient(model: nn.Module, most: float) -> float:
    """The norm of the gradient of all parameters, wherever their shards are; a larger one than `most` is scaled down to it."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), most, foreach=all_at_once(model))
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Have every group learn at `rate` times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
