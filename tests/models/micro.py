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
from longwave.models.convssm import ConvSSMConfig
from longwave.models.dfsmn import DFSMNConfig
from longwave.models.flowstate import FlowStateConfig
from longwave.models.gated_fsmn import GatedFsmnConfig
from longwave.models.h3 import H3Config
from longwave.models.hyena import HyenaConfig
from longwave.models.hyperzzw import HyperZZWConfig
from longwave.models.longconv import LongConvConfig
from longwave.models.m2_bert import M2BertConfig
from longwave.models.s4d import S4DConfig
from longwave.models.s5 import S5Config
from longwave.models.sashimi import SashimiConfig
from longwave.models.sgconv import SGConvConfig
from longwave.models.toeplitz import ToeplitzConfig


def both(config: Any, values: int = 3) -> list[Any]:
    """The config as it is, reading tokens, and one that reads numbers."""
    return [config, dataclasses.replace(config, vocabulary=0, predicted=0, values=values)]


MICRO: dict[str, list[Any]] = {
    "convssm": both(
        ConvSSMConfig(
            d_model=64,
            layers=2,
            filter_length=48,
            vocabulary=5,
            predicted=4,
            values=0,
            side=4,
            pool=2,
            channels=4,
            state=4,
            groups=2,
        ),
        values=16,
    ),
    "dfsmn": both(
        DFSMNConfig(
            d_model=8, layers=2, filter_length=48, hidden=16, vocabulary=5, predicted=4, values=0, back=20, ahead=0, stride=1
        )
    ),
    "flowstate": both(
        FlowStateConfig(d_model=8, layers=2, filter_length=48, vocabulary=5, predicted=4, values=0, state=4, hippo_blocks=1)
    ),
    "gated_fsmn": both(
        GatedFsmnConfig(
            d_model=8, layers=2, filter_length=48, vocabulary=5, predicted=4, values=0, inner=6, back=8, ahead=0, depth=2
        )
    ),
    "h3": [
        *both(H3Config(d_model=8, layers=2, filter_length=48, d_inner=16, vocabulary=5, predicted=4, state=4)),
        H3Config(d_model=8, layers=2, filter_length=48, d_inner=16, vocabulary=5, predicted=4, state=4, head_dim=4),
    ],
    "hyena": both(HyenaConfig(d_model=8, layers=2, filter_length=48, d_inner=16, filter_width=8)),
    "s4d": [
        *both(S4DConfig(d_model=8, layers=2, filter_length=48, vocabulary=5, predicted=4, state=4)),
        S4DConfig(d_model=8, layers=2, filter_length=48, vocabulary=5, predicted=4, state=4, two_sided=True),
    ],
    "s5": both(S5Config(d_model=8, layers=2, filter_length=48, vocabulary=5, predicted=4, values=0, state=4)),
    "sashimi": both(
        SashimiConfig(d_model=8, layers=1, filter_length=48, vocabulary=5, predicted=4, poolings=2, pool=2, state=4)
    ),
    "hyperzzw": both(HyperZZWConfig(d_model=8, layers=2, filter_length=47, d_inner=16, network_width=6, network_frequency=1.0)),
    "longconv": [
        *both(LongConvConfig(d_model=8, layers=2, filter_length=48, squash=0.002, smooth=1)),
        LongConvConfig(d_model=8, layers=2, filter_length=48, heads=2, two_sided=True),
        LongConvConfig(d_model=8, layers=2, filter_length=48, two_sided=True, butterfly=2),
    ],
    "m2_bert": [
        *both(M2BertConfig(d_model=8, layers=2, filter_length=48, d_inner=16, blocks=2, filter_width=8)),
        M2BertConfig(d_model=8, layers=1, filter_length=32, d_inner=16, blocks=2, factors=2, filter_width=8, circular=True),
    ],
    "sgconv": [
        *both(SGConvConfig(d_model=8, layers=2, filter_length=48, scale_taps=4)),
        SGConvConfig(d_model=8, layers=2, filter_length=48, scale_taps=3, slow_decay=1.0, fast_decay=3.0, two_sided=True),
    ],
    "toeplitz": [
        *both(ToeplitzConfig(d_model=8, layers=2, filter_length=48, d_inner=16, heads=2, features=4)),
        ToeplitzConfig(d_model=8, layers=2, filter_length=48, d_inner=16, heads=2, features=4, two_sided=True),
    ],
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
