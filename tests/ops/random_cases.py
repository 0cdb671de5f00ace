"""Random calls of `long_conv`, for hypothesis: every option at once."""

from __future__ import annotations

import torch
from arguments import STRIDES, Case
from hypothesis import strategies as st

from longwave.lowering import MODES
from longwave.masks import FrequencyMask

REAL = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
COMPLEX = (torch.complex128, torch.complex64)
# Samples times taps that the direct sums of one case may have.
MOST_TERMS = 2**25
# Samples and taps together where there is a mask: its direct sums are over all lags and all frequencies.
MOST_MASKED = 150


def _lengths(draw: st.DrawFn) -> tuple[int, int]:
    """Samples and taps: tens, hundreds, and in one case of thirty thousands."""
    longest = draw(st.sampled_from([40] * 13 + [400] * 16 + [4000]))
    return draw(st.integers(1, longest)), draw(st.integers(1, draw(st.sampled_from([40, longest]))))


def _mask(draw: st.DrawFn, L: int, documents: bool) -> FrequencyMask:
    """A band of |f|, in sixteenths; a grid of few frequencies has some below ¼, and a document may have none."""
    low = draw(st.integers(0, 6))
    high = min(8, low + draw(st.integers(5, 8)))
    low, high = (low, high) if documents or L >= 8 else (0, 5)
    return FrequencyMask.from_bands([(low / 16, high / 16)], leaks_future=True)


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = REAL + COMPLEX) -> Case:
    mode = draw(st.sampled_from(sorted(MODES)))
    allowed = MODES[mode]
    L, K = _lengths(draw)
    batched = draw(st.booleans())
    documents = None
    if allowed.cu_seqlens and draw(st.integers(0, 3)) == 0:
        documents = (0, *sorted(draw(st.lists(st.integers(0, L), max_size=5))), L)
    rows = max(1, MOST_TERMS // (L * K))
    B = 1 if documents or not batched else draw(st.integers(1, min(4, rows)))
    H = draw(st.sampled_from([H for H in (1, 2, 3, 4, 6, 8, 9, 17, 20, 34) if rows >= B * H]))
    filters = st.sampled_from(["channel", "shared", *["group"] * (H % 2 == 0), *["sample"] * batched])
    dtype = draw(st.sampled_from(dtypes))
    some = st.integers(1, draw(st.sampled_from([5, 40, max(L, K)])))
    options = {
        "K_rev": draw(some) if allowed.k_rev and draw(st.booleans()) else 0,
        "P": draw(some) if allowed.history and draw(st.booleans()) else 0,
        "D": draw(st.booleans()),
        "pregate": draw(st.booleans()),
        "postgate": draw(st.booleans()),
    }
    few = L + K + options["K_rev"] + options["P"] < MOST_MASKED
    given = ["u", "k", *(name for name, x in zip(("k_rev", "history", *list(options)[2:]), options.values(), strict=True) if x)]
    return Case(
        mode=mode,
        B=B,
        H=H,
        L=L,
        K=K,
        filters=draw(filters),
        filters_rev=draw(filters) if options["K_rev"] else None,
        documents=documents,
        mask=_mask(draw, L, documents is not None) if few and draw(st.booleans()) else None,
        layout=draw(st.sampled_from(["BHL", "BLH"])),
        batched=batched,
        strides=draw(st.sampled_from([*STRIDES, "any", "any"])),
        dtype=dtype,
        filter_dtype=draw(st.sampled_from([None, torch.float32])),
        history_dtype=draw(st.sampled_from([None, torch.float32])),
        frozen=tuple(draw(st.lists(st.sampled_from(given), unique=True, max_size=2))) if draw(st.integers(0, 3)) == 0 else (),
        seed=draw(st.integers(0, 1000)),
        **options,
    )
