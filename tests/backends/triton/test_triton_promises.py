"""What the engine promises beside values: bits that do not depend on company, rows that do not leak, spectra that keep."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import longwave
from longwave import backends
from longwave.backends import triton as engine
from longwave.backends.triton import blocks, configurations, layouts, shapes, tables
from longwave.bench.tolerances import bound, relative_l2
from longwave.errors import UnsupportedError
from longwave.problem import Filters, Problem

pytestmark = pytest.mark.usefixtures("by_transforms")

F16, F32 = torch.float16, torch.float32


def _gradients(u: Tensor, k: Tensor, dy: Tensor) -> list[Tensor]:
    u, k = u.detach().requires_grad_(), k.detach().requires_grad_()
    y = longwave.long_conv(u, k, backend="triton")
    return [y.detach(), *torch.autograd.grad(y, (u, k), dy)]


@pytest.mark.parametrize(("dtype", "L"), [(F16, 40), (F32, 300)], ids=str)
def test_bits_of_a_row_do_not_depend_on_its_company(dtype: torch.dtype, L: int, device: str) -> None:
    u, dy = torch.randn(2, 5, L, dtype=dtype, device=device), torch.randn(2, 5, L, dtype=dtype, device=device)
    k = torch.randn(5, L, dtype=dtype, device=device)
    # The interpreter's products are NumPy's, whose bits depend on the column: there the row is the first of its tile.
    h = 3 if device == "cuda" else 4
    y, du, dk = _gradients(u, k, dy)
    y_one, du_one, _ = _gradients(u[1:2, h : h + 1], k[h : h + 1], dy[1:2, h : h + 1])
    assert torch.equal(y[1:2, h : h + 1], y_one)
    assert torch.equal(du[1:2, h : h + 1], du_one)
    _, _, dk_one = _gradients(u[:, h : h + 1], k[h : h + 1], dy[:, h : h + 1])
    assert torch.equal(dk[h : h + 1], dk_one)
    assert not torch.equal(y[0, h], y[1, h])


def test_a_filters_gradient_has_one_order_however_products_wait(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    u, dy, k = (torch.randn(*shape, device=device) for shape in ((1, 3, 550), (1, 3, 550), (1, 550)))
    *_, dk = _gradients(u, k, dy)
    monkeypatch.setattr(blocks, "SCRATCH_BYTES", 1)  # one channel at a time
    assert torch.equal(_gradients(u, k, dy)[2], dk)


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # NumPy, in the interpreter
@pytest.mark.parametrize("L", [40])
def test_a_nan_stays_in_its_row_and_channel(L: int, device: str) -> None:
    u, k = torch.randn(2, 5, L, device=device), torch.randn(5, L, device=device)
    dy = torch.randn_like(u)
    clean = _gradients(u, k, dy)
    u[1, 2, 3], u[0, 4, 5], k[1, 7] = float("nan"), float("inf"), float("nan")
    y, du, dk = _gradients(u, k, dy)
    touched = torch.zeros(2, 5, dtype=torch.bool, device=device)
    touched[1, 2] = touched[0, 4] = touched[:, 1] = True
    assert torch.equal(y[~touched], clean[0][~touched])
    assert y[touched].isnan().any(-1).all()
    assert torch.equal(du[:, [0, 2, 3, 4]], clean[1][:, [0, 2, 3, 4]])
    assert torch.equal(dk[[0, 1, 3]], clean[2][[0, 1, 3]])


@pytest.mark.parametrize("mode", ["causal", "circular", "same"])
@pytest.mark.parametrize("dtype", [F16, F32], ids=str)
def test_a_prepared_filter_has_the_bits_of_its_taps(mode: str, dtype: torch.dtype, device: str) -> None:
    u, k = torch.randn(2, 4, 50, dtype=dtype, device=device), torch.randn(2, 30, dtype=dtype, device=device)
    prepared = longwave.prepare_filter(k, 50, mode=mode, backend="triton")
    assert prepared.spectrum is not None
    want = longwave.long_conv(u, k, mode=mode, backend="triton")
    k.fill_(float("nan"))
    assert torch.equal(longwave.long_conv(u, prepared, mode=mode), want)
    v = u.detach().requires_grad_()
    longwave.long_conv(v, prepared, mode=mode).sum().backward()
    assert v.grad is not None
    assert v.grad.isfinite().all()


def test_a_prepared_filter_behind_a_mask(device: str) -> None:
    u, k = torch.randn(1, 2, 40, device=device), torch.randn(2, 40, device=device)
    mask = longwave.FrequencyMask.lowpass(0.5, leaks_future=True)
    want = longwave.long_conv(u, k, frequency_mask=mask, backend="triton")
    prepared = longwave.prepare_filter(k, 40, frequency_mask=mask, backend="triton")
    assert torch.equal(longwave.long_conv(u, prepared), want)


@pytest.mark.parametrize("mode", ["causal", "circular", "same"])
def test_bits_behind_a_mask_do_not_depend_on_company(mode: str, device: str) -> None:
    u, dy, k = (torch.randn(*shape, device=device) for shape in ((1, 5, 90), (1, 5, 90), (5, 90)))
    mask = longwave.FrequencyMask.lowpass(0.5, leaks_future=True)

    def run(h: slice) -> list[Tensor]:
        leaves = [x.detach().requires_grad_() for x in (u[:, h], k[h])]
        y = longwave.long_conv(*leaves, mode=mode, frequency_mask=mask, backend="triton")
        return [y.detach()[0], *(grad.view(-1, 90) for grad in torch.autograd.grad(y, leaves, dy[:, h]))]

    for whole, alone in zip(run(slice(0, 5)), run(slice(4, 5)), strict=True):
        assert torch.equal(whole[4:], alone)
        assert not torch.equal(whole[3], whole[4])


@pytest.mark.parametrize(("of_u", "of_k"), [(0.01, 1e-3), (1e-3, 1.0), (1.0, 1e-5)])
def test_small_samples_and_taps_do_not_underflow(of_u: float, of_k: float, device: str) -> None:
    u, k = (of_u * torch.randn(1, 2, 200, device=device)).half(), of_k * torch.randn(2, 200, device=device) / 200**0.5
    truth = torch.fft.irfft(torch.fft.rfft(u.double(), n=400) * torch.fft.rfft(k.double(), n=400), n=400)[..., :200]
    y = longwave.long_conv(u, k, backend="triton")
    assert relative_l2(y, truth) <= bound(F16, 200, "triton", truth=truth)


def test_a_mean_far_from_zero_does_not_overflow(device: str) -> None:
    u, k = (torch.randn(1, 1, 700, device=device) + 20).half(), torch.randn(1, 700, device=device) / 700**0.5
    truth = torch.fft.irfft(torch.fft.rfft(u.double(), n=1400) * torch.fft.rfft(k.double(), n=1400), n=1400)[..., :700]
    assert relative_l2(longwave.long_conv(u, k, backend="triton"), truth) <= bound(F16, 700, "triton", truth=truth)


def test_transforms_are_no_longer_than_they_need() -> None:
    """From 4,096 points on at most a quarter above, and 14,113 samples as one expects."""
    for wide in (False, True):
        lengths = [shapes.TRANSFORM_LENGTH[wide, 1](n) for n in range(1, 70_000, 97)]
        assert lengths == sorted(lengths)
        for n, N in zip(range(1, 70_000, 97), lengths, strict=True):
            assert n <= N
            assert 1.26 * n >= N or n <= 4096 + 1024
    assert shapes.TRANSFORM_LENGTH[False, 1](14_113) == 14_336
    assert shapes.TRANSFORM_LENGTH[False, 1](2**24) == 2**24


@pytest.mark.parametrize("dtype", [F16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("length", "quarter"), [(16, 0), (16, 1), (32, 0), (48, 1), (64, 1), (128, 1)])
def test_matrices_of_16_bits_have_the_factor_under_which_they_are_rounded_best(
    length: int, quarter: int, dtype: torch.dtype
) -> None:
    """Four fifths at most of the error of such matrices with some other factor, which is 0.42 units in the mean."""
    f, factor = torch.view_as_real(tables.dft(length, quarter)), tables.rounding_gain(length, quarter, dtype)
    assert 0.5**0.5 <= factor <= 1
    units = 2 / torch.finfo(dtype).eps
    assert relative_l2((f * factor).to(dtype), f * factor) * units < 0.8 * 0.42
    assert tables.rounding_gain(length, quarter, F32) == 1


def _problem(**given: object) -> Problem:
    fields: dict[str, object] = {
        "batch": 1, "channels": 1, "in_start": 0, "in_len": 100, "out_start": 0, "out_len": 100, "taps": 100, "lag0": 0,
        "reverse": False, "circular": False, "groups": 1, "per_sample": False, "dtype": "float16", "filter_dtype": "float32",
        "device": "cuda",
    }  # fmt: skip
    return Problem(**(fields | given))  # type: ignore[arg-type]


def test_regimes_are_functions_of_lengths() -> None:
    def regime(L: int, K: int) -> str:
        return layouts.layout(_problem(in_len=L, out_len=L, taps=K)).regime

    assert [regime(100, 100), regime(4096, 4096), regime(4097, 4097), regime(2**24, 2**24)] == [
        "fused",
        "fused",
        "split",
        "split",
    ]
    assert regime(2**20, 128) == "windows"
    assert regime(4096, 4000) == "fused"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_that_use_both_planes_go_in_shapes_that_hold_them(dtype: str) -> None:
    """A history and `full`: in a ring that is as long as it must be, and in registers up to the longest such shape."""
    wide, seen = dtype == "float32", set()
    for L in range(20, 5000, 61):
        for P, K, more in ((L, L, 0), (50, L, 0), (0, L, L - 1)):
            p = _problem(in_start=-P, in_len=L + P, history=P, out_len=L + more, taps=K, dtype=dtype)
            at = layouts.layout(p)
            if at.windows or at.outer:
                assert L > 1500 or P == 50
                continue
            assert at.N == at.shape.N
            assert 2 * at.N >= L + P
            assert L + more <= 2 * at.N
            if at.source_upper or at.target_upper:
                seen.add(at.shape)
    assert seen == set(shapes.used(wide, 2))
    assert seen <= set(shapes.BOTH[wide])
    assert shapes.Shape(16, 16, 16) not in seen


def test_auto_leaves_gpus_to_plain_until_a_run_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not configurations.PASSED
    reason = engine.passes(_problem())
    assert reason is not None
    assert "not been verified on a GPU" in reason
    monkeypatch.setitem(configurations.PASSED, "fused", "a device, a date, a command")
    assert engine.passes(_problem()) is None
    assert engine.passes(_problem(segments=(0, 40, 100))) is None
    long = {"in_len": 10_000, "out_len": 10_000, "taps": 10_000}
    assert "'split'" in (engine.passes(_problem(segments=(0, 40, 10_000), **long)) or "")
    mask = longwave.FrequencyMask.lowpass(0.5, leaks_future=True)
    assert engine.passes(_problem(mask=mask)) is None
    assert "'split'" in (engine.passes(_problem(mask=mask, **long)) or "")


def test_a_gpu_that_does_not_multiply_what_it_should_is_refused_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that the tensors are on, whatever else is in the machine; without an index the current one."""
    monkeypatch.setattr(engine, "interprets", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: [(9, 0), (7, 5)][device])
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    engine._capability.cache_clear()
    sentence = "it needs GPUs of compute capability 8.0, and this one has 7.5; backend='plain' runs on it"
    assert [engine.refuses(_problem(device_index=i)) for i in (0, 1, None)] == [None, sentence, sentence]
    engine._capability.cache_clear()


def test_a_problem_knows_which_device_its_tensors_are_on() -> None:
    filters = Filters.of(torch.empty(1, 3))
    for name, index in (("meta", None), ("cpu", None)):
        u = torch.empty(1, 1, 5, device=name)
        assert (_of(u, filters).device, _of(u, filters).device_index) == (name, index)
    with FakeTensorMode():
        u = torch.empty(1, 1, 5, device="cuda:1")
        assert (_of(u, filters).device, _of(u, filters).device_index) == ("cuda", 1)


def _of(u: Tensor, filters: Filters) -> Problem:
    return Problem.of(u, filters, in_start=0, in_len=5, out_start=0, out_len=5, lag0=0, reverse=False, circular=False)


def test_a_transform_beyond_the_longest_is_refused_of_documents_and_behind_masks_too() -> None:
    mask = longwave.FrequencyMask.lowpass(0.5, leaks_future=True)
    long = {"in_len": 2**31, "out_len": 2**31, "taps": 2**31}
    for given in ({}, {"segments": (0, 5, 2**31)}, {"mask": mask}):
        assert "backend='plain' takes them" in (engine.refuses(_problem(**long, **given)) or "")


@pytest.mark.parametrize("given", [{"dtype": "float64"}, {"dtype": "complex64"}])
def test_what_the_engine_cannot_do_it_refuses_and_names_who_can(given: dict[str, object]) -> None:
    reason = engine.refuses(_problem(**given))
    assert reason is not None
    assert "backend='plain'" in reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU multiplies bfloat16")
def test_the_interpreter_refuses_transforms_of_bfloat16_and_sums_them_up() -> None:
    u, k = torch.randn(1, 2, 50).bfloat16(), torch.randn(2, 40)
    truth = longwave.long_conv(u.double(), k.double(), backend="plain")
    with pytest.raises(UnsupportedError, match=r"multiplies no matrices of bfloat16; a GPU does, .* backend='plain' takes"):
        longwave.long_conv(u, k, backend="triton")
    # The interpreter cuts bfloat16 off where it should round, which is twice the error.
    allowed = 2 * bound(torch.bfloat16, 50, "plain", truth=truth)
    assert relative_l2(longwave.long_conv(u, k, precision="high", backend="triton"), truth) <= allowed


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_and_an_interpreter_the_backend_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    assert "NVIDIA GPU" in (engine.missing() or "")
    with pytest.raises(UnsupportedError, match="backend='triton' cannot run this call: it needs an NVIDIA GPU"):
        longwave.long_conv(torch.randn(1, 1, 77), torch.randn(1, 77), backend="triton")


def _are_there(grids: list[tuple[int, ...]]) -> bool:
    """A grid has 2^31 - 1 programs in its first dimension and 65,535 in the others."""
    return all(grid[0] < 2**31 and max(grid[1:], default=0) <= 65_535 for grid in grids)


@pytest.mark.parametrize("L", [2, 300])
def test_any_number_of_channels_makes_grids_that_a_device_has(
    L: int, grids: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, device: str
) -> None:
    if L > 2:
        request.getfixturevalue("short_shapes")
    monkeypatch.setattr(blocks, "SCRATCH_BYTES", 2**40)
    H = 70_000
    u, k = (torch.zeros(1, 1, L, dtype=F16, device=device).expand(1, H, L).requires_grad_() for _ in range(2))
    longwave.long_conv(u, k[0], torch.zeros(H, device=device, requires_grad=True), backend="triton").sum().backward()
    assert len(grids) >= 8
    assert _are_there(grids)


def _nowhere(*shape: int, dtype: torch.dtype) -> Tensor:
    """A tensor without values, on a device without memory: nothing can read it, and nothing wait for it."""
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tensors of the meta device are no GPU's")
@pytest.mark.parametrize("dtype", [F16, torch.bfloat16, F32], ids=str)
@pytest.mark.parametrize(
    ("L", "K"), [(500, 500), (5000, 5000), (2**20, 200), (2**20, 7), (2**24, 2**24), (40_000_000, 40_000_000), (2**29, 2**29)]
)
def test_a_call_reads_no_value_and_launches_what_a_device_has(
    L: int, K: int, dtype: torch.dtype, grids: list[tuple[int, ...]]
) -> None:
    """No copy to the host: what a graph cannot capture, and what would make the host wait, the meta device refuses."""
    u, gate, D = _nowhere(2, 3, L, dtype=dtype), _nowhere(2, 3, L, dtype=dtype), _nowhere(3, dtype=F32)
    k, past = _nowhere(3, K, dtype=F32), _nowhere(2, 3, 9, dtype=dtype)
    y = longwave.long_conv(u, k, D, pregate=gate, postgate=gate, history=past, backend="triton")
    grads = torch.autograd.grad(y, (u, k, D, gate, past), torch.empty_like(y))
    assert [grad.shape for grad in grads] == [x.shape for x in (u, k, D, gate, past)]
    assert len(grids) >= 4
    assert _are_there(grids)


def test_longer_transforms_than_the_engines_are_refused_and_left_to_others() -> None:
    reason = engine.refuses(_problem(in_len=2**30 + 1, out_len=2**30 + 1, taps=2**30 + 1))
    assert (
        reason
        == "it transforms up to 536,870,912 points at a time, and 1,073,741,825 were asked for; backend='plain' takes them"
    )
    assert engine.refuses(_problem(in_len=2**29, out_len=2**29, taps=2**29)) is None


def test_listing_backends_does_not_import_triton() -> None:
    code = "import sys; from longwave import backends; backends.available(); print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert "triton" in backends.names()


@pytest.mark.parametrize("mode", ["causal", "full"])
def test_a_plan_prints_what_runs(mode: str) -> None:
    plan = longwave.plan((2, 8, 20_000), (8, 20_000), mode=mode, dtype=F16, device="cuda", backend="triton")
    assert "split, right-angle transforms of" in str(plan)
    assert plan.N >= 20_000
    assert plan.bytes > plan.result_bytes
    assert plan.backward_bytes > plan.bytes
