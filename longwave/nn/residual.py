"""`ResidualBlock`: a sequence mixer and an MLP, each behind a norm and beside a shortcut."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from longwave.nn.decode import PART

# Nothing here is random, so that there is no generator to save and restore.
CHECKPOINT: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}


class ResidualBlock(nn.Module):
    """y = x + mixer(norm(x)), and then y + MLP(norm(y)), with GELU between the MLP's two linear maps.

    Args:
        d_model: channels.
        mixer: what mixes along the sequence: (B, L, d_model) and `cu_seqlens` to (B, L, d_model).
        d_inner: the MLP's width; without it there is none, and y is the result.
        norm: whether a norm stands before the mixer.
    """

    def __init__(self, d_model: int, mixer: nn.Module, *, d_inner: int | None = None, norm: bool = True) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(d_model) if norm else nn.Identity()
        self.mixer = mixer
        self.has_mlp = d_inner is not None
        if d_inner is None:
            return
        self.mlp_norm = nn.LayerNorm(d_model)
        self.mlp_in = nn.Linear(d_model, d_inner)
        self.mlp_out = nn.Linear(d_inner, d_model)

    def forward(self, x: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        """(B, L, d_model) to the same; with `cu_seqlens` the documents of (1, total, d_model) apart."""
        return self.feed(self.mix(x, cu_seqlens))

    def mix(self, x: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        """Along the sequence: position by position it would be wrong."""
        mixed: Tensor = x + self.mixer(self.mixer_norm(x), cu_seqlens=cu_seqlens)
        return mixed

    def feed(self, x: Tensor) -> Tensor:
        """Position by position."""
        if not self.has_mlp:
            return x
        fed: Tensor = x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh"))
        return fed

    def checkpointed(self, x: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        """`forward`, keeping x and what the mixer makes of it; the MLP, whose inside is widest, in parts of the sequence."""
        x = checkpoint(self.mix, x, cu_seqlens, **CHECKPOINT)
        if not self.has_mlp:
            return x
        return torch.cat([checkpoint(self.feed, part, **CHECKPOINT) for part in x.split(PART, dim=1)], dim=1)
