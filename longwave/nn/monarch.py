"""`MonarchLinear`: a linear map whose matrix is made of block-diagonal ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longwave.errors import ArgumentError


class MonarchLinear(nn.Module):
    """y = M x + bias with `blocks` blocks in each factor of M: 1/blocks of a dense matrix's weights, or twice that.

        factors 1: M = W                  block-diagonal
        factors 2: M = Pᵀ W P V           V and W block-diagonal, P the permutation that deals the entries of every block of
                                          V out over the blocks of W, and Pᵀ the one that collects W's results likewise

    Two factors connect every output with every input, one does so within a block. With P of b blocks of m, entry j of block i
    goes to place j·b + i.

    Parameters (float32): `weight` (blocks, out_features / blocks, in_features / blocks), with two factors `inner`
    (blocks, in_features / blocks, in_features / blocks), and `bias` (out_features,); uniform in ±1/sqrt(in_features / blocks),
    so that results have the scale of `nn.Linear`'s.

    Args:
        in_features, out_features: multiples of `blocks`; with two factors in_features / blocks is one too.
        blocks: of each factor, at least 1; 1 is a dense matrix.
        factors: 1 or 2.
        bias: whether there is a bias.

    Raises:
        ArgumentError: a size out of range.

    Source: Fu et al. 2023, Monarch Mixer (arXiv 2310.12109); one factor is what its M2-BERT takes in place of
    the dense matrices of the MLP. Dao et al. 2022, Monarch (arXiv 2204.00595).
    """

    def __init__(self, in_features: int, out_features: int, *, blocks: int, factors: int = 1, bias: bool = True) -> None:
        super().__init__()
        if blocks < 1 or factors not in (1, 2) or min(in_features, out_features) < 1:
            raise ArgumentError(
                "MonarchLinear needs features and blocks >= 1 and 1 or 2 factors, "
                f"but got {in_features} -> {out_features}, {blocks} and {factors}"
            )
        if in_features % blocks or out_features % blocks or (factors == 2 and (in_features // blocks) % blocks):
            square = ", and in_features of blocks squared," if factors == 2 else ""
            raise ArgumentError(
                f"MonarchLinear needs features that are multiples of blocks{square} but got "
                f"{in_features} -> {out_features} with {blocks} blocks; choose another number of blocks"
            )
        self.in_features, self.out_features, self.blocks, self.factors = in_features, out_features, blocks, factors
        m = in_features // blocks
        bound = m**-0.5
        self.weight = nn.Parameter(torch.empty(blocks, out_features // blocks, m).uniform_(-bound, bound))
        self.inner = nn.Parameter(torch.empty(blocks, m, m).uniform_(-bound, bound)) if factors == 2 else None
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) to (…, out_features).

        Raises:
            ArgumentError: the last dimension is another.
        """
        if x.shape[-1] != self.in_features:
            raise ArgumentError(f"MonarchLinear takes (…, {self.in_features}), but got {tuple(x.shape)}")
        x = x.unflatten(-1, (self.blocks, -1))
        if self.inner is not None:
            x = torch.einsum("...bi,boi->...bo", x, self.inner)
            x = x.transpose(-1, -2).flatten(-2).unflatten(-1, (self.blocks, -1))
        y = torch.einsum("...bi,boi->...bo", x, self.weight)
        if self.inner is not None:
            y = y.transpose(-1, -2)
        y = y.flatten(-2)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, blocks={self.blocks}, "
            f"factors={self.factors}, bias={self.bias is not None}"
        )
