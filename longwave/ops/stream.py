"""`Stream`: a causal long convolution of samples that come one by one, or some at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from longwave import backends, dtypes
from longwave.dtypes import resolved
from longwave.errors import ArgumentError
from longwave.lowering import lower
from longwave.ops.long_conv import long_conv
from longwave.ops.stream_arguments import StreamArguments, check_count
from longwave.ops.stream_state import StreamState
from longwave.ops.timeline import Timeline
from longwave.planner import schedule
from longwave.problem import Filters, Problem

# A chunk of at least this share of the filter is one convolution of itself and its history, and not blocks of levels.
WHOLE_SHARE = 0.5
# Under a filter of few taps fewer samples than this are summed directly.
FEW_SAMPLES = 16


class Stream(StreamArguments):
    """A causal convolution whose input comes in pieces: any mixture of them gives what one `long_conv` of the whole gives.

        y[t] = Σ_{s=0..K-1} k[s] u[t-s] + D u[t]

    T steps cost O(T log² T) a channel in all, spread over the steps, for any K; a chunk costs what its length allows. For
    inference: inputs, k and D get no gradients. Not for several threads at a time.

    Args:
        k: filters, float32 or the stream's dtype: (H, K), (1, K), (G, K), or (B, H, K) one a row of the batch. Copied.
        D: (H,), float32 or the stream's dtype: a skip connection.
        batch_size: B.
        channels: H, where k does not say it: (1, K) and (G, K).
        dtype: of inputs and results, any dtype of `long_conv`; k's own when not given. 16-bit samples are convolved in float32
            and rounded once.
        max_length: samples that are ever taken; taps beyond are never met and not kept. All memory is then allocated here, and
            no step waits for more. Without it memory grows by doubling, to a bound that depends on K alone.
        max_rollback: samples that `rollback` may take back.
        backend: "auto", or a backend by name.

    Memory, in numbers of the arithmetic type: for each filter about 3·K (taps and spectra), for each row and channel about
    3·K + 18·n + max_rollback with n <= 16,384, the largest block; `nbytes` says how much there is.

    Raises:
        ArgumentError: a wrong shape, dtype or value; a filter that requires a gradient.
        UnsupportedError: the named backend has no streams.

    Source: Gardner 1995 for the schedule; Oncescu et al. 2024 (arXiv 2410.12982) for its use in generation.
    """

    def __init__(
        self,
        k: Tensor,
        D: Tensor | None = None,
        *,
        batch_size: int,
        channels: int | None = None,
        dtype: torch.dtype | None = None,
        max_length: int | None = None,
        max_rollback: int = 0,
        backend: str = "auto",
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("max_rollback", max_rollback, 0)):
            check_count(name, value, least)
        for name, optional in (("channels", channels), ("max_length", max_length)):
            if optional is not None:
                check_count(name, optional, 1)
        for name, x in (("k", k), ("D", D)):
            if x is not None and not isinstance(x, Tensor):
                raise ArgumentError(f"{name} is of type {type(x).__name__}; give a torch.Tensor")
            if x is not None and x.requires_grad and torch.is_grad_enabled():
                raise ArgumentError(f"{name} requires a gradient, and a stream gives none; give {name}.detach()")
        if k.dim() not in (2, 3):
            raise ArgumentError(f"k has shape {tuple(k.shape)}; allowed are (H, K), (1, K), (G, K) and (B, H, K)")
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise ArgumentError(f"dtype is {dtype!r}; give a torch.dtype, as torch.float32")
        self.dtype = k.dtype if dtype is None else dtype
        self.device = k.device
        H = channels or (D.shape[0] if D is not None and D.dim() == 1 else k.shape[-2])
        # An input that takes no memory, for the checks of a call.
        u = torch.empty((), dtype=self.dtype, device=k.device).expand(batch_size, H, 1)
        lower(
            u, k, D, mode="causal", k_rev=None, pregate=None, postgate=None, history=None, cu_seqlens=None, layout="BHL",
            precision=None,
        )  # fmt: skip
        self._k = resolved(k.detach())[..., :max_length].clone(memory_format=torch.contiguous_format)
        self._D = None if D is None else resolved(D.detach()).clone()
        self.batch_size, self.channels, self.taps = batch_size, H, self._k.shape[-1]
        self.max_length, self.max_rollback = max_length, max_rollback
        self.schedule = schedule(self.taps)
        problem = Problem.of(
            u, Filters.of(self._k), in_start=0, in_len=1, out_start=0, out_len=1, lag0=0, reverse=False, circular=False
        )
        engine = backends.for_stream(problem, backend)
        self.backend = engine.__name__.rpartition(".")[2]
        wide = dtypes.filter_arithmetic(self.dtype, self._k.dtype)
        self._memory = engine.open_stream(
            self._k.to(wide),
            None if D is None else self._D.to(wide),  # type: ignore[union-attr]
            batch_size,
            H,
            self.schedule,
            self.schedule.ring(max_rollback),
            self.dtype,
        )
        self._timeline = Timeline(self.schedule, self._memory)
        self._step_shape = torch.Size((batch_size, H))
        self._fingerprint = ""
        # The furthest position since the stream began: rollbacks count from there.
        self._furthest = 0
        if max_length is not None:
            self._timeline.reserve(max_length + self.schedule.grain)

    @property
    def position(self) -> int:
        """Samples taken so far."""
        return self._timeline.position

    @property
    def nbytes(self) -> int:
        """Bytes held for inputs, spectra and pending outputs, and for the filter."""
        return self._memory.nbytes + self._k.nbytes + (0 if self._D is None else self._D.nbytes)

    def __repr__(self) -> str:
        levels = ", ".join(f"{level.parts} × {level.n:,}" for level in self.schedule.levels)
        return (
            f"Stream({self.batch_size} × {self.channels:,} channels under {self.taps:,} taps, {dtypes.name(self.dtype)}, "
            f"backend={self.backend!r}, at {self.position:,}: lags below {self.schedule.direct} summed, "
            f"then parts of {levels or 'none'})"
        )

    # Samples.

    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """Begin anew with a prompt: whatever the stream has taken before is forgotten.

        Args:
            u: (B, H, T), the stream's dtype; any strides.
            lengths: (B,), each row's own number of samples: its last ones. What stands before them counts as silence, and
                its results are zero; so rows of different lengths go on together.

        Returns:
            (B, H, T), as `long_conv`.

        Raises:
            ArgumentError: a wrong width, batch, dtype or device, more than `max_length` samples, or lengths that do not fit.
        """
        self._check(u)
        T = u.shape[-1]
        self._refuse_beyond(T, T)
        if lengths is not None:
            silent = self._silent(lengths, T)
            u = torch.where(silent, u.new_zeros(()), u)
        self._timeline.begin(0, 0)
        self._furthest = 0
        y = self._whole(u)
        return y if lengths is None else y.masked_fill_(silent, 0)

    def extend(self, u: Tensor) -> Tensor:
        """The next samples, (B, H, T) of the stream's dtype in any strides, to as many results.

        Chunks whose lengths are multiples of 64, 256, 1,024 …, each at a position that its length divides (counted from the
        end of the prompt), cost least.

        Raises:
            ArgumentError: a wrong width, batch, dtype or device, or samples beyond `max_length`.
        """
        self._check(u)
        T = u.shape[-1]
        self._refuse_beyond(self.position + T, T)
        if self._is_whole(T):
            return self._whole(u)
        y = u.new_empty(u.shape)
        self._timeline.take(u, y)
        return y

    def step(self, u_t: Tensor) -> Tensor:
        """The next sample of every row and channel, (B, H) of the stream's dtype, to its result.

        Raises:
            ArgumentError: a wrong width, batch, dtype or device, or a sample beyond `max_length`.
        """
        if (
            not isinstance(u_t, Tensor)
            or u_t.shape != self._step_shape
            or u_t.dtype is not self.dtype
            or u_t.device != self.device
            or (u_t.requires_grad and torch.is_grad_enabled())
        ):
            self._check(u_t, ("B", "H"))
        timeline = self._timeline
        if timeline.clock >= timeline.ready:
            self._refuse_beyond(self.position + 1, 1)
            timeline.prepare_step(self.max_length)
        y = torch.empty_like(u_t, memory_format=torch.contiguous_format)
        self._memory.step(timeline.clock, u_t, y)
        timeline.clock += 1
        return y

    # State.

    def snapshot(self) -> StreamState:
        """Where the stream stands: a copy of the last inputs. It may be restored any number of times."""
        kept = self._known(self.position)
        return StreamState(self._timeline.last(kept).clone(), self.position, self._name())

    def restore(self, state: StreamState) -> None:
        """Stand where `snapshot` was taken, by this stream or another one of an equal filter, here or on another device.

        What is not in the state (spectra, pending outputs) is made again when it is needed.

        Raises:
            ArgumentError: the state of another filter, batch or `max_length`, or on another device.
        """
        if not isinstance(state, StreamState):
            raise ArgumentError(f"the state is of type {type(state).__name__}; give what Stream.snapshot() returned")
        if state.filter != self._name():
            raise ArgumentError(
                f"the state belongs to another filter ({state.filter}) than this stream's ({self._name()}); restore it into a "
                "stream of its own k, D and dtype"
            )
        rows = (self.batch_size, self.channels)
        if state.inputs.dim() != 3 or tuple(state.inputs.shape[:2]) != rows or state.inputs.device != self.device:
            raise ArgumentError(
                f"the state has inputs of shape {tuple(state.inputs.shape)} on {state.inputs.device}; this stream wants "
                f"{rows} rows and channels on {self.device}: open a stream of that size, or move the state with .to()"
            )
        kept = state.inputs.shape[-1]
        if kept < min(state.position, self.taps - 1):
            raise ArgumentError(f"the state has {kept:,} inputs of the {self.taps - 1:,} that the filter reaches; take another")
        self._refuse_beyond(state.position, state.position)
        spare = self.max_rollback if kept >= state.position else min(self.max_rollback, kept - (self.taps - 1))
        self._timeline.fill(state.inputs[..., kept - min(kept, self.schedule.kept(self.max_rollback)) :], state.position)
        self._furthest = state.position + self.max_rollback - spare

    def rollback(self, n: int) -> None:
        """Take the last n samples back, for example those that a verifying model has refused.

        Raises:
            ArgumentError: more samples than `max_rollback` (counted from the furthest that the stream has been), or than
                there are.
        """
        furthest = max(self._furthest, self.position)
        most = min(self.max_rollback - (furthest - self.position), self.position)
        self._check_rollback(n, most, self.position)
        self._furthest = furthest
        self._timeline.go_back(n)

    def reorder(self, rows: Tensor) -> None:
        """Let row b of the batch go on from where row rows[b] stands, (B,) integers: the survivors of a beam search.

        Raises:
            ArgumentError: not B row numbers, or one filter a row of the batch.
        """
        rows = self._row_numbers(rows)
        if self._k.dim() == 3:
            raise ArgumentError(
                "rows with a filter each cannot be reordered; open a stream with the filters in their new order"
            )
        self._memory.reorder(self._timeline.clock, rows)

    # Inside.

    def _whole(self, u: Tensor) -> Tensor:
        """A chunk as one convolution with its history."""
        position, T = self.position, u.shape[-1]
        before = min(position, self.taps - 1)
        history = self._timeline.last(before) if before else None
        y = long_conv(u, self._k, self._D, history=history, backend=self.backend)
        kept = self._known(position + T)
        last = u[..., max(0, T - kept) :]
        if kept > T:
            earlier = self._timeline.last(kept - T)
            last = torch.cat([earlier, u.to(earlier.dtype)], dim=-1)
        self._timeline.fill(last, position + T)
        return y

    def _known(self, position: int) -> int:
        """Inputs before `position` that are kept: fewer after a rollback, which has used some of what it may use."""
        return min(position, self.schedule.kept(self.max_rollback) - max(0, self._furthest - position))

    def _is_whole(self, T: int) -> bool:
        """Whether T samples at once are best convolved with their history."""
        if not self.schedule.levels:
            return T >= FEW_SAMPLES
        return self.taps * WHOLE_SHARE <= T

    def _name(self) -> str:
        if not self._fingerprint:
            digest = hashlib.sha256()
            for x in (self._k, self._D):
                if x is not None:
                    digest.update(x.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
            taps = " × ".join(map(str, self._k.shape))
            self._fingerprint = (
                f"{taps} taps, {dtypes.name(self._k.dtype)} for {dtypes.name(self.dtype)}, {digest.hexdigest()[:16]}"
            )
        return self._fingerprint
