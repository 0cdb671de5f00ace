"""`Stream`: any mixture of prefill, extend, step and rollback is one convolution of the whole."""

from __future__ import annotations

import copy
import random
from typing import Any

import devices
import pytest
import torch
from arguments import long_conv_ref
from devices import backends_here, here, randn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import longwave
from longwave import backends, dtypes
from longwave.bench.tolerances import bound, relative_l2
from longwave.errors import ArgumentError

BACKENDS = [name for name in backends_here() if backends.load(name).STREAMS]
EVERY_BACKEND = pytest.mark.parametrize("backend", BACKENDS)


def make(B: int, H: int, K: int, L: int, shape: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    kd = torch.float32 if dtype.itemsize == 2 else dtype
    rows = {"each": (H, K), "shared": (1, K), "groups": (H // 2 or 1, K), "sample": (B, H, K)}[shape]
    u = randn(B, H, L, dtype=torch.complex128 if dtype.is_complex else torch.float64).to(dtype)
    return u, randn(*rows, dtype=kd), randn(H, dtype=kd)


def check(y: Tensor, u: Tensor, k: Tensor, D: Tensor | None, backend: str) -> None:
    truth = long_conv_ref(u, k, D)
    real = torch.view_as_real(truth) if truth.is_complex() else truth
    assert relative_l2(y, truth) <= bound(y.dtype, max(2, u.shape[-1]), backend, truth=real)


@EVERY_BACKEND
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_mixture_equals_one_convolution(backend: str, data: st.DataObject) -> None:
    draw = data.draw
    kinds = [torch.float32, torch.float64, torch.bfloat16, torch.float16] + [torch.complex64] * (backend == "plain")
    B, H, dtype = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 6, 8, 20])), draw(st.sampled_from(kinds))
    K, L = draw(st.sampled_from([1, 2, 100, 128, 129, 300, 1024, 1025, 2500])), draw(st.sampled_from([300, 900, 1700]))
    back, limit = draw(st.sampled_from([0, 3, 70, 500])), draw(st.booleans())
    u, k, D = make(B, H, K, L, draw(st.sampled_from(["each", "shared", "groups", "sample"])), dtype)
    options: dict[str, Any] = {
        "batch_size": B, "channels": H, "dtype": dtype, "max_rollback": back, "max_length": L if limit else None,
        "backend": backend,
    }  # fmt: skip
    stream = longwave.Stream(k, D, **options)
    chance = random.Random(draw(st.integers(0, 10**6)))
    y, t, furthest, saved = torch.zeros_like(u), 0, 0, None
    while t < L:
        what = chance.choice(["prefill", "step", "steps", "extend", "blocks", "rollback", "snapshot", "restore"])
        T = min(L - t, chance.choice([1, 5, 63, 200, 400]) if what != "blocks" else chance.choice([64, 128, 256, 512]))
        if what == "prefill" and t == 0:
            y[..., :T] = stream.prefill(u[..., :T])
            t = T
        elif what in ("extend", "blocks"):
            y[..., t : t + T] = stream.extend(u[..., t : t + T])
            t += T
        elif what in ("step", "steps"):
            for _ in range(1 if what == "step" else T):
                y[..., t] = stream.step(u[..., t])
                t += 1
        elif what == "rollback" and back:
            n = chance.randint(0, max(0, min(t, back) - (furthest - t)))
            stream.rollback(n)
            t -= n
        elif what == "snapshot":
            saved = stream.snapshot(), furthest
        elif what == "restore" and saved is not None:
            stream = longwave.Stream(k, D, **options) if chance.random() < 0.5 else stream
            stream.restore(saved[0])
            t, furthest = saved[0].position, saved[1]
        furthest = max(furthest, t)
        assert stream.position == t
    check(y, u, k, D, backend)


@EVERY_BACKEND
@pytest.mark.parametrize("K", [129, 200, 3000])  # a level of few parts has groups whose later blocks have no sums of their own
def test_steps_alone_where_every_level_is_at_work(backend: str, K: int) -> None:
    L = min(4000, 5 * K)
    u, k, D = make(1, 9, K, L, "each", torch.float32)
    stream = longwave.Stream(k, D, batch_size=1, backend=backend)
    y = torch.stack([stream.step(u[..., t]) for t in range(L)], dim=-1)
    truth = long_conv_ref(u, k, D)
    assert relative_l2(y, truth) <= bound(y.dtype, L, backend, truth=truth)
    for start in range(0, L - 300, 300):  # each stretch by itself: a level that is missing is not averaged away
        part = slice(start, start + 300)
        assert relative_l2(y[..., part], truth[..., part]) < 1e-6


@EVERY_BACKEND
@pytest.mark.parametrize("chunk", [64, 100, 256, 1024])
def test_chunks_of_one_length(backend: str, chunk: int) -> None:
    u, k, D = make(2, 10, 3000, 64 * 64, "each", torch.float32)
    stream = longwave.Stream(k, D, batch_size=2, backend=backend)
    check(torch.cat([stream.extend(x) for x in u.split(chunk, dim=-1)], dim=-1), u, k, D, backend)


@EVERY_BACKEND
def test_chunks_go_on_after_steps_and_steps_back(backend: str) -> None:
    """Blocks of every level, and in the middle of every group of four of them other things."""
    u, k, D = make(1, 5, 2000, 3200, "each", torch.float64)
    truth = longwave.long_conv(u, k, D, backend="plain")
    for place in (1, 2, 3, 4):
        stream = longwave.Stream(k, D, batch_size=1, max_rollback=400, backend=backend)
        t = 0
        while t < 3200 - 3 * 256:
            n = 256 if t < 1536 else 64
            y = stream.extend(u[..., t : t + n])
            assert relative_l2(y, truth[..., t : t + n]) < 1e-12
            t += n
            if t // n % 4 == place % 4:
                for _ in range(70):
                    stream.step(here(torch.full((1, 5), 1e3, dtype=u.dtype)))
                stream.rollback(70 + (n if place % 2 else 0))
                t -= n if place % 2 else 0
                y = stream.extend(u[..., t : t + 2 * n])
                assert relative_l2(y, truth[..., t : t + 2 * n]) < 1e-12
                t += 2 * n


@EVERY_BACKEND
def test_a_rollback_changes_nothing_that_follows(backend: str) -> None:
    u, k, D = make(1, 8, 1500, 1400, "each", torch.float32)
    one, other = (longwave.Stream(k, D, batch_size=1, max_rollback=40, backend=backend) for _ in range(2))
    chance = random.Random(3)
    t = 0
    while t < 1400 - 40:
        n = chance.randint(1, 40)
        wrong = chance.randint(0, 40)
        expected = torch.stack([one.step(u[..., t + i]) for i in range(n)], dim=-1)
        got = torch.stack([other.step(u[..., t + i]) for i in range(n)], dim=-1)
        assert torch.equal(got, expected) or relative_l2(got, expected) < 1e-6
        t += n
        for _ in range(wrong):
            other.step(here(torch.full((1, 8), 1e3)))
        other.rollback(wrong)
    assert other.position == t


@EVERY_BACKEND
def test_rows_of_different_lengths_go_on_together(backend: str) -> None:
    u, k, D = make(3, 4, 700, 600, "each", torch.float32)
    lengths = [500, 130, 0]
    stream = longwave.Stream(k, D, batch_size=3, backend=backend)
    prompt = stream.prefill(u[..., :500], lengths=here(torch.tensor(lengths)))
    rest = torch.stack([stream.step(u[..., t]) for t in range(500, 600)], dim=-1)
    for b, n in enumerate(lengths):
        alone = u[b : b + 1, :, 500 - n :]
        assert relative_l2(torch.cat([prompt, rest], dim=-1)[b : b + 1, :, 500 - n :], long_conv_ref(alone, k, D)) < 4e-7
        assert not prompt[b, :, : 500 - n].any()


@EVERY_BACKEND
@pytest.mark.parametrize("H", [3, 16])
def test_rows_can_be_reordered(backend: str, H: int) -> None:
    """At any place in a block, when the work of some tiles is done and that of others is not."""
    u, k, D = make(4, H, 900, 1000, "each", torch.float32)
    chance, heard = random.Random(5), u.clone()
    stream = longwave.Stream(k, D, batch_size=4, backend=backend, max_rollback=5)
    y = torch.zeros_like(u)
    for t in range(1000):
        if chance.random() < 0.02:
            rows = here(torch.tensor([chance.randrange(4) for _ in range(4)]))
            stream.reorder(rows)
            heard, y = torch.cat([heard[rows][..., :t], u[..., t:]], dim=-1), y[rows]
        y[..., t] = stream.step(u[..., t])
    check(y, heard, k, D, backend)


@EVERY_BACKEND
def test_a_state_goes_through_a_file_and_another_stream(backend: str, tmp_path: Any) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    u, k, D = make(2, 5, 300, 800, "each", torch.bfloat16)
    one = longwave.Stream(k, D, batch_size=2, dtype=u.dtype, backend=backend)
    head = one.extend(u[..., :500])
    safetensors.save_file(one.snapshot().tensors(), tmp_path / "state.safetensors")
    other = longwave.Stream(k, D, batch_size=2, dtype=u.dtype, backend="plain")
    other.restore(longwave.StreamState.from_tensors(safetensors.load_file(tmp_path / "state.safetensors")).to(devices.DEVICE))
    check(torch.cat([head, other.extend(u[..., 500:])], dim=-1), u, k, D, backend)


@EVERY_BACKEND
def test_strides_of_inputs_do_not_matter(backend: str) -> None:
    u, k, D = make(2, 8, 400, 500, "each", torch.float32)
    turned = u.permute(2, 0, 1).contiguous().permute(1, 2, 0)  # (B, H, T) with time outermost
    wide = randn(2, 16, 1000)[:, ::2, ::2]
    wide.copy_(u)
    for x in (turned, wide):
        stream = longwave.Stream(k, D, batch_size=2, backend=backend)
        y = [stream.extend(x[..., :256]), stream.extend(x[..., 256:400])]
        y += [stream.step(x[..., t]).unsqueeze(-1) for t in range(400, 500)]
        check(torch.cat(y, dim=-1), u, k, D, backend)


@EVERY_BACKEND
def test_memory_grows_by_doubling_to_a_bound(backend: str) -> None:
    k = randn(4, 2000)
    stream = longwave.Stream(k, batch_size=1, backend=backend)
    sizes = {stream.nbytes}
    for _ in range(200):
        stream.extend(randn(1, 4, 100))
        sizes.add(stream.nbytes)
    assert 2 < len(sizes) < 12
    limited = longwave.Stream(k, batch_size=1, max_length=20_000, backend=backend)
    before = limited.nbytes
    for _ in range(200):
        limited.extend(randn(1, 4, 100))
    assert limited.nbytes == before


def refusals() -> list[tuple[str, Any, str]]:
    k = randn(4, 300)

    def stream(**options: Any) -> longwave.Stream:
        return longwave.Stream(k, **({"batch_size": 2, "max_rollback": 5, "max_length": 50} | options))

    def advanced(count: int) -> longwave.Stream:
        s = stream()
        s.extend(randn(2, 4, count))
        return s

    return [
        ("width", lambda: stream().step(randn(2, 5)), "takes (2, 4)"),
        ("batch", lambda: stream().extend(randn(1, 4, 3)), "takes (2, 4, T)"),
        ("dtype", lambda: stream().step(randn(2, 4).double()), "takes float32"),
        ("type", lambda: stream().step([1.0]), "list"),
        ("gradient", lambda: stream().step(randn(2, 4, requires_grad=True)), "no_grad"),
        ("filter gradient", lambda: longwave.Stream(k.clone().requires_grad_(), batch_size=1), "k.detach()"),
        ("max_length", lambda: stream().extend(randn(2, 4, 51)), "max_length=50"),
        ("max_length of a step", lambda: advanced(50).step(randn(2, 4)), "max_length=50"),
        ("max_length of a prompt", lambda: stream().prefill(randn(2, 4, 51)), "max_length=50"),
        ("rollback", lambda: advanced(20).rollback(6), "max_rollback"),
        ("rollback past the start", lambda: advanced(3).rollback(4), "3 taken"),
        ("another filter", lambda: stream().restore(longwave.Stream(k + 1, batch_size=2).snapshot()), "another filter"),
        ("another batch", lambda: stream().restore(stream(batch_size=3).snapshot()), "open a stream of that size"),
        ("no state", lambda: stream().restore({}), "Stream.snapshot()"),
        ("no tensors", lambda: longwave.StreamState.from_tensors({"inputs": k}), "StreamState.tensors()"),
        ("lengths", lambda: stream().prefill(randn(2, 4, 9), lengths=[3, 10]), "0 to the 9"),
        ("rows", lambda: stream().reorder(here(torch.tensor([0, 2]))), "0 to 1"),
        ("count of rows", lambda: stream().reorder(here(torch.tensor([0]))), "(2,)"),
        ("batch size", lambda: stream(batch_size=0), "batch_size is 0"),
        ("channels", lambda: stream(channels=6), "must divide"),
        ("backend", lambda: stream(backend="nowhere"), "nowhere"),
    ]


@pytest.mark.parametrize(("call", "words"), [pytest.param(*rest, id=name) for name, *rest in refusals()])
def test_what_is_wrong_is_refused_in_a_sentence(call: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=r"^[^\n]+$") as caught:
        call()
    assert words in str(caught.value)


def test_a_refused_step_changes_nothing() -> None:
    u, k, D = make(1, 3, 50, 60, "each", torch.float32)
    stream = longwave.Stream(k, D, batch_size=1, max_length=60)
    y = []
    for t in range(60):
        if t % 7 == 0:
            with pytest.raises(ArgumentError):
                stream.step(randn(1, 2))
        y.append(stream.step(u[..., t]))
    check(torch.stack(y, dim=-1), u, k, D, stream.backend)


def test_the_schedule_serves_every_lag_once() -> None:
    from longwave.planner import schedule

    for K in (1, 127, 128, 129, 1024, 1025, 5000, 70_000, 1_000_000, 5_000_000):
        plan, lag = schedule(K), min(K, 128)
        assert plan.direct == lag
        for level, larger in zip(plan.levels, [*plan.levels[1:], None][: len(plan.levels)], strict=True):
            assert lag == 2 * level.n
            lag = 2 * larger.n if larger else K
            assert lag <= level.parts * level.n < lag + level.n


def test_a_filter_is_copied() -> None:
    u, k, D = make(1, 3, 200, 300, "each", torch.float32)
    stream, truth = longwave.Stream(k, D, batch_size=1), copy.deepcopy(k)
    k.zero_()
    check(stream.extend(u), u, truth, D, stream.backend)


def test_names_of_dtypes_are_in_the_print() -> None:
    text = repr(longwave.Stream(randn(2, 9000), batch_size=3, dtype=torch.bfloat16))
    assert "3 × 2 channels" in text
    assert dtypes.name(torch.bfloat16) in text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_stream_on_a_gpu_goes_on_from_one_on_the_cpu() -> None:
    u, k, D = (x.cuda() for x in make(2, 6, 1500, 1400, "each", torch.float32))
    on_the_cpu = longwave.Stream(k.cpu(), D.cpu(), batch_size=2, backend="plain")
    there = longwave.Stream(k, D, batch_size=2, max_rollback=20)
    y = [on_the_cpu.prefill(u[..., :500].cpu()).cuda()]
    there.restore(on_the_cpu.snapshot().to("cuda"))
    y += [there.extend(u[..., begin:end]) for begin, end in ((500, 756), (756, 800))]
    y += [there.step(u[..., t]).unsqueeze(-1) for t in range(800, 1380)]
    there.step(torch.full((2, 6), 1e3, device="cuda"))
    there.rollback(1)
    y += [there.step(u[..., t]).unsqueeze(-1) for t in range(1380, 1400)]
    check(torch.cat(y, dim=-1).to(devices.DEVICE), *(x.to(devices.DEVICE) for x in (u, k, D)), "plain")
