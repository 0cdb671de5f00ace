"""`StreamState`: where a stream stands, to be kept, moved and taken up again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from longwave.errors import ArgumentError


@dataclass(frozen=True)
class StreamState:
    """Where a stream stands: all that later outputs depend on. Plain tensors and values, on any device.

    Attributes:
        inputs: (B, H, kept), the last inputs, K - 1 + max_rollback of them or as many as there were; in arithmetic precision.
        position: samples that the stream has taken.
        filter: what names the filter, its D and the dtype of the stream.

    Raises:
        ArgumentError: `from_tensors` was given something else.
    """

    inputs: Tensor
    position: int
    filter: str

    def to(self, device: torch.device | str) -> StreamState:
        """The same on another device."""
        return replace(self, inputs=self.inputs.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """As tensors alone, for safetensors or `torch.save`."""
        return {
            "inputs": self.inputs,
            "position": torch.tensor(self.position),
            "filter": torch.tensor(list(self.filter.encode()), dtype=torch.uint8),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> StreamState:
        """What `tensors` made tensors of. Raises ArgumentError for anything else."""
        try:
            name = bytes(tensors["filter"].tolist()).decode()
            return cls(tensors["inputs"], int(tensors["position"]), name)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(
                f"these are not the tensors of a stream's state ({error!r}); give what StreamState.tensors() returned"
            ) from None
