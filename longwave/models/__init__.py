"""Models: one file each, with `Config`, `PRESETS` and `Model`; found by being here.

`Config` is a frozen dataclass of numbers and strings, with these among them: `d_model`, `layers`, `filter_length` (taps, or
the context that a model without them is made for), `vocabulary` (tokens that can be read; 0 where inputs are numbers),
`predicted` (the first so many tokens can be predicted) and `values` (numbers a position where `vocabulary` is 0).
`PRESETS` maps a name, unique over all models, to a `Config`; `Model(config, backend=..., conv=...)` is a `SequenceModel`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from longwave.errors import ArgumentError
from longwave.nn.decode import SequenceStream
from longwave.nn.inputs import Inputs


class SequenceModel(nn.Module):
    """What every `Model` here is: inputs to hidden states (B, L, d_model), one for every position.

    Inputs are tokens (B, L), or (B, L, values) numbers, as the config says. With `cu_seqlens` they are packed documents
    (1, total), none of which sees another.

    Attributes:
        inputs, blocks, norm: what turns inputs into vectors, residual blocks (`nn.decode.StreamedBlock`) and what follows the
            last one. A causal model that is not made so writes its own `stream`.
        causal: whether a hidden state depends on inputs up to its own position alone, so that it can predict the next one.
        packs: whether it takes packed documents; what does not refuses `cu_seqlens`.
        activation_checkpointing: compute each block a second time in the backward pass instead of keeping its inside.
    """

    inputs: Inputs
    blocks: nn.ModuleList
    norm: nn.Module
    causal: bool = True
    packs: bool = True
    activation_checkpointing: bool = False

    def head_weight(self) -> Tensor:
        """(V, d), float32: the rows that turn hidden states into logits of the tokens that can be predicted."""
        raise NotImplementedError

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> SequenceStream:
        """The model for inputs that come one by one; `longwave.Stream` says what the options mean.

        Raises:
            ArgumentError: the model looks ahead, or a size is out of range.
        """
        if not self.causal:
            raise ArgumentError(f"{type(self).__name__} reads both ways and cannot be streamed; call it on whole inputs")
        return SequenceStream(
            self.inputs, self.blocks, self.norm, batch_size, max_length=max_length, max_rollback=max_rollback, backend=backend
        )


@functools.cache
def available() -> dict[str, ModuleType]:
    """Model name -> its module, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def find(name: str) -> ModuleType:
    """The module of the model `name`.

    Raises:
        ArgumentError: there is none of that name.
    """
    if name not in available():
        raise ArgumentError(f"there is no model {name!r}; this version has {', '.join(available())}")
    return available()[name]


def presets() -> dict[str, str]:
    """Preset -> the name of its model, in the models' order."""
    return {preset: name for name, module in available().items() for preset in module.PRESETS}


def find_preset(preset: str) -> tuple[str, Any]:
    """The name of the preset's model, and its config.

    Raises:
        ArgumentError: there is none of that name.
    """
    if preset not in presets():
        raise ArgumentError(f"there is no preset {preset!r}; choose one of {', '.join(presets())}")
    name = presets()[preset]
    return name, find(name).PRESETS[preset]
