"""Values and first gradients of `long_conv` against direct sums, over every mode, option, shape, stride and dtype."""

from __future__ import annotations

import devices
import pytest
import torch
from arguments import Case, arguments, backends_here, compare, truth_of
from devices import here, randn

import longwave
from longwave.errors import UnsupportedError
from longwave.masks import FrequencyMask

LENGTHS = [(1, 1), (1, 5), (2, 1), (7, 3), (7, 20), (31, 31), (97, 97), (100, 13), (60, 61), (64, 64), (65, 200), (127, 128)]
EVERYTHING = {"D": True, "pregate": True, "postgate": True}

HALF = FrequencyMask.lowpass(0.5, leaks_future=True)
BANDS = FrequencyMask.from_bands([(0.05, 0.2), (0.4, 0.45)], leaks_future=True)
BLOCKS = FrequencyMask.from_blocks([0, 1, 3], 4, leaks_future=True)

MASKED = [
    *[
        Case(mode=m, L=L, K=K, mask=HALF)
        for m in ("causal", "circular", "same", "full")
        for L, K in ((31, 31), (40, 13), (23, 60))
    ],
    *[Case(mode=m, L=29, K=17, mask=BANDS, **EVERYTHING) for m in ("causal", "circular", "same", "full")],
    *[Case(mode=m, L=23, K=9, K_rev=14, mask=FrequencyMask.lowpass(0.3), **EVERYTHING) for m in ("causal", "circular")],
    *[Case(L=20, K=K, P=P, mask=HALF, **EVERYTHING) for K, P in ((20, 1), (7, 33), (64, 20))],
    Case(L=20, K=12, P=9, K_rev=6, mask=BANDS, **EVERYTHING),
    *[Case(filters=f, L=17, K=11, mask=HALF, **EVERYTHING) for f in ("shared", "group", "sample")],
    *[Case(layout="BLH", mode=m, L=19, K=8, mask=BANDS, **EVERYTHING) for m in ("causal", "circular", "same", "full")],
    *[Case(strides=s, L=19, K=19, P=4, mask=HALF, **EVERYTHING) for s in ("cut", "expanded", "reversed_axes")],
    Case(batched=False, layout="BLH", L=19, K=19, P=4, mask=HALF, **EVERYTHING),
    *[
        Case(mode=m, B=1, L=40, K=K, documents=d, mask=HALF, layout=layout, **EVERYTHING)
        for m, layout in (("causal", "BHL"), ("circular", "BLH"), ("same", "BHL"))
        for K in (6, 40)
        for d in ((0, 40), (0, 1, 2, 17, 40), (0, 0, 13, 13, 26, 40, 40))
    ],
    Case(B=1, L=40, K=15, documents=(0, 9, 18, 40), P=11, K_rev=5, mask=BANDS, **EVERYTHING),
    Case(B=1, L=40, K=15, documents=(0, 0, 20, 40), P=11, mask=HALF, **EVERYTHING),
    Case(L=24, K=24, mask=BLOCKS, **EVERYTHING),
    Case(L=24, K=40, mode="same", mask=BLOCKS),
    Case(L=24, K=24, mode="circular", mask=FrequencyMask.from_blocks([0, 1, 3], 4)),
    Case(L=1, K=5, P=2, mask=FrequencyMask.lowpass(1.0, leaks_future=True), **EVERYTHING),
    *[Case(dtype=torch.complex128, mode=m, L=23, K=11, mask=BANDS, **EVERYTHING) for m in ("causal", "circular", "full")],
]

CASES = [
    *[Case(mode=mode, L=L, K=K) for mode in ("causal", "circular", "same", "full") for L, K in LENGTHS],
    *[Case(mode=mode, L=23, K=K, **EVERYTHING) for mode in ("causal", "circular", "same", "full") for K in (9, 23, 40)],
    *[Case(mode=mode, L=29, K=K, K_rev=R) for mode in ("causal", "circular") for K, R in ((29, 29), (5, 70), (70, 5), (1, 1))],
    *[Case(L=20, K=K, P=P, **EVERYTHING) for K, P in ((20, 1), (7, 33), (64, 20), (1, 4))],
    Case(L=20, K=12, P=9, K_rev=6, **EVERYTHING),
    *[Case(mode=m, filters=f, L=17, K=11, **EVERYTHING) for m in ("causal", "full") for f in ("shared", "group", "sample")],
    Case(filters="group", K_rev=4, L=17, K=9),
    Case(filters="sample", K_rev=4, L=17, K=9),
    *[Case(layout="BLH", mode=m, L=19, K=8, **EVERYTHING) for m in ("causal", "circular", "same", "full")],
    *[Case(layout="BLH", strides=s, L=19, K=19, P=4, **EVERYTHING) for s in ("cut", "expanded", "reversed_axes")],
    *[Case(strides=s, L=19, K=19, P=4, **EVERYTHING) for s in ("cut", "expanded", "reversed_axes")],
    *[Case(batched=False, layout=layout, L=19, K=19, P=4, **EVERYTHING) for layout in ("BHL", "BLH")],
    *[Case(pregate=a, postgate=b, D=d, L=12, K=12) for a, b, d in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1))],
    *[
        Case(mode=m, B=1, L=40, K=K, documents=d, **EVERYTHING)
        for m in ("causal", "circular", "same")
        for K in (6, 40)
        for d in ((0, 40), (0, 1, 2, 17, 40), (0, 0, 13, 13, 40, 40))
    ],
    Case(B=1, L=40, K=15, documents=(0, 9, 40), P=11, K_rev=5, **EVERYTHING),
    Case(B=1, L=40, K=15, documents=(0, 0, 40), P=11, **EVERYTHING),
    Case(B=1, batched=False, layout="BLH", L=40, K=15, documents=(0, 9, 40)),
    Case(H=1, B=1, L=50, K=50),
    *[Case(dtype=torch.complex128, mode=m, L=23, K=11, **EVERYTHING) for m in ("causal", "circular", "same", "full")],
    Case(dtype=torch.complex128, L=23, K=11, K_rev=7, P=5, **EVERYTHING),
    *MASKED,
]


def _compare(case: Case, backend: str) -> None:
    try:
        compare(case, backend)
    except UnsupportedError as refusal:
        pytest.skip(str(refusal))


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients_equal_the_direct_sum(case: Case, backend: str) -> None:
    _compare(case, backend)


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64], ids=str)
@pytest.mark.parametrize("filter_dtype", [None, torch.float32], ids=["own", "float32"])
@pytest.mark.parametrize("mode", ["causal", "circular", "same", "full"])
def test_value_and_gradients_in_every_dtype(
    dtype: torch.dtype, filter_dtype: torch.dtype | None, mode: str, backend: str
) -> None:
    K_rev, P = (33, 0) if mode == "circular" else (33, 20) if mode == "causal" else (0, 0)
    _compare(Case(mode=mode, L=301, K=301, dtype=dtype, filter_dtype=filter_dtype, K_rev=K_rev, P=P, **EVERYTHING), backend)


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64], ids=str)
@pytest.mark.parametrize("mode", ["causal", "circular", "same", "full"])
def test_masked_value_and_gradients_in_every_dtype(dtype: torch.dtype, mode: str, backend: str) -> None:
    K_rev, P = (33, 0) if mode == "circular" else (33, 20) if mode == "causal" else (0, 0)
    mask = FrequencyMask.lowpass(0.25, leaks_future=True)
    for filter_dtype in (None, torch.float32):
        options = {"dtype": dtype, "filter_dtype": filter_dtype, "K_rev": K_rev, "P": P, **EVERYTHING}
        _compare(Case(mode=mode, L=101, K=101, mask=mask, **options), backend)


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bit_results_are_the_exact_result_rounded_once(dtype: torch.dtype, backend: str) -> None:
    """Rounding between load and store would double the error: almost every sample must be the nearest one."""
    kwargs = arguments(Case(L=512, K=512, dtype=dtype, filter_dtype=torch.float32, **EVERYTHING))
    truth = truth_of(kwargs).detach()
    y = longwave.long_conv(**kwargs, backend=backend).detach()
    nearest = (y == truth.to(dtype)).double().mean().item()
    assert nearest > 0.99
    v_rounded = (kwargs["u"] * kwargs["pregate"]).detach()  # the control: one more rounding is seen
    sloppy = longwave.long_conv(v_rounded, kwargs["k"], kwargs["D"], postgate=kwargs["postgate"], backend=backend).detach()
    assert (sloppy == truth.to(dtype)).double().mean().item() < 0.9


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("mode", ["causal", "circular", "same", "full"])
def test_long_rows_of_awkward_length(mode: str, backend: str) -> None:
    """A prime, 2^n ± 1 and 14,113 (which a rival refuses): the float64 result is itself the sum at a few samples."""
    for L in (1021, 4095, 4097, 14113):
        case = Case(mode=mode, B=1, H=1, L=L, K=L, filters="shared")
        kwargs = arguments(case)
        u, k = kwargs["u"].detach()[0, 0], kwargs["k"].detach()[0]
        y = longwave.long_conv(**kwargs, backend=backend).detach()[0, 0]
        shift = -((L - 1) // 2) if mode == "same" else 0
        for t in (0, 1, L // 3, L - 1, len(y) - 1):
            s = here(torch.arange(L))
            index = t - s - shift
            index, inside = (index % L, index == index) if mode == "circular" else (index, (index >= 0) & (index < L))
            want = (k[inside] * u[index[inside]]).sum()
            assert abs(y[t] - want) < 1e-12


def test_blocks_of_rows_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few rows are in flight, every option sees its own rows."""
    from longwave.backends.plain import plans, rows

    for filters in ("channel", "shared", "group", "sample"):
        case = Case(B=3, H=6, L=40, K=17, P=5, filters=filters, **EVERYTHING)
        for scratch, least in ((1, 1), (2**13, 1), (2**15, 4)):
            monkeypatch.setattr(plans, "ROWS_AT_LEAST", least)
            monkeypatch.setitem(rows.SCRATCH_BYTES, devices.DEVICE, scratch)
            plans.plan.cache_clear()
            _compare(case, "plain")
    plans.plan.cache_clear()


def test_equals_torch_conv1d() -> None:
    u, k = randn(2, 5, 50, dtype=torch.float64), randn(5, 50, dtype=torch.float64)
    want = torch.nn.functional.conv1d(torch.nn.functional.pad(u, (49, 0)), k.flip(-1).unsqueeze(1), groups=5)
    torch.testing.assert_close(longwave.long_conv(u, k), want, rtol=1e-12, atol=1e-12)


def test_a_lazy_conjugate_is_not_forgotten() -> None:
    u, k = randn(1, 2, 9, dtype=torch.complex128), randn(2, 9, dtype=torch.complex128)
    want = longwave.long_conv(u.conj().resolve_conj(), k)
    for run in (longwave.long_conv, torch.compile(longwave.long_conv, backend="aot_eager", fullgraph=True)):
        torch.testing.assert_close(run(u.conj(), k), want, rtol=1e-12, atol=1e-12)
        negative = u.conj().imag
        torch.testing.assert_close(run(negative, k.real.clone()), longwave.long_conv(negative.clone(), k.real.clone()))


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("filters", ["channel", "sample"])
@pytest.mark.parametrize("K", [3, 20])
@pytest.mark.parametrize("mode", ["causal", "same", "circular"])
def test_many_documents_of_few_lengths(backend: str, filters: str, K: int, mode: str) -> None:
    """Documents that may be taken together: of one length, of neighbouring lengths with one transform, and empty ones."""
    lengths = torch.randint(0, 9, (40,), generator=torch.Generator().manual_seed(K))
    documents = (0, *lengths.cumsum(0).tolist())
    case = Case(
        mode=mode, B=1, H=4, L=documents[-1], K=K, filters=filters, P=3 * (mode == "causal"), documents=documents, D=True,
        pregate=True, postgate=True,
    )  # fmt: skip
    compare(case, backend)
    kwargs = arguments(case)
    with torch.no_grad():
        kwargs["u"][..., documents[7] : documents[8]] = float("nan")
        clean = longwave.long_conv(**kwargs, backend=backend).isfinite().all(dim=1)[0]
    assert documents[7] < documents[8]
    assert not clean[documents[7] : documents[8]].any()
    assert clean[: documents[7]].all()
    assert clean[documents[8] :].all()
