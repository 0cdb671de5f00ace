"""Memory blocks: filters of a few taps some way apart, that look back and, by so much and no more, ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn.decode import LayerStream
from longwave.nn.long_conv import LongConvOp
from longwave.ops.long_conv import long_conv
from longwave.ops.stream import Stream


class MemoryConv1d(nn.Module):
    """Depthwise convolution with taps `stride` apart, `back` of them before the present and `ahead` after it.

        y[t] = Σ_{i=0..back} weight[i] x[t - stride·i] + Σ_{j=1..ahead} weight_ahead[j - 1] x[t + stride·j] (+ x[t])

    Parameters (float32), uniform in ±1/sqrt(taps): `weight` (channels, back + 1) and `weight_ahead` (channels, ahead).

    Args:
        channels: H, at least 1.
        back, ahead: taps before and after the present, at least 0.
        stride: samples from tap to tap, at least 1.
        skip: whether x itself is added.
        backend: the backend's name; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.

    Raises:
        ArgumentError: a size out of range.

    Source: Zhang et al. 2018, Deep-FSMN (arXiv 1803.05030), equation 4.
    """

    def __init__(
        self,
        channels: int,
        back: int,
        ahead: int = 0,
        *,
        stride: int = 1,
        skip: bool = False,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
    ) -> None:
        super().__init__()
        if channels < 1 or min(back, ahead) < 0 or stride < 1:
            raise ArgumentError(
                "MemoryConv1d needs channels and stride >= 1 and back and ahead >= 0, "
                f"but got {channels}, {stride}, {back} and {ahead}"
            )
        self.stride, self.skip, self.backend, self.conv = stride, skip, backend, conv
        bound = (back + 1 + ahead) ** -0.5
        self.weight = nn.Parameter(torch.empty(channels, back + 1).uniform_(-bound, bound))
        self.weight_ahead = nn.Parameter(torch.empty(channels, ahead).uniform_(-bound, bound)) if ahead else None

    @property
    def reach(self) -> tuple[int, int]:
        """Samples that are seen before the present and after it."""
        ahead = 0 if self.weight_ahead is None else self.weight_ahead.shape[1]
        return self.stride * (self.weight.shape[1] - 1), self.stride * ahead

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Convolve `x` (B, L, H), or packed documents as in `longwave.long_conv`; the result has its shape and dtype.

        Raises:
            ArgumentError: whatever `longwave.long_conv` refuses.
        """
        k_rev = None if self.weight_ahead is None else self._spread(F.pad(self.weight_ahead, (1, 0)))
        return self.conv(
            x, self._spread(self.weight), self._skip(), k_rev=k_rev, mode="causal", cu_seqlens=cu_seqlens, layout="BLH",
            backend=self.backend,
        )  # fmt: skip

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> Stream:
        """This convolution for samples that come one by one, (B, H, T) and (B, H). Raises ArgumentError if it looks ahead."""
        if self.weight_ahead is not None:
            raise ArgumentError("a memory block that looks ahead answers late; stream it through a WindowStream")
        skip = self._skip()
        return Stream(
            self._spread(self.weight).detach(), None if skip is None else skip.detach(), batch_size=batch_size,
            max_length=max_length, max_rollback=max_rollback, backend=self.backend if backend is None else backend,
        )  # fmt: skip

    def _skip(self) -> Tensor | None:
        return self.weight.new_ones(self.weight.shape[0]) if self.skip else None

    def _spread(self, taps: Tensor) -> Tensor:
        """Taps at every lag, zero between those of the stride."""
        apart = F.pad(taps.unsqueeze(-1), (0, self.stride - 1)).flatten(1)
        return apart[:, : apart.shape[1] - (self.stride - 1)]

    def extra_repr(self) -> str:
        return f"channels={self.weight.shape[0]}, reach={self.reach}, stride={self.stride}, skip={self.skip}"


class Fsmn(nn.Module):
    """A hidden layer, a projection to fewer channels, and a memory block of those.

        p_t = V · ReLU(W u_t + b)        y = p + memory(p)

    Args:
        d_model: channels of input and result.
        hidden: of the hidden layer.
        back, ahead, stride: of the `MemoryConv1d`.
        backend, conv: of the convolution.

    Raises:
        ArgumentError: a size out of range.

    Source: Zhang et al. 2018 (arXiv 1803.05030), section 3.
    """

    def __init__(
        self,
        d_model: int,
        hidden: int,
        *,
        back: int,
        ahead: int = 0,
        stride: int = 1,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(d_model, hidden)
        self.out_proj = nn.Linear(hidden, d_model, bias=False)
        self.memory = MemoryConv1d(d_model, back, ahead, stride=stride, skip=True, backend=backend, conv=conv)
        # No norm rescales what runs through: biases must not drown small inputs.
        for linear in (self.hidden, self.out_proj):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.hidden.bias)

    @property
    def reach(self) -> tuple[int, int]:
        """Positions that are seen before the present and after it."""
        return self.memory.reach

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Of `u` (B, L, d_model); the result has its shape. Raises ArgumentError for what the convolution refuses."""
        y: Tensor = self.memory(self.projected(u), cu_seqlens=cu_seqlens)
        return y

    def projected(self, u: Tensor) -> Tensor:
        """What the memory block reads, position by position: (..., d_model) to the same."""
        p: Tensor = self.out_proj(F.relu(self.hidden(u)))
        return p

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> FsmnStream:
        """This layer for positions that come one by one. Raises ArgumentError if it looks ahead, or a size is out of range."""
        return FsmnStream(
            self,
            self.memory.stream(batch_size, max_length=max_length, max_rollback=max_rollback, backend=backend),
        )


class FsmnStream(LayerStream):
    """What `Fsmn.stream` opens."""

    def __init__(self, layer: Fsmn, memory: Stream) -> None:
        self.layer, self.memory, self.streams = layer, memory, [memory]

    @torch.no_grad()
    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        return self.memory.prefill(self.layer.projected(u).transpose(1, 2), lengths).transpose(1, 2)

    @torch.no_grad()
    def extend(self, u: Tensor) -> Tensor:
        return self.memory.extend(self.layer.projected(u).transpose(1, 2)).transpose(1, 2)

    @torch.no_grad()
    def step(self, u_t: Tensor) -> Tensor:
        return self.memory.step(self.layer.projected(u_t))


class GatedFsmn(nn.Module):
    """MossFormer2's block without its shortcut: two branches in a bottleneck, one through dilated memory, the other its gate.

        x = norm(PReLU(W1 u + b1))        branch(x) = s + conv(s),  s = SiLU(W norm(x) + b)
        y = W2 norm(branch_v(x) · memory(branch_u(x)) + x) + b2
        memory(s) = s + o_depth,  o_0 = V ReLU(W s + b),  o_{i+1} = PReLU(norm(Σ_{j<=i} conv_ij(o_j)))

    conv has 17 taps, 8 of them ahead (none if `ahead` is 0); conv_ij has taps 2^i apart, dense connections as in the paper:
    every o reads all before it, channel by channel. What differs: the norm of o is LayerNorm over channels, where theirs is
    over the whole recording, so that results depend on a window alone; with `ahead` above 0, `WindowStream` takes `reach`.

    Args:
        d_model: channels of input and result.
        inner: channels of the bottleneck (published: 256).
        back, ahead: taps of conv_ij before and after the present (published: 19 each).
        depth: dilated convolutions (published: 2).
        backend, conv: of the convolutions.

    Raises:
        ArgumentError: a size out of range.

    Source: Zhao et al. 2023, MossFormer2 (arXiv 2312.11825), section 2.3.
    """

    def __init__(
        self,
        d_model: int,
        inner: int = 256,
        *,
        back: int = 19,
        ahead: int = 19,
        depth: int = 2,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
    ) -> None:
        super().__init__()
        if min(d_model, inner, depth) < 1:
            raise ArgumentError(f"GatedFsmn needs d_model, inner and depth >= 1, but got {d_model}, {inner} and {depth}")
        self.depth = depth
        self.in_proj, self.in_activation, self.in_norm = nn.Linear(d_model, inner), nn.PReLU(), nn.LayerNorm(inner)
        self.norms = nn.ModuleList(nn.LayerNorm(inner) for _ in range(2))
        self.branches = nn.ModuleList(nn.Linear(inner, inner) for _ in range(2))
        local = 8 if ahead else 0
        self.local = nn.ModuleList(
            MemoryConv1d(inner, 16 - local, local, skip=True, backend=backend, conv=conv) for _ in range(2)
        )
        self.hidden, self.project = nn.Linear(inner, inner), nn.Linear(inner, inner, bias=False)
        self.dilated = nn.ModuleList(
            MemoryConv1d((i + 1) * inner, back, ahead, stride=2**i, backend=backend, conv=conv) for i in range(depth)
        )
        self.dilated_norms = nn.ModuleList(nn.LayerNorm(inner) for _ in range(depth))
        self.activations = nn.ModuleList(nn.PReLU(inner) for _ in range(depth))
        self.out_norm, self.out_proj = nn.LayerNorm(inner), nn.Linear(inner, d_model)

    @property
    def reach(self) -> tuple[int, int]:
        """Positions that are seen before the present and after it."""
        reaches = [cast(MemoryConv1d, conv).reach for conv in (self.local[0], *self.dilated)]
        return sum(back for back, _ in reaches), sum(ahead for _, ahead in reaches)

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Of `u` (B, L, d_model), documents apart with `cu_seqlens`; the result has its shape.

        Raises:
            ArgumentError: what the convolutions refuse.
        """
        return self.through(u, lambda conv, x: conv(x, cu_seqlens=cu_seqlens))

    def through(self, u: Tensor, convolve: Callable[[MemoryConv1d, Tensor], Tensor]) -> Tensor:
        """The layer of `u` (..., d_model), with every convolution made by `convolve`."""
        x = self.in_norm(self.in_activation(self.in_proj(u)))
        s, gate = (
            convolve(cast(MemoryConv1d, local), F.silu(linear(norm(x))))
            for norm, linear, local in zip(self.norms, self.branches, self.local, strict=True)
        )
        read = o = self.project(F.relu(self.hidden(s)))
        for conv, norm, activation in zip(self.dilated, self.dilated_norms, self.activations, strict=True):
            sums = convolve(cast(MemoryConv1d, conv), read).unflatten(-1, (-1, o.shape[-1])).sum(-2)
            normed = norm(sums)
            o = torch.where(normed > 0, normed, cast(nn.PReLU, activation).weight.to(normed.dtype) * normed)
            read = torch.cat([o, read.to(o.dtype)], dim=-1)
        y: Tensor = self.out_proj(self.out_norm(gate * (s + o) + x))
        return y

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> GatedFsmnStream:
        """This layer for positions that come one by one. Raises ArgumentError if it looks ahead, or a size is out of range."""
        memories = [cast(MemoryConv1d, conv) for conv in (*self.local, *self.dilated)]
        streams = {
            memory: memory.stream(batch_size, max_length=max_length, max_rollback=max_rollback, backend=backend)
            for memory in memories
        }
        return GatedFsmnStream(self, streams)


class GatedFsmnStream(LayerStream):
    """What `GatedFsmn.stream` opens."""

    def __init__(self, layer: GatedFsmn, memories: dict[MemoryConv1d, Stream]) -> None:
        self.layer, self.memories, self.streams = layer, memories, list(memories.values())

    @torch.no_grad()
    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        return self.layer.through(u, lambda conv, x: self.memories[conv].prefill(x.transpose(1, 2), lengths).transpose(1, 2))

    @torch.no_grad()
    def extend(self, u: Tensor) -> Tensor:
        return self.layer.through(u, lambda conv, x: self.memories[conv].extend(x.transpose(1, 2)).transpose(1, 2))

    @torch.no_grad()
    def step(self, u_t: Tensor) -> Tensor:
        return self.layer.through(u_t, lambda conv, x: self.memories[conv].step(x))


class WindowStream:
    """Whatever looks a bounded way back and ahead, for positions that come some at a time; for inference.

    Results come as soon as all that they depend on has come, `ahead` positions late, and equal those of the whole: a chunk is
    run together with the positions before it that its results still see, and the first results of those are left out. A
    chunk of T positions costs as much as T + back + ahead; take chunks accordingly.

    Args:
        run: (B, L, ...) to (B, L, d), of a whole sequence.
        back, ahead: positions that a result depends on before and after its own.

    Raises:
        ArgumentError: a negative reach.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], *, back: int, ahead: int) -> None:
        if min(back, ahead) < 0:
            raise ArgumentError(f"WindowStream needs back and ahead >= 0, but got {back} and {ahead}")
        self.run, self.back, self.ahead = run, back, ahead
        self.position = self.answered = 0
        self._inputs: Tensor | None = None

    @torch.no_grad()
    def extend(self, u: Tensor) -> Tensor:
        """The next positions (B, T, ...), to the results (B, n, d) that are complete now, n from 0 to T.

        Raises:
            ArgumentError: another batch or width than before.
        """
        if self._inputs is not None and (u.shape[0], *u.shape[2:]) != (self._inputs.shape[0], *self._inputs.shape[2:]):
            raise ArgumentError(
                f"u has shape {tuple(u.shape)}; this stream goes on with that of what came before, "
                f"{tuple(self._inputs.shape)}, in any length"
            )
        inputs = u if self._inputs is None else torch.cat([self._inputs, u], dim=1)
        self.position += u.shape[1]
        y = self._results(inputs, self.position - self.ahead)
        self._inputs = inputs[:, max(0, inputs.shape[1] - self.back - self.ahead) :]
        return y

    @torch.no_grad()
    def finish(self) -> Tensor:
        """What is still missing, at most `ahead` results, if nothing more comes; then the stream begins anew.

        Raises:
            ArgumentError: nothing has come.
        """
        if self._inputs is None:
            raise ArgumentError("nothing has come that could be finished; call extend first")
        y = self._results(self._inputs, self.position)
        self._inputs, self.position, self.answered = None, 0, 0
        return y

    def _results(self, inputs: Tensor, until: int) -> Tensor:
        """Those from the first that is missing on."""
        first = self.position - inputs.shape[1]
        until = max(until, self.answered)
        y = self.run(inputs)[:, self.answered - first : until - first]
        self.answered = until
        return y
