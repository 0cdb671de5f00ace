"""`HyenaStream`: a `HyenaOperator` whose input comes in pieces, for generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave.errors import ArgumentError
from longwave.ops.stream import Stream, StreamState

if TYPE_CHECKING:
    from longwave.nn.hyena import HyenaOperator

# Positions projected at a time: the short convolution's input is then a small part of what the long ones read.
PART = 2**16


class HyenaStream:
    """What `HyenaOperator.stream` opens: the short convolution and every long one as a `longwave.Stream`, with the layer's
    weights as they were then; the projections are the layer's own. For inference, without gradients."""

    def __init__(
        self, layer: HyenaOperator, batch_size: int, max_length: int | None, max_rollback: int, backend: str | None
    ) -> None:
        if layer.frequency_mask is not None:
            raise ArgumentError(
                "a filter behind a frequency mask looks ahead and cannot be streamed; set the layer's frequency_mask to None"
            )
        self.layer = layer
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "dtype": layer.in_proj.weight.dtype,
            "max_length": max_length,
            "max_rollback": max_rollback,
            "backend": layer.backend if backend is None else backend,
        }
        with torch.no_grad():
            taps = min(layer.filter.max_length, max_length or layer.filter.max_length)
            filters = layer.filter(taps).split(layer.d_model)
            self.short = Stream(layer.short.weight.flip(-1), **options)
            self.long = [Stream(k, D, **options) for k, D in zip(filters, layer.D, strict=True)]

    @property
    def streams(self) -> list[Stream]:
        """The short convolution's, then those of the long ones."""
        return [self.short, *self.long]

    @torch.no_grad()
    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """Begin anew with a prompt (B, T, d_model), to as many results; `lengths` as in `Stream.prefill`.

        Raises ArgumentError as `Stream.prefill` does.
        """
        T = u.shape[1]
        projected = u.new_empty(u.shape[0], self.short.channels, T, dtype=self.short.dtype)
        for begin in range(0, T, PART):
            part = self.layer.in_proj(u[:, begin : begin + PART]).transpose(1, 2)
            if lengths is not None:
                given = torch.as_tensor(lengths, device=u.device).view(-1, 1, 1)
                at = torch.arange(begin, begin + part.shape[-1], device=u.device)
                part = part.masked_fill(at < T - given, 0)
            taken = self.short.extend(part) if begin else self.short.prefill(part)
            projected[..., begin : begin + PART] = taken
        return self._gated(projected, lambda stream, z: stream.prefill(z, lengths))

    @torch.no_grad()
    def extend(self, u: Tensor) -> Tensor:
        """The next positions, (B, T, d_model), to as many results. Raises ArgumentError as `Stream.extend` does."""
        projected = self.short.extend(self.layer.in_proj(u).transpose(1, 2))
        return self._gated(projected, lambda stream, z: stream.extend(z))

    @torch.no_grad()
    def step(self, u_t: Tensor) -> Tensor:
        """The next position, (B, d_model), to its result. Raises ArgumentError as `Stream.step` does."""
        return self._gated(self.short.step(self.layer.in_proj(u_t)), lambda stream, z: stream.step(z))

    def snapshot(self) -> list[StreamState]:
        """The state of every stream, for `restore`."""
        return [stream.snapshot() for stream in self.streams]

    def restore(self, states: Sequence[StreamState]) -> None:
        """Stand where `snapshot` was taken. Raises ArgumentError as `Stream.restore` does."""
        if len(states) != len(self.streams):
            raise ArgumentError(
                f"{len(states)} states were given for {len(self.streams)} streams; give what snapshot() returned"
            )
        for stream, state in zip(self.streams, states, strict=True):
            stream.restore(state)

    def rollback(self, n: int) -> None:
        """Take the last n positions back. Raises ArgumentError as `Stream.rollback` does."""
        for stream in self.streams:
            stream.rollback(n)

    def reorder(self, rows: Tensor) -> None:
        """As `Stream.reorder`."""
        for stream in self.streams:
            stream.reorder(rows)

    def _gated(self, projected: Tensor, run: Callable[[Stream, Tensor], Tensor]) -> Tensor:
        """(B, (order + 1) d_model, T), or without T, as the short convolution gives them but for its bias."""
        layer, whole = self.layer, projected.dim() == 3
        if layer.short.bias is not None:
            projected += layer.short.bias.unsqueeze(-1) if whole else layer.short.bias
        z, *gates = projected.split(layer.d_model, dim=1)
        for stream, gate in zip(self.long, gates, strict=False):
            z = run(stream, gate * z)
        z = z * gates[-1]
        return F.linear(z.transpose(1, 2) if whole else z, layer.out_proj.weight, layer.out_proj.bias)
