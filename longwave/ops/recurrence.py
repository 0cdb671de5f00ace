"""`RecurrentStream`: a diagonal state space whose input comes one by one, or some at a time, by its own recurrence."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from longwave import dtypes
from longwave.errors import ArgumentError
from longwave.ops.exponentials import exponential_sums, last_state
from longwave.ops.long_conv import long_conv
from longwave.ops.stream_arguments import StreamArguments, check_count

# Chunks of up to so many samples are steps: a convolution and its filter would cost more.
FEW_SAMPLES = 4
# Filters of up to so many taps are kept for chunks to come.
KEPT_TAPS = 1024


@dataclass(frozen=True)
class RecurrentState:
    """Where a `RecurrentStream` stands. Plain tensors and values, on any device.

    Attributes:
        state: (B, H, N), complex128: the states before the last inputs.
        inputs: (B, H, kept), float64, the last inputs: as many as may still be taken back.
        position: samples that the stream has taken, those inputs among them.
        filter: what names the state space, its D and the dtype of the stream.

    Raises:
        ArgumentError: `from_tensors` was given something else.
    """

    state: Tensor
    inputs: Tensor
    position: int
    filter: str

    def to(self, device: torch.device | str) -> RecurrentState:
        """The same on another device."""
        return replace(self, state=self.state.to(device), inputs=self.inputs.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """As real tensors alone, for safetensors or `torch.save`."""
        return {
            "state": torch.view_as_real(self.state).contiguous(),
            "inputs": self.inputs,
            "position": torch.tensor(self.position),
            "filter": torch.tensor(list(self.filter.encode()), dtype=torch.uint8),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> RecurrentState:
        """What `tensors` made tensors of. Raises ArgumentError for anything else."""
        try:
            name = bytes(tensors["filter"].tolist()).decode()
            return cls(torch.view_as_complex(tensors["state"]), tensors["inputs"], int(tensors["position"]), name)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(
                f"these are not the tensors of a recurrent stream's state ({error!r}); "
                "give what RecurrentState.tensors() returned"
            ) from None


class RecurrentStream(StreamArguments):
    """`longwave.Stream` for a filter that is a sum of exponentials: a step costs O(N) a channel, whatever came before.

        x[t] = z x[t-1] + u[t]        y[t] = Re Σ_n c[n] x[t, n] + D u[t]        z = exp(log_z)

    Any mixture of the calls gives what one `long_conv` gives of the whole under `exponential_sums(log_z, c, taps)`, where taps
    is the number of all samples: the filter has no end. Of a filter cut off after K taps it differs by what those beyond
    contribute, at most Σ_n |c| |z|^K / (1 - |z|) times the largest sample. For inference: no gradients. Not for several
    threads at a time.

    Args:
        log_z: (H, N), complex128, real parts below 0.
        c: (H, N), complex128; a pair of conjugate states is one with twice its c.
        D: (H,), real: a skip connection.
        batch_size: B.
        dtype: of inputs and results, real; states are complex128, so that rounding does not add up over the steps.
        max_length: samples that are ever taken.
        max_rollback: samples that `rollback` may take back.
        backend: the convolution's, of prompts and chunks.

    Memory: 32·N + 16·max_rollback bytes a row and channel and, for chunks, 1,024 taps a channel, whatever the position.

    Raises:
        ArgumentError: a wrong shape, dtype or value.

    Source: Gu et al. 2022 (arXiv 2206.11893), section 3, for the two forms of one state space.
    """

    def __init__(
        self,
        log_z: Tensor,
        c: Tensor,
        D: Tensor | None = None,
        *,
        batch_size: int,
        dtype: torch.dtype = torch.float32,
        max_length: int | None = None,
        max_rollback: int = 0,
        backend: str = "auto",
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("max_rollback", max_rollback, 0)):
            check_count(name, value, least)
        if max_length is not None:
            check_count("max_length", max_length, 1)
        if log_z.dim() != 2 or log_z.shape != c.shape or {log_z.dtype, c.dtype} != {torch.complex128}:
            raise ArgumentError(
                "RecurrentStream takes complex128 log_z and c of one shape (H, N), but got "
                f"{log_z.dtype} {tuple(log_z.shape)} and {c.dtype} {tuple(c.shape)}"
            )
        if D is not None and D.shape != log_z.shape[:1]:
            raise ArgumentError(f"D has shape {tuple(D.shape)}; give ({log_z.shape[0]},), one a channel")
        if dtype not in dtypes.SIGNAL_DTYPES or dtype.is_complex:
            raise ArgumentError(f"dtype is {dtype}; give a real floating dtype of long_conv, as torch.float32")
        self._log_z, self._c = log_z.detach().clone(), c.detach().clone()
        self._D = None if D is None else D.detach().to(dtypes.filter_arithmetic(dtype, D.dtype))
        self.batch_size, self.channels, self.dtype, self.backend = batch_size, log_z.shape[0], dtype, backend
        self.max_length, self.max_rollback, self.device = max_length, max_rollback, log_z.device
        self._z = torch.exp(self._log_z)
        # Re(c x) as products of real numbers.
        self._weights = torch.stack([self._c.real, -self._c.imag], dim=-1)
        self._taps = torch.empty(self.channels, 0, dtype=self._wide, device=self.device)
        self._step_shape = torch.Size((batch_size, self.channels))
        self._fingerprint = ""
        self._recent = torch.zeros(*self._step_shape, 2 * max_rollback, dtype=torch.float64, device=self.device)
        self._base = self._state = self._silence()
        self._kept = 0
        self.position = self._furthest = 0

    taps = 0  # of the longest filter: nothing is convolved but prompts and chunks

    @property
    def nbytes(self) -> int:
        """Bytes held for states and the inputs that may be taken back, and for the state space."""
        held = (self._state, self._base, self._recent, self._log_z, self._c, self._z, self._weights, self._taps)
        return sum(x.nbytes for x in held)

    def __repr__(self) -> str:
        return (
            f"RecurrentStream({self.batch_size} × {self.channels:,} channels of {self._z.shape[1]} states, "
            f"{dtypes.name(self.dtype)}, at {self.position:,})"
        )

    # Samples.

    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """Begin anew with a prompt, (B, H, T) of the stream's dtype in any strides, to as many results.

        With `lengths` (B,), as in `Stream.prefill`, row b's own samples are its last lengths[b] ones; results before them are
        zero. Raises ArgumentError as `Stream.prefill` does.
        """
        self._check(u)
        T = u.shape[-1]
        self._refuse_beyond(T, T)
        silent = None
        if lengths is not None:
            silent = self._silent(lengths, T)
            u = u.masked_fill(silent, 0)
        self._base = self._state = self._silence()
        self._kept = self.position = self._furthest = 0
        y = self._chunk(u)
        return y if silent is None else y.masked_fill(silent, 0)

    def extend(self, u: Tensor) -> Tensor:
        """The next samples, (B, H, T), to as many results. Raises ArgumentError as `Stream.extend` does."""
        self._check(u)
        T = u.shape[-1]
        self._refuse_beyond(self.position + T, T)
        if T <= FEW_SAMPLES:
            return torch.stack([self._advance(u[..., t]) for t in range(T)], dim=-1)
        return self._chunk(u)

    def step(self, u_t: Tensor) -> Tensor:
        """The next sample of every row and channel, (B, H), to its result. Raises ArgumentError as `Stream.step` does."""
        self._check(u_t, ("B", "H"))
        self._refuse_beyond(self.position + 1, 1)
        return self._advance(u_t)

    # State.

    def snapshot(self) -> RecurrentState:
        """Where the stream stands; it may be restored any number of times, and taken back as far as the stream itself."""
        return RecurrentState(self._base.clone(), self._recent[..., : self._kept].clone(), self.position, self._name())

    def restore(self, state: RecurrentState) -> None:
        """Stand where `snapshot` was taken, by this stream or another one of an equal state space, here or on another device.

        Raises:
            ArgumentError: the state of another state space, batch or `max_length`, or on another device.
        """
        if not isinstance(state, RecurrentState):
            raise ArgumentError(f"the state is of type {type(state).__name__}; give what RecurrentStream.snapshot() returned")
        if state.filter != self._name():
            raise ArgumentError(
                f"the state belongs to another state space ({state.filter}) than this stream's ({self._name()}); restore it "
                "into a stream of its own log_z, c, D and dtype"
            )
        if state.state.shape != self._state.shape or state.state.device != self.device:
            raise ArgumentError(
                f"the state has shape {tuple(state.state.shape)} on {state.state.device}; this stream wants "
                f"{tuple(self._state.shape)} on {self.device}: open a stream of that size, or move the state with .to()"
            )
        self._refuse_beyond(state.position, state.position)
        inputs = state.inputs
        spare = max(0, inputs.shape[-1] - 2 * self.max_rollback)
        self._base = last_state(self._log_z, inputs[..., :spare], state.state.clone())
        self._kept = inputs.shape[-1] - spare
        self._recent[..., : self._kept] = inputs[..., spare:]
        self._state = last_state(self._log_z, self._recent[..., : self._kept], self._base)
        self.position = state.position
        self._furthest = self.position + max(0, self.max_rollback - self._kept)

    def rollback(self, n: int) -> None:
        """Take the last n samples back. Raises ArgumentError as `Stream.rollback` does."""
        most = min(self.max_rollback - (self._furthest - self.position), self._kept)
        self._check_rollback(n, most, self.position)
        self._kept -= n
        self.position -= n
        self._state = last_state(self._log_z, self._recent[..., : self._kept], self._base)

    def reorder(self, rows: Tensor) -> None:
        """Let row b go on from where row rows[b] stands. Raises ArgumentError as `Stream.reorder` does."""
        rows = self._row_numbers(rows)
        self._state, self._base, self._recent = self._state[rows], self._base[rows], self._recent[rows]

    # Inside.

    @property
    def _wide(self) -> torch.dtype:
        return torch.promote_types(self.dtype, torch.float32)

    def _silence(self) -> Tensor:
        return torch.zeros(*self._step_shape, self._z.shape[1], dtype=torch.complex128, device=self.device)

    def _advance(self, u_t: Tensor) -> Tensor:
        """One step of the recurrence."""
        exact = u_t.to(torch.float64)
        self._state = torch.addcmul(exact.unsqueeze(-1).to(torch.complex128), self._z, self._state)
        y = (torch.view_as_real(self._state) * self._weights).flatten(-2).sum(-1)
        if self._D is not None:
            y = y + self._D * exact
        self._remember(exact.unsqueeze(-1), stepped=True)
        return y.to(self.dtype)

    def _chunk(self, u: Tensor) -> Tensor:
        """A chunk as one convolution, and what is left of the state before it."""
        T = u.shape[-1]
        y = long_conv(u.to(self._wide), self._filter(T), self._D, backend=self.backend)
        if self.position:
            left = self._c * self._z * self._state
            y = y + exponential_sums(self._log_z, left, T, dtype=self._wide)
        self._remember(u, stepped=False)
        return y.to(self.dtype)

    def _filter(self, taps: int) -> Tensor:
        """The first taps; short filters are kept for the next chunk."""
        if taps > KEPT_TAPS:
            return exponential_sums(self._log_z, self._c, taps, dtype=self._wide)
        if self._taps.shape[-1] < taps:
            self._taps = exponential_sums(self._log_z, self._c, taps, dtype=self._wide)
        return self._taps[:, :taps]

    def _remember(self, u: Tensor, *, stepped: bool) -> None:
        """Count samples in: the state before the last ones, those themselves and, unless a step has, the state after them."""
        T, R = u.shape[-1], self.max_rollback
        self.position += T
        self._furthest = max(self._furthest, self.position)
        if not R:
            self._base = self._state = self._state if stepped else last_state(self._log_z, u, self._state)
            return
        if self._kept + T > 2 * R:
            recent = torch.cat([self._recent[..., : self._kept], u.to(torch.float64)], dim=-1)
            spare = recent.shape[-1] - R
            self._base = last_state(self._log_z, recent[..., :spare], self._base)
            self._recent[..., :R] = recent[..., spare:]
            self._kept = R
        else:
            self._recent[..., self._kept : self._kept + T] = u
            self._kept += T
        if not stepped:
            self._state = last_state(self._log_z, self._recent[..., : self._kept], self._base)

    def _name(self) -> str:
        if not self._fingerprint:
            digest = hashlib.sha256()
            for x in (self._log_z, self._c, self._D):
                if x is not None:
                    digest.update(x.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            size = " × ".join(map(str, self._z.shape))
            self._fingerprint = f"{size} states for {dtypes.name(self.dtype)}, {digest.hexdigest()[:16]}"
        return self._fingerprint
