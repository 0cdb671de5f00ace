"""Streams of layers and of whole models, for generation: what they share, whatever they mix a sequence with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from longwave.errors import ArgumentError
from longwave.nn.inputs import Inputs

# Positions taken at a time where memory matters: the inside of what goes position by position is then a small part of it.
PART = 2**16
# A prompt is read in parts of at least so many times the longest filter: each part meets the filter's length of history again.
FILTERS_A_PART = 4


class Streamed(Protocol):
    """What `longwave.Stream`, a recurrence, a layer and a model have in common where their input comes in pieces."""

    @property
    def position(self) -> int:
        """Positions taken so far."""
        ...

    @property
    def taps(self) -> int:
        """Of the longest filter; 0 where nothing is convolved, as in a recurrence."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...

    def rollback(self, n: int) -> None:
        """Take the last n positions back."""
        ...

    def reorder(self, rows: Tensor) -> None:
        """Let row b go on from where row rows[b] stands."""
        ...

    def snapshot(self) -> Any:
        """The state, for `restore`."""
        ...

    def restore(self, state: Any) -> None:
        """Stand where `snapshot` was taken."""
        ...


class LayerStream:
    """A layer whose input comes in pieces, with its weights as they were when it was opened; for inference, without gradients.

    Any mixture of `prefill`, `extend` and `step` gives what the layer's `forward` gives of the whole. A layer's own class makes
    `streams` and writes these three.

    Attributes:
        streams: what holds state, each at the same position: at least one.

    Raises:
        ArgumentError: by every method, as those of `longwave.Stream`.
    """

    streams: Sequence[Streamed]

    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """Begin anew with a prompt (B, T, d_model), to as many results; `lengths` as in `Stream.prefill`."""
        raise NotImplementedError

    def extend(self, u: Tensor) -> Tensor:
        """The next positions, (B, T, d_model), to as many results."""
        raise NotImplementedError

    def step(self, u_t: Tensor) -> Tensor:
        """The next position, (B, d_model), to its result."""
        raise NotImplementedError

    @property
    def position(self) -> int:
        """Positions taken so far."""
        return self.streams[0].position

    @property
    def taps(self) -> int:
        """Of the longest filter."""
        return max(stream.taps for stream in self.streams)

    @property
    def nbytes(self) -> int:
        """Bytes held beside the layer's parameters."""
        return sum(stream.nbytes for stream in self.streams)

    def rollback(self, n: int) -> None:
        """Take the last n positions back."""
        for stream in self.streams:
            stream.rollback(n)

    def reorder(self, rows: Tensor) -> None:
        """Let row b go on from where row rows[b] stands."""
        for stream in self.streams:
            stream.reorder(rows)

    def snapshot(self) -> list[Any]:
        """The state of every stream, for `restore`."""
        return [stream.snapshot() for stream in self.streams]

    def restore(self, states: Sequence[Any]) -> None:
        """Stand where `snapshot` was taken."""
        if not isinstance(states, Sequence) or len(states) != len(self.streams):
            given = len(states) if isinstance(states, Sequence) else type(states).__name__
            raise ArgumentError(f"{given} states were given for {len(self.streams)} streams; give what snapshot() returned")
        for stream, state in zip(self.streams, states, strict=True):
            stream.restore(state)


class StreamedBlock(Protocol):
    """A residual block that `SequenceStream` can run: x + mixer(mixer_norm(x)), and then `feed` of that."""

    mixer_norm: nn.Module
    mixer: Any  # its `stream` opens a LayerStream, with the arguments of `SequenceModel.stream`

    def feed(self, x: Tensor) -> Tensor:
        """Position by position, (…, d_model), with its residual."""
        ...


class SequenceStream(LayerStream):
    """A model for generation, without gradients: any mixture of the calls gives what one forward of all inputs gives.

    Inputs are tokens (B, L), or numbers (B, L, values); hidden states are (B, L, d_model). `step` takes (B,) or (B, values),
    and gives (B, d_model).

    Args:
        inputs, blocks, norm: of the model.
        batch_size, max_length, max_rollback, backend: as in `longwave.Stream`; backend None is that of the layers.
    """

    def __init__(
        self,
        inputs: Inputs,
        blocks: Iterable[nn.Module],
        norm: nn.Module,
        batch_size: int,
        *,
        max_length: int | None = None,
        max_rollback: int = 0,
        backend: str | None = None,
    ) -> None:
        self.inputs, self.norm = inputs, norm
        self.blocks = [cast(StreamedBlock, block) for block in blocks]
        self.streams: list[LayerStream] = [
            block.mixer.stream(batch_size, max_length=max_length, max_rollback=max_rollback, backend=backend)
            for block in self.blocks
        ]

    @torch.no_grad()
    def prefill(self, inputs: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """Begin anew with a prompt; with `lengths` row b's own inputs are its last lengths[b] ones.

        A prompt much longer than the filters goes through the whole model in parts: beside the hidden states and what streams
        hold, memory does not grow with it.
        """
        L = inputs.shape[1]
        size = max(PART, FILTERS_A_PART * self.taps)
        if lengths is not None or size >= L:
            return self._run(self.inputs(inputs), lambda mixer, x: mixer.prefill(x, lengths))
        hidden = self.prefill(inputs[:, :size])
        whole = hidden.new_empty(hidden.shape[0], L, hidden.shape[2])
        whole[:, :size] = hidden
        for begin in range(size, L, size):
            whole[:, begin : begin + size] = self.extend(inputs[:, begin : begin + size])
        return whole

    @torch.no_grad()
    def extend(self, inputs: Tensor) -> Tensor:
        """The next inputs."""
        return self._run(self.inputs(inputs), lambda mixer, x: mixer.extend(x))

    @torch.no_grad()
    def step(self, inputs: Tensor) -> Tensor:
        """The next input of every row."""
        return self._run(self.inputs(inputs.unsqueeze(1)).squeeze(1), lambda mixer, x: mixer.step(x))

    def _run(self, x: Tensor, mix: Callable[[LayerStream, Tensor], Tensor]) -> Tensor:
        for block, mixer in zip(self.blocks, self.streams, strict=True):
            x = x + mix(mixer, block.mixer_norm(x))
            x = torch.cat([block.feed(part) for part in x.split(PART, dim=1)], dim=1) if x.dim() == 3 else block.feed(x)
        hidden: Tensor = self.norm(x)
        return hidden
