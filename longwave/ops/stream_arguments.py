"""`StreamArguments`: what streams refuse in the same words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from longwave import dtypes
from longwave.errors import ArgumentError


class StreamArguments:
    """Of a stream over (B, H, T): what it takes, and one sentence for everything else."""

    batch_size: int
    channels: int
    dtype: torch.dtype
    device: torch.device
    max_length: int | None
    max_rollback: int
    _step_shape: torch.Size

    def _check(self, u: Tensor, shape: tuple[str, ...] = ("B", "H", "T")) -> None:
        """That samples are what the stream takes."""
        if not isinstance(u, Tensor):
            raise ArgumentError(f"u is of type {type(u).__name__}; give a torch.Tensor")
        if u.dim() != len(shape) or u.shape[:2] != self._step_shape or 0 in u.shape:
            wanted = (self.batch_size, self.channels, *(shape[2:]))
            raise ArgumentError(f"u has shape {tuple(u.shape)}; this stream takes ({', '.join(map(str, wanted))})")
        for what, mine, given in (("", dtypes.name(self.dtype), dtypes.name(u.dtype)), ("tensors on ", self.device, u.device)):
            if mine != given:
                raise ArgumentError(f"this stream takes {what}{mine}, and u has {given}; convert it with .to()")
        if u.requires_grad and torch.is_grad_enabled():
            raise ArgumentError("u requires a gradient, and a stream gives none; call it under torch.no_grad(), or detach u")

    def _silent(self, lengths: Sequence[int] | Tensor, T: int) -> Tensor:
        """(B, 1, T): what stands before the last lengths[b] samples of row b of a prompt."""
        given = torch.as_tensor(lengths, device=self.device)
        if given.shape != (self.batch_size,) or given.is_floating_point() or bool(((given < 0) | (given > T)).any()):
            raise ArgumentError(f"lengths is {lengths}; give {self.batch_size} integers from 0 to the {T:,} samples of u")
        return torch.arange(T, device=self.device) < (T - given).view(-1, 1, 1)

    def _refuse_beyond(self, position: int, more: int) -> None:
        if self.max_length is not None and position > self.max_length:
            raise ArgumentError(
                f"{more:,} samples more would be {position:,} in all, and the stream was opened for "
                f"max_length={self.max_length:,}; open a longer one, or prefill again"
            )

    def _check_rollback(self, n: int, most: int, position: int) -> None:
        check_count("n", n, 0)
        if n > most:
            raise ArgumentError(
                f"a rollback of {n:,} samples was asked for, and {max(0, most):,} are allowed (max_rollback="
                f"{self.max_rollback:,}, {position:,} taken); give the stream a larger max_rollback, or restore a snapshot"
            )

    def _row_numbers(self, rows: Tensor) -> Tensor:
        """Rows of the batch, int64 on the stream's device."""
        if not isinstance(rows, Tensor) or rows.dtype not in (torch.int64, torch.int32) or rows.shape != (self.batch_size,):
            raise ArgumentError(f"rows must be an integer tensor of shape ({self.batch_size},); give one row number a row")
        if bool(((rows < 0) | (rows >= self.batch_size)).any()):
            raise ArgumentError(f"rows has numbers outside of 0 to {self.batch_size - 1}; give rows of the batch")
        return rows.to(self.device, torch.int64)


def check_count(name: str, value: int, least: int) -> None:
    """Raises ArgumentError where `value` is no integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(f"{name} is {value!r}; give an integer from {least} on")
