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
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from longwave.errors import ArgumentError


class SequenceModel(nn.Module):
    """What every `Model` here is: inputs to hidden states (B, L, d_model), one for every position.

    Inputs are tokens (B, L), or (B, L, values) numbers, as the config says. With `cu_seqlens` they are packed documents
    (1, total), none of which sees another.

    Attributes:
        config: the sizes it was made with.
        causal: whether a hidden state depends on inputs up to its own position alone, so that it can predict the next one.
        activation_checkpointing: compute each block a second time in the backward pass instead of keeping its inside.
    """

    config: Any
    causal: bool = True
    activation_checkpointing: bool = False

    def head_weight(self) -> Tensor:
        """(V, d), float32: the rows that turn hidden states into logits of the tokens that can be predicted."""
        raise NotImplementedError

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> SequenceStream:
        """The model for tokens that come one by one; `longwave.Stream` says what the options mean."""
        raise NotImplementedError


class SequenceStream:
    """A `SequenceModel` for generation, without gradients: any mixture of the calls gives what one forward of all tokens gives.

    Hidden states are (B, L, d) for tokens (B, L), and (B, d) for the tokens (B,) of one position. Raises ArgumentError as
    `longwave.Stream` does.
    """

    def prefill(self, tokens: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """Begin anew with a prompt; with `lengths` row b's own tokens are its last lengths[b] ones."""
        raise NotImplementedError

    def extend(self, tokens: Tensor) -> Tensor:
        """The next tokens."""
        raise NotImplementedError

    def step(self, tokens: Tensor) -> Tensor:
        """The next token of every row."""
        raise NotImplementedError

    def rollback(self, n: int) -> None:
        """Take the last n tokens back."""
        raise NotImplementedError

    def reorder(self, rows: Tensor) -> None:
        """Let row b go on from where row rows[b] stands."""
        raise NotImplementedError


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


def is_causal(name: str, config: Any) -> bool:
    """Whether the model `name` with this config is causal: as the config says, where it has a field of that name."""
    causal: bool = getattr(config, "causal", find(name).Model.causal)
    return causal
