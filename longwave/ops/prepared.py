"""`prepare_filter`: what can be made of a filter alone, made once for many inputs of one length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from longwave import backends, dtypes
from longwave.dtypes import resolved
from longwave.errors import ArgumentError
from longwave.lengths import LONGEST
from longwave.lowering import MODES, lower
from longwave.masks import FrequencyMask
from longwave.problem import Filters, Problem

FORMAT = "longwave-prepared-1"


@dataclass(frozen=True, eq=False)
class PreparedFilter:
    """A filter for inputs of one length, dtype, device and mode; `long_conv` takes it in the place of `k`.

    Made by `prepare_filter`. It holds tensors and plain values: `state_dict` and `from_state_dict` keep it in a file that
    `torch.load(weights_only=True)` reads, pickling does too.

    Attributes:
        taps: (G, K), one filter with signed lags from `lag0` on.
        length, dtype, mode: of the inputs it serves.
        mask: the text of its frequency mask.
        asked, backend: the backend's name as it was asked for, and the one that prepared it and will run it.
        spectrum: what the backend made of the taps, in a form that `tag` names; None where it uses the taps as they are.

    Raises:
        ArgumentError: `from_state_dict` was given something else.
    """

    taps: Tensor
    lag0: int
    length: int
    dtype: torch.dtype
    mode: str
    mask: str | None
    asked: str
    backend: str
    spectrum: Tensor | None
    tag: str

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; `from_state_dict` makes the filter of it again."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"format": FORMAT, **values, "dtype": dtypes.name(self.dtype)}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> PreparedFilter:
        """The filter that `state_dict` describes, on the device of its tensors; its spectrum is made again where the backend
        that runs it here, or the form it keeps spectra in, is another.

        Raises ArgumentError for anything else, and UnsupportedError where the backend that was named cannot run here.
        """
        missing = {"format", *cls.__dataclass_fields__} - (state.keys() if isinstance(state, dict) else set())
        if missing or state["format"] != FORMAT:
            raise ArgumentError(
                f"this is no state of a prepared filter of this version ({', '.join(sorted(missing)) or state['format']!r} "
                f"{'is missing' if missing else 'is its format'}); give what PreparedFilter.state_dict() returned"
            )
        names = ("taps", "lag0", "length", "dtype", "mode", "mask", "asked")
        try:
            values = {name: state[name] for name in cls.__dataclass_fields__} | {"dtype": dtypes.named(state["dtype"])}
            return _prepared(**{name: values[name] for name in names}, kept=values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArgumentError(
                f"this state of a prepared filter is damaged ({error}); give what PreparedFilter.state_dict() returned"
            ) from None

    def __reduce__(self) -> tuple[Callable[..., PreparedFilter], tuple[dict[str, Any]]]:
        return PreparedFilter.from_state_dict, (self.state_dict(),)

    def __repr__(self) -> str:
        G, K = self.taps.shape
        mask = "" if self.mask is None else f", {FrequencyMask.of_text(self.mask)!r}"
        kept = "taps as they are" if self.spectrum is None else f"{self.tag}, {self.spectrum.nbytes:,} bytes"
        return (
            f"PreparedFilter({G:,} filters of {K:,} lags from {self.lag0:,}, mode={self.mode!r}, length={self.length:,}, "
            f"{dtypes.name(self.dtype)}{mask}, backend={self.backend!r}: {kept})"
        )

    def check(self, u: Tensor, *, mode: str, layout: str, backend: str, **excluded: Any) -> None:
        """That it serves a call of `long_conv`. Raises ArgumentError in one sentence."""
        for name, value in excluded.items():
            if value is not None:
                raise ArgumentError(
                    f"{name} does not go with a prepared filter; give it to prepare_filter if that takes it, or pass k itself"
                )
        if mode != self.mode:
            raise ArgumentError(f"the filter was prepared for mode={self.mode!r} and called with mode={mode!r}; pass the same")
        if backend not in ("auto", self.backend):
            raise ArgumentError(
                f"the filter was prepared by the backend {self.backend!r} and called with backend={backend!r}; use 'auto' or "
                "prepare it with that backend"
            )
        if not isinstance(u, Tensor) or u.dim() < 2:
            return  # refused like any such u
        L = u.shape[-2] if layout == "BLH" else u.shape[-1]
        for what, prepared, given in (
            ("inputs of length", self.length, L),
            ("inputs of", dtypes.name(self.dtype), dtypes.name(u.dtype)),
            ("inputs on", self.taps.device, u.device),
        ):
            if prepared != given:
                raise ArgumentError(f"the filter was prepared for {what} {prepared}, and u has {given}; prepare another for it")


def prepare_filter(
    k: Tensor,
    length: int,
    *,
    mode: str = "causal",
    k_rev: Tensor | None = None,
    frequency_mask: FrequencyMask | None = None,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> PreparedFilter:
    """Make once what every convolution with these filters needs: `long_conv(u, prepared, ...)` then does not transform them.

    For inference: u, D and gates get gradients as ever, the filters none. Any batch and layout; D and gates as ever.
    `history` and `cu_seqlens` need the filter itself.

    Args:
        k: (H, K), (1, K) or (G, K), as in `long_conv`, on the device of the inputs; so `k_rev`.
        length: L, the samples of the inputs.
        mode, k_rev, frequency_mask: as in `long_conv`.
        dtype: of the inputs; k's own when not given.
        backend: "auto", or a backend by name.

    Returns:
        A PreparedFilter; print it. It refuses inputs of another length, dtype or device, and another mode.

    Raises:
        ArgumentError: as `long_conv` would, or a filter that requires a gradient.
        UnsupportedError: the named backend cannot run such calls.
    """
    for name, filters in (("k", k), ("k_rev", k_rev)):
        if isinstance(filters, Tensor) and filters.requires_grad:
            raise ArgumentError(
                f"{name} requires a gradient, and a prepared filter gives none; prepare {name}.detach(), or pass {name} itself "
                "to long_conv"
            )
        if isinstance(filters, Tensor) and filters.dim() != 2:
            raise ArgumentError(f"{name} has shape {tuple(filters.shape)}; a filter to prepare is (H, K), (1, K) or (G, K)")
    if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= LONGEST:
        raise ArgumentError(f"length is {length!r}; give the number of samples of the inputs, 1 to {LONGEST:,}")
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise ArgumentError(f"dtype is {dtype!r}; give a torch.dtype, as torch.float32")
    for name, filters in (("k", k), *([] if k_rev is None else [("k_rev", k_rev)])):
        if not isinstance(filters, Tensor):
            raise ArgumentError(f"{name} is of type {type(filters).__name__}; give a torch.Tensor")
    dtype = k.dtype if dtype is None else dtype
    rows = max(k.shape[0], 1 if k_rev is None else k_rev.shape[0])
    # An input that takes no memory, for the checks and the lowering of a call.
    u = torch.empty((), dtype=dtype, device=k.device).expand(1, rows, length)
    a = lower(
        u, k, None, mode=mode, k_rev=k_rev, pregate=None, postgate=None, history=None, cu_seqlens=None, layout="BHL",
        precision=None, frequency_mask=frequency_mask,
    )  # fmt: skip
    # A copy: the filter may be written to, its spectrum would not know.
    taps = resolved(a.given.taps).detach().clone(memory_format=torch.contiguous_format)
    taps = taps if taps.dtype in (torch.float32, dtype) else taps.to(dtype)
    mask = None if frequency_mask is None else frequency_mask.text
    return _prepared(taps, a.lag0, length, dtype, mode, mask, backend)


def _prepared(
    taps: Tensor,
    lag0: int,
    length: int,
    dtype: torch.dtype,
    mode: str,
    mask: str | None,
    asked: str,
    kept: dict[str, Any] | None = None,
) -> PreparedFilter:
    """The filter, with the spectrum in `kept` if that is of the form which is used here."""
    u = torch.empty((), dtype=dtype, device=taps.device).expand(1, taps.shape[0], length)
    problem = Problem.of(
        u, Filters.of(taps), in_start=0, in_len=length, out_start=0, out_len=MODES[mode].out_len(length, taps.shape[-1]),
        lag0=lag0, reverse=False, circular=MODES[mode].circular,
        mask=None if mask is None else FrequencyMask.of_text(mask),
    )  # fmt: skip
    engine, _ = backends.choose(problem, asked)
    name, tag = engine.__name__.rpartition(".")[2], engine.spectrum_tag(problem)
    if kept is not None and (kept["backend"], kept["tag"]) == (name, tag):
        # A copy of our own: contiguous, and where vectors may be loaded from.
        spectrum = None if kept["spectrum"] is None else kept["spectrum"].clone(memory_format=torch.contiguous_format)
    else:
        with torch.no_grad():
            spectrum = engine.prepare(problem, taps)
    return PreparedFilter(taps, lag0, length, dtype, mode, mask, asked, name, spectrum, tag)
