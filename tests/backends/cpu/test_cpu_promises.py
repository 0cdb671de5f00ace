"""What the engine promises beside the right numbers: the same bits in any company, isolation, forks, threads, a fresh cache."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import pytest
import torch
from allocated import peak_bytes
from torch import Tensor

import longwave
from longwave.backends.cpu import calls, jit, pages, plans, results, threads, words
from longwave.bench.tolerances import bound, relative_l2
from longwave.bench.tune import set_crossovers
from longwave.operands import Operands
from longwave.ops.long_conv import Call, problem_of


@pytest.fixture
def threads_set() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def always_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "INLINE_SECONDS", 1e-9)


def _everything(u: Tensor, k: Tensor, D: Tensor, gate: Tensor, needs_k: bool = False) -> list[Tensor]:
    """y and the gradients of u and both gates (and of the filter)."""
    leaves = [u.clone().requires_grad_(), gate.clone().requires_grad_(), gate.flip(-1).clone().requires_grad_()]
    taps = k.clone().requires_grad_(needs_k)
    y = longwave.long_conv(leaves[0], taps, D, pregate=leaves[1], postgate=leaves[2], backend="cpu")
    return [y.detach(), *torch.autograd.grad(y, leaves + [taps] * needs_k, gate)]


@pytest.mark.parametrize("L", [1, 7, 100, 512])
@pytest.mark.usefixtures("always_on_threads")
def test_a_row_alone_has_the_bits_it_has_in_any_batch(L: int, threads_set: Callable[[int], None]) -> None:
    """One row and channel against all sizes of batch, on one thread and two."""
    u, gate, k, D = torch.randn(5, 40, L), torch.randn(5, 40, L), torch.randn(40, L), torch.randn(40)
    whole = _everything(u, k, D, gate)
    for B, H in ((1, 1), (1, 3), (2, 7), (3, 8), (2, 9), (5, 17), (1, 33), (4, 40)):
        for count in (1, 2):
            threads_set(count)
            part = _everything(u[:B, :H], k[:H], D[:H], gate[:B, :H])
            for a, b in zip(whole, part, strict=True):
                assert torch.equal(a[:B, :H], b)
    last = _everything(u[4:, 39:], k[39:], D[39:], gate[4:, 39:])
    for a, b in zip(whole, last, strict=True):
        assert torch.equal(a[4:, 39:], b)
    assert not torch.equal(whole[0], longwave.long_conv(u, k.double().to(k.dtype), D, backend="plain"))  # equal() can fail


@pytest.mark.usefixtures("by_windows", "always_on_threads")
def test_a_row_alone_has_the_same_bits_in_windows_too(threads_set: Callable[[int], None]) -> None:
    u, gate, k, D = torch.randn(3, 20, 900), torch.randn(3, 20, 900), torch.randn(20, 19), torch.randn(20)
    threads_set(1)
    whole = _everything(u, k, D, gate)
    for B, H in ((1, 1), (1, 3), (3, 1), (2, 7), (3, 20)):
        for count in (1, 2, 3):
            threads_set(count)
            part = _everything(u[:B, :H], k[:H], D[:H], gate[:B, :H])
            for a, b in zip(whole, part, strict=True):
                assert torch.equal(a[:B, :H], b)


@pytest.mark.parametrize(("L", "K"), [(4000, 200), (300, 300)])
def test_a_filter_of_one_sample_has_the_gradient_it_has_alone(L: int, K: int) -> None:
    u, dy, k = torch.randn(5, 40, L), torch.randn(5, 40, L), torch.randn(5, 40, K)

    def gradient(b: slice, h: slice) -> Tensor:
        taps = k[b, h].clone().requires_grad_()
        (dk,) = torch.autograd.grad(longwave.long_conv(u[b, h], taps, backend="cpu"), taps, dy[b, h])
        return dk

    whole = gradient(slice(None), slice(None))
    for b, h in ((slice(3, 4), slice(17, 18)), (slice(0, 2), slice(30, 40))):
        assert torch.equal(whole[b, h], gradient(b, h))


@pytest.mark.usefixtures("by_six_steps", "always_on_threads")
def test_a_row_alone_has_the_same_bits_by_six_steps_too(threads_set: Callable[[int], None]) -> None:
    """Rows that threads take whole, and rows that they share."""
    L = 700
    u, gate, k, D = torch.randn(5, 20, L), torch.randn(5, 20, L), torch.randn(20, L), torch.randn(20)
    threads_set(1)
    whole = _everything(u, k, D, gate, needs_k=True)
    for together in (0, 2**40):
        with set_crossovers(whole_rows_bytes=together):
            for B, H in ((5, 20), (1, 1), (1, 3), (5, 1), (2, 7)):
                for count in (1, 2, 3):
                    threads_set(count)
                    part = _everything(u[:B, :H], k[:H], D[:H], gate[:B, :H], needs_k=True)
                    for a, b in zip(whole[:4], part[:4], strict=True):
                        assert torch.equal(a[:B, :H], b)
                    if B == 5:
                        assert torch.equal(whole[4][:H], part[4])


@pytest.mark.parametrize(
    ("channels", "filters", "mode", "dtype", "keep"),
    [
        (37, (37,), "causal", torch.float32, None),
        (37, (3, 37), "causal", torch.float32, None),
        (40, (40,), "circular", torch.float32, None),
        (40, (1,), "circular", torch.float32, None),
        (60, (20,), "same", torch.float32, None),
        (60, (3, 60), "same", torch.float32, None),
        (20, (20,), "same", torch.float32, 0.5),
        (20, (20,), "full", torch.float32, 0.1),
        (48, (2,), "full", torch.bfloat16, None),
        (48, (3, 48), "full", torch.bfloat16, None),
        (16, (16,), "causal", torch.float64, None),
        (3, (3,), "causal", torch.float32, None),
    ],
)
@pytest.mark.usefixtures("by_six_steps", "always_on_threads")
def test_long_rows_have_the_same_bits_in_both_layouts(
    channels: int,
    filters: tuple[int, ...],
    mode: str,
    dtype: torch.dtype,
    keep: float | None,
    threads_set: Callable[[int], None],
) -> None:
    """BLH goes in strips of channels, also where the channels are some of a wider tensor's."""
    B, L, K = 3, 1500, 400
    out = L + K - 1 if mode == "full" else L
    wide = torch.randn(B, L, channels + 5, dtype=dtype)
    u, before = wide[..., 2 : channels + 2].transpose(1, 2), torch.randn(B, L, channels, dtype=dtype).transpose(1, 2)
    after, dy = (torch.randn(B, out, channels, dtype=dtype).transpose(1, 2) for _ in range(2))
    taps_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    k, D = torch.randn(*filters, K, dtype=taps_dtype), torch.randn(channels, dtype=taps_dtype)
    past = torch.randn(B, 90, channels, dtype=dtype).transpose(1, 2) if mode == "causal" else None
    mask = None if keep is None else longwave.FrequencyMask.lowpass(keep, leaks_future=True)

    def everything(layout: str, gates: tuple[bool, bool]) -> list[Tensor]:
        def laid_out(x: Tensor) -> Tensor:
            return x.contiguous() if layout == "BHL" else x.transpose(1, 2)

        named = {"u": laid_out(u), "k": k, "D": D}
        named |= {"pregate": laid_out(before)} if gates[0] else {}
        named |= {"postgate": laid_out(after)} if gates[1] else {}
        named |= {} if past is None else {"history": laid_out(past)}
        leaves = {name: x.detach().requires_grad_() for name, x in named.items()}
        y = longwave.long_conv(**leaves, mode=mode, layout=layout, frequency_mask=mask, backend="cpu")  # type: ignore[arg-type]
        grads = torch.autograd.grad(y, list(leaves.values()), laid_out(dy))
        found = [y, *grads]
        signals = {0, *(1 + i for i, name in enumerate(leaves) if name in ("u", "pregate", "postgate", "history"))}
        return [x.transpose(1, 2) if layout == "BLH" and i in signals else x for i, x in enumerate(found)]

    for gates in ((False, False), (True, False), (False, True), (True, True)):
        threads_set(1)
        rows = everything("BHL", gates)
        for count in (1, 3):
            threads_set(count)
            for a, b in zip(rows, everything("BLH", gates), strict=True):
                assert a.abs().sum() > 0
                assert torch.equal(a, b)


@pytest.mark.parametrize(("B", "L", "K"), [(5, 200, 200), (5, 512, 100), (19, 64, 64), (3, 900, 19)])
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
@pytest.mark.usefixtures("always_on_threads")
def test_the_gradient_of_a_filter_has_the_same_bits_in_any_company(
    B: int, L: int, K: int, layout: str, threads_set: Callable[[int], None]
) -> None:
    """Its sum over the batch, and over windows, has one order, for any number of channels and threads."""
    u, dy, k = torch.randn(B, 40, L), torch.randn(B, 40, L), torch.randn(40, K)

    def gradient(first: int, last: int) -> Tensor:
        def laid_out(x: Tensor) -> Tensor:
            x = x[:, first:last]
            return x if layout == "BHL" else x.transpose(1, 2).contiguous()

        taps = k[first:last].clone().requires_grad_()
        y = longwave.long_conv(laid_out(u), taps, layout=layout, backend="cpu")
        return torch.autograd.grad(y, taps, laid_out(dy))[0]

    for windows in (False, True):
        limits = {"windows_gain": 1e9, "shortest_window": 1, "longest_window": 64} if windows else {"windows_gain": 0.0}
        with set_crossovers(most_taps=((0, 0),), **limits):
            threads_set(1)
            whole = gradient(0, 40)
            for count in (1, 2, 3, 7):
                threads_set(count)
                for first, last in ((0, 40), (0, 1), (39, 40), (3, 6), (0, 8), (8, 20), (5, 38)):
                    assert torch.equal(whole[first:last], gradient(first, last)), (windows, count, first, last)


@pytest.mark.parametrize("K", [3, 30, 400])
@pytest.mark.parametrize("mode", ["causal", "same", "circular"])
@pytest.mark.usefixtures("always_on_threads")
def test_a_document_has_the_bits_it_has_alone(K: int, mode: str, threads_set: Callable[[int], None]) -> None:
    """Whatever algorithm its own length calls for; the documents beside it would call for others."""
    bounds = [0, 0, 1, 8, 300, 1300, 1300, 5000]
    u, gate, dy, k, D = (torch.randn(*shape) for shape in [(1, 9, 5000)] * 3 + [(9, K), (9,)])

    def made(a: int, b: int, cu_seqlens: Tensor | None) -> list[Tensor]:
        leaves = [u[..., a:b].clone().requires_grad_(), gate[..., a:b].clone().requires_grad_()]
        y = longwave.long_conv(leaves[0], k, D, pregate=leaves[1], mode=mode, cu_seqlens=cu_seqlens, backend="cpu")
        return [y.detach(), *torch.autograd.grad(y, leaves, dy[..., a:b])]

    with set_crossovers(six_step_from=2048):
        threads_set(2)
        packed = made(0, 5000, torch.tensor(bounds, dtype=torch.int32))
        threads_set(1)
        for a, b in itertools.pairwise(bounds):
            if a < b:
                for whole, alone in zip(packed, made(a, b, None), strict=True):
                    assert torch.equal(whole[..., a:b], alone)


@pytest.mark.parametrize("layout", ["BHL", "BLH"])
def test_strides_do_not_change_the_bits(layout: str) -> None:
    u, k = torch.randn(2, 21, 77), torch.randn(21, 77)
    want = longwave.long_conv(u, k, backend="cpu")
    wide = torch.full((2, 42, 90), float("nan"))
    wide[:, ::2, 6:83] = u
    turned = u.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for x in (wide[:, ::2, 6:83], turned, u.transpose(1, 2).contiguous().transpose(1, 2)):
        x = x if layout == "BHL" else x.transpose(1, 2)
        y = longwave.long_conv(x, k, layout=layout, backend="cpu")
        assert torch.equal(y if layout == "BHL" else y.transpose(1, 2), want)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_bad_row_reaches_no_other_bitwise(bad: float, dtype: torch.dtype) -> None:
    u, k = torch.randn(3, 19, 50).to(dtype), torch.randn(19, 50)
    clean = longwave.long_conv(u, k, backend="cpu")
    u[1, 18, 7] = bad
    y = longwave.long_conv(u, k, backend="cpu")
    others = torch.ones(3, 19, dtype=torch.bool)
    others[1, 18] = False
    assert torch.equal(y[others], clean[others])
    assert not torch.equal(y[1, 18], clean[1, 18])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bit_stores_round_as_pytorch_does(dtype: torch.dtype) -> None:
    """A filter of one tap, 1, stores what was loaded, for every pattern of bits; NaN of all payloads stay NaN."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).reshape(1, -1, 1)
    y = longwave.long_conv(every, torch.ones(every.shape[1], 1), backend="cpu")
    number = ~every.isnan()
    assert torch.equal(y.isnan(), ~number)
    assert torch.equal(y[number], every[number])
    halves = torch.linspace(-3, 3, 10001).reshape(1, -1, 1)
    scaled = longwave.long_conv(torch.ones_like(halves, dtype=dtype), halves[0], backend="cpu")
    assert torch.equal(scaled, halves.to(dtype))


def test_four_python_threads_at_once() -> None:
    u, k = torch.randn(4, 64, 1000), torch.randn(64, 1000)
    want = longwave.long_conv(u, k, backend="cpu")
    wrong = []

    def work() -> None:
        for _ in range(5):
            if not torch.equal(longwave.long_conv(u, k, backend="cpu"), want):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_an_error_in_a_range_reaches_the_caller(monkeypatch: pytest.MonkeyPatch, threads_set: Callable[[int], None]) -> None:
    monkeypatch.setattr(threads, "openmp", lambda: None)

    def fail(program: int, scratch: int, first: int, last: int, like: float) -> None:
        raise RuntimeError("as asked")

    threads_set(2)
    with pytest.raises(RuntimeError, match="as asked"):
        threads.run(fail, 0, 1.0, 8, 1.0, 64)


@pytest.mark.usefixtures("always_on_threads")
def test_the_pool_gives_the_bits_of_pytorchs_threads(
    monkeypatch: pytest.MonkeyPatch, threads_set: Callable[[int], None]
) -> None:
    u, gate, k, D = torch.randn(3, 70, 300), torch.randn(3, 70, 300), torch.randn(70, 300), torch.randn(70)
    threads_set(2)
    here = _everything(u, k, D, gate, needs_k=True)
    monkeypatch.setattr(threads, "openmp", lambda: None)
    for a, b in zip(here, _everything(u, k, D, gate, needs_k=True), strict=True):
        assert torch.equal(a, b)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other runtimes")
def test_pytorchs_runtime_is_found_and_used(threads_set: Callable[[int], None]) -> None:
    """Two kinds of threads on the same cores wait for each other: this failed by a factor of two where ours were apart."""
    team = threads.openmp()
    assert team is not None
    with open("/proc/self/maps", encoding="utf-8") as maps:
        libraries = {line.split()[-1] for line in maps if "gomp" in line or "libomp" in line or "iomp" in line}
    before = set(os.listdir("/proc/self/task"))
    threads_set(2)
    torch.ones(2**22).add_(1)
    started = set(os.listdir("/proc/self/task"))
    u = torch.randn(4, 64, 2000)
    longwave.long_conv(u, u[0], backend="cpu")
    assert set(os.listdir("/proc/self/task")) == started
    assert libraries
    assert before <= started


@pytest.mark.slow
def test_calls_in_turns_with_pytorchs_cost_no_more_than_their_sum(threads_set: Callable[[int], None]) -> None:
    """Threads of our own beside PyTorch's took up to twice the time: see threads.py. For a quiet machine."""
    threads_set(max(2, torch.get_num_threads()))
    u, k, a = torch.randn(4, 1024, 1024), torch.randn(1024, 1024), torch.randn(1024, 1024)

    def conv() -> None:
        longwave.long_conv(u, k, backend="cpu")

    def matmul() -> None:
        for _ in range(2):
            torch.mm(a, a)

    def seconds(*calls: Callable[[], None]) -> float:
        times = []
        for _ in range(30):
            start = time.perf_counter()
            for call in calls:
                call()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    ratios = [seconds(conv, matmul) / (seconds(conv) + seconds(matmul)) for _ in range(5)]
    assert min(seconds(conv), seconds(matmul)) > 2e-3
    assert statistics.median(ratios) <= 1.1, ratios


PROGRAM = """
import sys, torch, longwave
u, k = torch.linspace(-1, 1, 4 * 64 * 999).reshape(4, 64, 999).sin(), torch.linspace(0, 3, 64 * 999).reshape(64, 999).cos()
"""


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", PROGRAM + code],
        capture_output=True, text=True, check=True, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_computes_too() -> None:
    code = """
import os
torch.set_num_threads(2)
want = longwave.long_conv(u, k, backend="cpu")
child = os.fork()
if child == 0:
    torch.set_num_threads(2)
    y = longwave.long_conv(u, k, backend="cpu")
    os._exit(0 if (y.numpy() == want.numpy()).all() else 1)  # not torch.equal: its own pool does not survive a fork
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert _python(code) == "0"


def test_a_spawned_child_computes_too() -> None:
    code = """
import multiprocessing
torch.set_num_threads(2)
want = longwave.long_conv(u, k, backend="cpu")
with multiprocessing.get_context("spawn").Pool(1) as pool:
    y = pool.apply(longwave.long_conv, (u, k), {"backend": "cpu"})
print(torch.equal(y, want))
"""
    assert _python(code) == "True"


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["haswell", "skylake-avx512"])
def test_narrower_and_wider_vectors_give_the_same_bits(cpu: str, tmp_path: Path) -> None:
    if cpu == "skylake-avx512" and "avx512f" not in jit.binding.get_host_cpu_features().flatten().replace("-avx512f", ""):
        pytest.skip("this CPU has no AVX-512")
    code = "print(longwave.long_conv(u, k, backend='cpu').view(torch.int32).long().mul(torch.arange(999) + 1).sum().item())"
    assert _python(code, NUMBA_CPU_NAME=cpu) == _python(code)


OTHER_WIDTH = """
import hashlib, sys
from longwave.backends.cpu import simd
if int(sys.argv[1]):
    simd.vector_bytes = lambda: int(sys.argv[1])  # before anything is compiled
import torch, longwave
from longwave.bench.tune import set_crossovers
from longwave.operands import Operands
from longwave.ops.long_conv import Call, problem_of
bits = hashlib.sha256()
def add(B, H, L, K, dtype=torch.float32, mode="causal"):
    u, gate, dy = (torch.randn(B, H, L, dtype=dtype, requires_grad=True) for _ in range(3))
    k, D = torch.randn(H, K, requires_grad=True), torch.randn(H, requires_grad=True)
    y = longwave.long_conv(u, k, D, pregate=gate, postgate=gate.flip(-1), mode=mode, backend="cpu")
    for x in (y, *torch.autograd.grad(y, (u, k, D, gate), dy)):
        bits.update(x.detach().contiguous().view(torch.uint8).numpy().tobytes())
torch.manual_seed(0)
add(3, 20, 999, 999); add(2, 5, 300, 300, mode="same"); add(2, 40, 64, 5); add(3, 4, 128, 128, mode="circular")
add(2, 9, 512, 512, torch.bfloat16); add(2, 9, 512, 512, torch.float64)
with set_crossovers(six_step_from=256):
    add(2, 3, 2000, 2000)
with set_crossovers(windows_gain=1e9, shortest_window=1, longest_window=64, most_taps=((0, 0),)):
    add(2, 3, 900, 19)
print(bits.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("vector_bytes", [64, 16])
def test_lanes_of_any_number_give_the_same_bits(vector_bytes: int, tmp_path: Path) -> None:
    """The lanes of AVX-512 and of NEON, in the instructions of this machine: LLVM takes a wide vector apart."""

    def digest(width: int) -> str:
        cache = {"NUMBA_CACHE_DIR": str(tmp_path / str(width))}  # its folder's name does not say how wide
        command = [sys.executable, "-c", OTHER_WIDTH, str(width)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600, env={**os.environ, **cache})
        return done.stdout.strip()

    assert len(digest(0)) == 64
    assert digest(vector_bytes) == digest(0)


def test_a_cpu_without_fma_is_refused_rather_than_crashed() -> None:
    """LLVM aborts the process for a function it cannot find."""
    code = "from longwave import backends; print(backends.available()['cpu']); longwave.long_conv(u, k)"
    assert "AVX2" in _python(code, NUMBA_CPU_NAME="generic")


def test_without_compiling_the_reason_is_told() -> None:
    code = "from longwave import backends; print(backends.available()['cpu']); longwave.long_conv(u, k)"
    assert "NUMBA_DISABLE_JIT" in _python(code, NUMBA_DISABLE_JIT="1")


def test_the_cache_folder_changes_with_every_file(tmp_path: Path) -> None:
    """Numba's own key sees the caller's file only: a changed callee must lead to another folder."""
    folder = tmp_path / "cpu"
    shutil.copytree(Path(jit.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    first = jit.tag(folder)
    assert first == jit.tag()
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        path.write_text(text + "\n", encoding="utf-8")
        assert jit.tag(folder) != first
        path.write_text(text, encoding="utf-8")
    assert jit.tag(folder) == first
    assert jit.cache_folder().name == f"cpu-{first}"


def test_compiled_code_is_found_again() -> None:
    code = """
longwave.long_conv(u, k, backend="cpu")
from longwave.backends.cpu import fused
print(sum(fused.forward.stats.cache_hits.values()), sum(fused.forward.stats.cache_misses.values()))
"""
    _python(code)
    assert _python(code) == "1 0"


@pytest.mark.parametrize("L", [4095, 4097, 14113, 65536])
@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (20.0, 1.0), (0.0, 1e-3)])
def test_long_rows_are_within_the_contract_and_no_worse_than_torch(L: int, mean: float, scale: float) -> None:
    u = torch.randn(1, 3, L) * scale + mean
    k = torch.randn(3, L) * torch.exp(-torch.arange(L) / (L / 5))
    n = 2 * L
    exact = torch.fft.irfft(torch.fft.rfft(u.double(), n) * torch.fft.rfft(k.double(), n), n)[..., :L]
    theirs = torch.fft.irfft(torch.fft.rfft(u, n) * torch.fft.rfft(k, n), n)[..., :L]
    error = relative_l2(longwave.long_conv(u, k, backend="cpu"), exact)
    assert error <= bound(torch.float32, L, "cpu")
    assert error <= 1.05 * relative_l2(theirs, exact)


def _peak(call: Callable[[], object]) -> int:
    """The most that PyTorch's allocator had given out at a time, during a call of a thread without scratch memory yet."""
    call()
    pages._kept.__dict__.clear()
    return peak_bytes(call)


@pytest.mark.parametrize(
    ("shape", "K", "mode", "layout"),
    [
        ((2, 64, 4096), 4096, "causal", "BHL"),
        ((4, 12, 3000), 3000, "causal", "BHL"),
        ((4, 64, 1 << 14), 256, "causal", "BHL"),
        ((4, 3, 1 << 15), 200, "causal", "BHL"),
        ((1, 4, 1 << 17), 1 << 17, "causal", "BHL"),
        ((2, 64, 4096), 8, "causal", "BHL"),
        ((2, 40, 1500), 1500, "circular", "BHL"),
        ((2, 40, 1500), 700, "same", "BHL"),
        # The gradient of one sequence, and filters of which a tap connects nothing.
        ((1, 4096, 64), 8192, "same", "BLH"),
        ((1, 64, 4096), 6000, "causal", "BHL"),
        ((2, 1500, 40), 1500, "causal", "BLH"),
        ((1, 1 << 17, 21), 1 << 17, "causal", "BLH"),
        ((2, 1 << 16, 64), 1 << 16, "causal", "BLH"),
        # Of these the gradient of D takes more than all else.
        ((1, 128, 256), 128, "causal", "BLH"),
        ((8, 128, 768), 128, "causal", "BLH"),
        ((64, 64, 768), 768, "causal", "BHL"),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.usefixtures("always_on_threads")
def test_the_plan_states_what_is_allocated(
    shape: tuple[int, ...], K: int, mode: str, layout: str, count: int, threads_set: Callable[[int], None]
) -> None:
    threads_set(count)
    H = shape[1 if layout == "BHL" else 2]
    u, k, D = torch.randn(shape, requires_grad=True), torch.randn(H, K, requires_grad=True), torch.randn(H, requires_grad=True)
    plans.plan.cache_clear()
    plan = longwave.plan(shape, (H, K), D=True, mode=mode, layout=layout, backend="cpu")
    with torch.no_grad():
        forward = _peak(lambda: longwave.long_conv(u, k, D, mode=mode, layout=layout, backend="cpu"))
    y = longwave.long_conv(u, k, D, mode=mode, layout=layout, backend="cpu")
    dy = torch.randn_like(y)
    backward = _peak(lambda: torch.autograd.grad(y, (u, k, D), dy, retain_graph=True))
    assert 0.9 * plan.bytes - 2**12 <= forward <= 1.02 * plan.bytes + 2**12
    assert 0.9 * plan.backward_bytes - 2**12 <= backward <= 1.05 * plan.backward_bytes + 2**12


@pytest.mark.usefixtures("always_on_threads")
def test_the_plan_states_what_the_gradient_of_a_postgate_takes() -> None:
    """It is made of the input's spectrum, so that the filters' gradient of one sequence has a transform of its own."""
    shape = (1, 64, 4096)
    u, k, gate = torch.randn(shape, requires_grad=True), torch.randn(64, 4096, requires_grad=True), torch.randn(shape)
    gate.requires_grad_()
    plans.plan.cache_clear()
    plan = longwave.plan(shape, (64, 4096), postgate=True, backend="cpu")
    y = longwave.long_conv(u, k, postgate=gate, backend="cpu")
    dy = torch.randn_like(y)
    backward = _peak(lambda: torch.autograd.grad(y, (u, k, gate), dy, retain_graph=True))
    assert 0.98 * plan.backward_bytes - 2**12 <= backward <= 1.02 * plan.backward_bytes + 2**12


def test_no_word_of_a_program_has_two_meanings() -> None:
    names = re.findall(r"\b[A-Z][A-Z_0-9]+\b(?=[^=\n]* = )", Path(words.__file__).read_text(encoding="utf-8"))
    assert len(names) > 60
    assert len(names) == len(set(names))


def test_numba_is_recent_enough() -> None:
    assert tuple(map(int, numba.__version__.split(".")[:2])) >= (0, 62)


def test_the_longest_rows_are_taken_by_auto() -> None:
    """They were left to torch.fft until rows could be taken apart."""
    assert longwave.plan((1, 1, 2**24), (1, 2**24)).backend == "cpu"


def test_a_stream_gives_a_row_its_bits_in_any_company_and_on_any_threads() -> None:
    """A prompt, steps and chunks; and what is no number in one row does not reach another."""
    k, u = torch.randn(20, 1100), torch.randn(3, 20, 1300)

    def streamed(u: torch.Tensor, k: torch.Tensor, threads: int = 1) -> torch.Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            stream = longwave.Stream(k, batch_size=u.shape[0], backend="cpu")
            y = [stream.prefill(u[..., :300])]
            y += [stream.step(u[..., t]).unsqueeze(-1) for t in range(300, 600)]
            y += [stream.extend(x) for x in u[..., 600:].split(256, dim=-1)]
        finally:
            torch.set_num_threads(before)
        return torch.cat(y, dim=-1)

    y = streamed(u, k)
    assert torch.equal(y, streamed(u, k, threads=2))
    for b, h in ((0, 0), (2, 7), (1, 19)):
        assert torch.equal(y[b : b + 1, h : h + 1], streamed(u[b : b + 1, h : h + 1], k[h : h + 1]))
    spoilt, others = u.clone(), torch.ones(3, 20, dtype=torch.bool)
    spoilt[1, 5, 200], others[1, 5] = float("nan"), False
    assert torch.equal(streamed(spoilt, k)[others], y[others])


@pytest.fixture
def always_past_the_caches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    kept = (calls.forward_launch, calls.backward_launch)

    def choose(past: bool) -> None:
        monkeypatch.setattr(results, "STREAMED_BYTES", 0 if past else sys.maxsize)
        for launch in kept:
            launch.cache_clear()

    yield choose
    for launch in kept:
        launch.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
@pytest.mark.parametrize("H", [16, 33])
@pytest.mark.parametrize("L", [16, 100, 1_001, 4_096, 70_000])
@pytest.mark.usefixtures("always_on_threads")
def test_results_that_go_past_the_caches_are_the_same(
    L: int,
    H: int,
    layout: str,
    dtype: torch.dtype,
    always_past_the_caches: Callable[[bool], None],
    threads_set: Callable[[int], None],
) -> None:
    """Results that begin cache lines and some that do not, lanes that are not all used, both layouts, all gradients, transforms
    of either kind. Without vectors of 64 bytes nothing goes there, and this says nothing."""
    shape = (2, H, L) if layout == "BHL" else (2, L, H)
    signals, taps = [torch.randn(shape).to(dtype) for _ in range(4)], [torch.randn(H, L), torch.randn(H)]
    found = []
    for past in (False, True):
        always_past_the_caches(past)
        for count in (1, 2):
            threads_set(count)
            u, pregate, postgate, k, D = leaves = [x.detach().requires_grad_() for x in (*signals[:3], *taps)]
            y = longwave.long_conv(u, k, D, pregate=pregate, postgate=postgate, layout=layout, backend="cpu")
            found.append([y.detach(), *torch.autograd.grad(y, leaves, signals[3])])
    assert found[0][0].abs().max() > 0
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            assert torch.equal(a, b)


def test_only_whole_cache_lines_go_past_the_caches(always_past_the_caches: Callable[[bool], None]) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        call = Call(0, 50, False, False, None, "cpu")
        problem = problem_of(call, Operands(torch.empty(1, 2, 50, dtype=dtype), torch.empty(2, 50)), None)
        always_past_the_caches(True)
        assert results.streams(problem) == (results.width(problem) * dtype.itemsize == 64)
        always_past_the_caches(False)
        assert not results.streams(problem)


def test_documents_may_go_past_the_caches(always_past_the_caches: Callable[[bool], None]) -> None:
    """Their results begin anywhere, side by side: what a document stores stays when the next one does."""
    always_past_the_caches(True)
    lengths = [0, 5, 40, 41, 1_000, 1_600]
    leaves = [torch.randn(1, 37, 1_600, requires_grad=True), torch.randn(37, 300, requires_grad=True)]
    y = longwave.long_conv(*leaves, cu_seqlens=torch.tensor(lengths, dtype=torch.int32), backend="cpu")
    exact = [x.detach().double().requires_grad_() for x in leaves]
    parts = [longwave.long_conv(exact[0][..., a:b], exact[1], backend="plain") for a, b in itertools.pairwise(lengths)]
    truth, dy = torch.cat(parts, dim=-1), torch.randn(1, 37, 1_600)
    given, expected = torch.autograd.grad(y, leaves, dy), torch.autograd.grad(truth, exact, dy.double())
    for a, b in zip((y, *given), (truth, *expected), strict=True):
        assert relative_l2(a, b) < 1e-6
