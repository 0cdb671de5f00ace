"""Models: one file each, with `Config`, `PRESETS` and `Model`; found by being here.

`Config` is a frozen dataclass of numbers and strings, with these among them: `d_model`, `layers`, `filter_length` (taps, or
the context that a model without them is made for), `vocabulary` (tokens that can be read; 0 where inputs are numbers),
`predicted` (the first so many tokens can be predicted) and `values` (numbers a position where `vocabulary` is 0).
`PRESETS` maps a name, unique over all models, to a `Config`; `Model(config, backend=..., conv=...)` is a `SequenceModel`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from longwave.errors import ArgumentError, UnsupportedError
from longwave.nn.decode import SequenceStream
from longwave.nn.explicit_filters import Zoom
from longwave.nn.fsmn import WindowStream
from longwave.nn.inputs import Inputs
from longwave.nn.long_conv import LongConvOp
from longwave.nn.residual import CHECKPOINT, ResidualBlock
from longwave.nn.short_conv import ShortConvOp
from longwave.ops.long_conv import long_conv
from longwave.ops.short_conv import short_conv


class SequenceModel(nn.Module):
    """What every `Model` here is: inputs to hidden states (B, L, d_model), one for every position.

    Inputs are tokens (B, L), or (B, L, values) numbers, as the config says. With `cu_seqlens` they are packed documents
    (1, total), none of which sees another.

    Args:
        config: the sizes.
        backend: the convolutions' backend; `auto` chooses.
        conv: the long convolution to call, with `longwave.long_conv`'s signature.
        short: the short convolution to call, where the model has some, with `longwave.short_conv`'s signature.
        split: whether inputs are spans of longer sequences, which both operators put together: filters then have
            `filter_length` taps, however short a span is.
        activation_checkpointing: compute each block a second time in the backward pass instead of keeping its inside.

    Attributes:
        config: the sizes.
        inputs, blocks, norm: what turns inputs into vectors, residual blocks (`nn.decode.StreamedBlock`) and what follows the
            last one. A causal model that is not made so writes its own `stream`.
        causal: whether a hidden state depends on inputs up to its own position alone, so that it can predict the next one.
        packs: whether it takes packed documents; what does not refuses `cu_seqlens`.
        splits: whether it takes `longwave.distributed.operators`, and then reads spans of sequences that are split over ranks.
        follows: whether its filters are as long as the input, whatever `filter_length` is; with `split` they are not.
        short, split: as they were given.
        max_length: positions of the longest input, or None where any goes.
        places: parts of a position, pixels of a frame, that a hidden state is of: d_model / places numbers each, one part's
            after the other's.
        activation_checkpointing: as it was given; it may be changed.
    """

    config: Any
    inputs: Inputs
    blocks: nn.ModuleList
    norm: nn.Module
    causal: bool = True
    packs: bool = True
    splits: bool = False
    follows: bool = False
    max_length: int | None = None
    places: int = 1
    activation_checkpointing: bool

    def __init__(
        self,
        config: Any,
        *,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
        short: ShortConvOp = short_conv,
        split: bool = False,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if split and not self.splits:
            raise UnsupportedError(f"{type(self).__name__} does not read spans of sequences; give it whole ones")
        self.config, self.activation_checkpointing = config, activation_checkpointing
        self.short, self.split = short, split
        self.inputs = self.reader(config)
        self.build(config, backend, conv)

    def reader(self, config: Any) -> Inputs:
        """What is to become `inputs`."""
        return Inputs(config.d_model, vocabulary=config.vocabulary, values=config.values)

    def build(self, config: Any, backend: str, conv: LongConvOp) -> None:
        """Make `blocks` and `norm`: the part that every model writes itself."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Final hidden states.

        Args:
            inputs: tokens (B, L), int64 or int32, 0 to vocabulary - 1; or numbers (B, L, values).
            cu_seqlens: (S+1,) int32, as in `longwave.long_conv`: inputs are (1, total), and what is found in one of
                the S documents does not depend on another.

        Returns:
            (B, L, d_model), in the parameters' dtype (float32 under autocast, where the last norm runs).

        Raises:
            ArgumentError: `inputs` are not what the config says, or `cu_seqlens` does not fit them.
        """
        if cu_seqlens is not None and not self.packs:
            raise ArgumentError(
                f"{type(self).__name__} does not take packed documents (cu_seqlens); give every document a row of its own"
            )
        hidden: Tensor = self.norm(self.through_blocks(self.inputs(inputs), cu_seqlens))
        return hidden

    def through_blocks(self, x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        """Every block after the other, (B, L, d_model) to the same; computed twice with `activation_checkpointing`."""
        for block in self.blocks:
            if not (self.activation_checkpointing and torch.is_grad_enabled()):
                x = block(x, cu_seqlens)
            elif isinstance(block, ResidualBlock):
                x = block.checkpointed(x, cu_seqlens)
            else:
                x = checkpoint(block, x, cu_seqlens, **CHECKPOINT)
        return x

    def head_weight(self) -> Tensor:
        """(predicted, d_model), float32: the embedding's rows of the tokens that can be predicted, which turn hidden states
        into logits; none where inputs are numbers.
        """
        return self.inputs.weight[: self.config.predicted]

    def logits(self, inputs: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """(B, L, predicted) logits of the token after each position (of the masked one there, if the model is not causal);
        `forward` says what may be asked.
        """
        return F.linear(self(inputs, cu_seqlens=cu_seqlens), self.head_weight())

    def zoomed(self, tensors: Mapping[str, Tensor], zoom: Zoom) -> dict[str, Tensor]:
        """What the tensors of such a model of images of one size are for this one, of images of another.

        Raises:
            UnsupportedError: nothing says what its filters are in two dimensions.
        """
        raise UnsupportedError(
            f"{type(self).__name__} does not take what was learnt on images of {zoom.side}² pixels to {zoom.new_side}²; begin "
            "with weights for images of that size, or with a model of explicit filters, as longconv"
        )

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


class WindowedModel(SequenceModel):
    """A model whose mixers say their `reach`: a hidden state depends on a window of inputs and on nothing else.

    Attributes:
        keep: layers that initialise themselves.
    """

    keep: tuple[type[nn.Module], ...] = ()

    def build(self, config: Any, backend: str, conv: LongConvOp) -> None:
        self.blocks = nn.ModuleList(
            ResidualBlock(config.d_model, self.mixer(config, backend, conv), norm=False) for _ in range(config.layers)
        )
        self.causal = self.latency == 0
        self.norm = self.last_norm(config)
        initialise(self, keep=self.keep)

    def mixer(self, config: Any, backend: str, conv: LongConvOp) -> nn.Module:
        """What a block is."""
        raise NotImplementedError

    def last_norm(self, config: Any) -> nn.Module:
        """What is to become `norm`."""
        return nn.LayerNorm(config.d_model)

    @property
    def reach(self) -> tuple[int, int]:
        """Positions before its own, and after it, that a hidden state depends on."""
        reaches = [cast(Any, block).mixer.reach for block in self.blocks]
        return sum(back for back, _ in reaches), sum(ahead for _, ahead in reaches)

    @property
    def latency(self) -> int:
        """Positions after its own that a hidden state depends on."""
        return self.reach[1]

    def delayed_stream(self) -> WindowStream:
        """The model for inputs that come some at a time, with results `latency` positions late: `extend` and `finish`."""
        back, ahead = self.reach
        return WindowStream(self, back=back, ahead=ahead)


KINDS: dict[str, tuple[Any, str]] = {
    "int": (int, "an integer"),
    "float": ((int, float), "a number"),
    "bool": (bool, "True or False"),
    "str": (str, "text"),
}


def check_config(config: Any, *sizes: str) -> None:
    """Hold a config to the types of its fields, and the sizes that all have, with `sizes`, to at least 1.

    Raises:
        ArgumentError: a field is of another type or out of range.
    """
    kind = type(config).__name__
    for field in dataclasses.fields(config):
        value, (allowed, words) = getattr(config, field.name), KINDS[cast(str, field.type)]
        if not isinstance(value, allowed) or (isinstance(value, bool) and field.type != "bool"):
            raise ArgumentError(f"{kind}.{field.name} is {value!r}; give {words}")
    for name in ("d_model", "layers", "filter_length", *sizes):  # the layers check the rest
        if getattr(config, name) < 1:
            raise ArgumentError(f"{kind}.{name} is {getattr(config, name)}; give at least 1")
    if not 0 <= config.predicted <= config.vocabulary:
        raise ArgumentError(f"{kind} predicts {config.predicted} of {config.vocabulary} tokens; predict at most all")


def filter_options(config: Any) -> dict[str, Any]:
    """The fields `filter_*` of a config, but the length: keywords of `nn.HyenaFilter`."""
    fields = dataclasses.asdict(config)
    del fields["filter_length"]
    return {name.removeprefix("filter_"): value for name, value in fields.items() if name.startswith("filter_")}


def initialise(model: SequenceModel, *, keep: tuple[type[nn.Module], ...] = ()) -> None:
    """Linear maps and embeddings N(0, 0.02), biases zero; what adds to the residual stream (`out_proj`, `mlp_out`) smaller by
    sqrt(2 layers), as in GPT-2. Layers of the types `keep`, and what is inside them, stay as they were made.
    """
    kept = {id(layer) for module in model.modules() if isinstance(module, keep) for layer in module.modules()}
    residual = (2 * model.config.layers) ** -0.5
    for name, module in model.named_modules():
        embeds = isinstance(module, Inputs) and not module.values
        if id(module) in kept or not (isinstance(module, nn.Linear) or embeds):
            continue
        scale = residual if name.endswith(("out_proj", "mlp_out")) else 1.0
        nn.init.normal_(cast(Tensor, module.weight), std=0.02 * scale)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


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
    """Whether the model `name` with this config is causal: never if its class is not, else what the model says of itself, made
    on the meta device.
    """
    model: Any = find(name).Model
    if model.causal:
        with torch.device("meta"):
            model = model(config)
    return bool(model.causal)
