"""Several processes train as one: the same losses, scores and weights, however the work is dealt out."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from processes import STEPS, run, trained, world_of
from safetensors.torch import load_file
from torch.autograd.graph import save_on_cpu

from longwave import models
from longwave.errors import ArgumentError, RankError, UnsupportedError
from longwave.models import hyena
from longwave.nn import staged
from longwave.train import checkpoint, job, launch, loop, options, state, step_ranks
from longwave.train.heads import with_head
from longwave.train.interrupt import InterruptGuard
from longwave.train.score import loss_nats, right_answers
from longwave.train.task import IGNORE, Batch, Classes
from longwave.train.world import ALONE, Sizes, World

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo is tested on Linux")

# Rounding of float64, through 50 steps of Adam.
WITHIN = 1e-9


def _numbers(out: Path) -> list[list[float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [[line[name] for name in ("step", "bits_per_base", "gradient_norm") if name in line] for line in lines]


def _same(out: Path, straight: Path) -> None:
    found, expected = _numbers(out), _numbers(straight)
    assert [len(line) for line in found] == [len(line) for line in expected]
    for line, other in zip(found, expected, strict=True):
        assert line == pytest.approx(other, rel=WITHIN)
    weights, truth = (load_file(checkpoint.weights_path(folder, STEPS)) for folder in (out, straight))
    assert weights.keys() == truth.keys()
    for name in truth:
        torch.testing.assert_close(weights[name], truth[name], rtol=1e-6, atol=1e-9)


@pytest.fixture
def straight(tmp_path: Path, genome_file: Path, request: pytest.FixtureRequest) -> Path:
    """What one process makes of it."""
    with launch.launched(None, None, None, 60) as world:
        trained(world, str(genome_file), tmp_path / "straight", **getattr(request, "param", {}))
    numbers = _numbers(tmp_path / "straight")
    assert numbers[-2][1] < numbers[0][1] - 0.01  # it learns
    return tmp_path / "straight"


def _alike(rank: int, folder: Path, genome: str, cases: Sequence[tuple[Sizes, dict[str, Any]]]) -> None:
    for sizes, more in cases:
        out = folder / "x".join(map(str, sizes))
        if part := more.pop("part", 0):  # positions at a time, fewer than the context: Hyena's blocks go in stages
            hyena.PART = staged.PART = part  # type: ignore[attr-defined]
        trained(world_of(rank, *sizes), genome, out, **more)
        if rank == 0:
            _same(out, folder / "straight")


def test_two_processes_train_as_one(tmp_path: Path, straight: Path, genome_file: Path) -> None:
    again = {"activation_checkpointing": "on"}
    cases = [(Sizes(1, 1, 2), again), (Sizes(2, 1, 1), {}), (Sizes(1, 2, 1), {**again, "part": 300})]
    run(2, tmp_path, _alike, str(genome_file), cases)


def _offloaded(rank: int, folder: Path, genome: str, more: dict[str, Any]) -> None:
    packed = 0

    class Counting(save_on_cpu):
        def __init__(self, pin_memory: bool) -> None:
            super().__init__(pin_memory)
            pack = self.pack_hook

            def counted(x: torch.Tensor) -> Any:
                nonlocal packed
                packed += 1
                return pack(x)

            self.pack_hook = counted

    loop.save_on_cpu = Counting  # type: ignore[attr-defined]
    if part := more.pop("part", 0):
        hyena.PART = staged.PART = part  # type: ignore[attr-defined]
    few = {"steps": 3, "eval_every": 3, "checkpoint_every": 3, **more}
    trained(world_of(rank, 1, 2, 1), genome, folder / "plain", **few)
    assert not packed
    trained(world_of(rank, 1, 2, 1), genome, folder / "offloaded", offload=True, **few)
    assert packed > 3
    if rank == 0:
        weights, truth = (load_file(checkpoint.weights_path(folder / name, 3)) for name in ("offloaded", "plain"))
        assert all(torch.equal(weights[name], truth[name]) for name in truth)
        assert _numbers(folder / "offloaded") == _numbers(folder / "plain")


@pytest.mark.parametrize("more", [{}, {"activation_checkpointing": "on"}, {"activation_checkpointing": "on", "part": 300}])
def test_offloaded_activations_give_the_same_bits(tmp_path: Path, genome_file: Path, more: dict[str, Any]) -> None:
    """On the CPU, where they are but copied, and with sharded parameters."""
    run(2, tmp_path, _offloaded, str(genome_file), more)


def test_there_is_nowhere_to_offload_to_from_a_cpu() -> None:
    assert options.choose_offload("on", torch.device("cuda"))
    assert not options.choose_offload("off", torch.device("cpu"))
    with pytest.raises(ArgumentError, match=r"this run is on the CPU.*leave it out"):
        options.choose_offload("on", torch.device("cpu"))


@pytest.mark.parametrize("word", ["on", "off"])
def test_what_is_said_of_offloading_reaches_the_loop(
    word: str, micro: str, genome_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "choose_offload", lambda name, device: name == "on")
    asked = {"preset": micro, "context": 1024, "fasta": str(genome_file), "device": "cpu", "offload_activations": word}
    chosen = options.resolve("dna", asked)
    assert job.make_job(chosen, job.opened(chosen), torch.device("cpu")).offload == (word == "on")


@pytest.mark.slow
@pytest.mark.parametrize("straight", [{"batch": 4}], indirect=True)
def test_four_processes_train_as_one(tmp_path: Path, straight: Path, genome_file: Path) -> None:
    cases = [(Sizes(*sizes), {"batch": 4}) for sizes in ((2, 1, 2), (1, 2, 2), (2, 2, 1), (1, 1, 4), (4, 1, 1), (1, 4, 1))]
    run(4, tmp_path, _alike, str(genome_file), cases)


@pytest.mark.slow
@pytest.mark.parametrize("straight", [{"packed": "on"}], indirect=True)
def test_packed_rows_train_as_one(tmp_path: Path, straight: Path, genome_file: Path) -> None:
    cases = [(Sizes(*sizes), {"packed": "on"}) for sizes in ((1, 1, 2), (2, 1, 1))]
    run(2, tmp_path, _alike, str(genome_file), cases)


def _unanswered(rank: int, folder: Path) -> None:
    world = world_of(rank, 1, 1, 2, timeout_s=1).meet(torch.device("cpu"))
    assert world.cp is not None
    assert world.shards is not None
    groups = [world.cp.get_group(), world.shards.get_group("shard"), state.Saver(folder, world)._group]
    if rank == 0:
        for group in groups:
            with pytest.raises(RuntimeError, match=r"[Tt]imed? ?out"):
                dist.all_reduce(torch.zeros(1), group=group)
    else:
        while not (folder / "said-0").exists():
            time.sleep(0.05)


def test_no_group_waits_longer_than_asked(tmp_path: Path) -> None:
    """A process that is there and does not answer: those of spans, shards and checkpoints give up alike."""
    began = time.monotonic()
    run(2, tmp_path, _unanswered)
    assert time.monotonic() - began < 120  # PyTorch's own would be half an hour each


def _stopped(rank: int, folder: Path, genome: str, sizes: Sizes) -> None:
    trained(world_of(rank, *sizes), genome, folder / "run", until=30)
    if rank == 0:
        assert checkpoint.steps_in(folder / "run") == [30]
        assert len(list(state.state_path(folder / "run", 30).glob("*.distcp"))) == 2


def _resumed(rank: int, folder: Path, genome: str, sizes: Sizes) -> None:
    trained(world_of(rank, *sizes), genome, folder / "run", resume=True)


def test_a_run_goes_on_with_other_processes(tmp_path: Path, straight: Path, genome_file: Path) -> None:
    """Two processes with shards each, stopped by one of them, and then one alone."""
    run(2, tmp_path, _stopped, str(genome_file), Sizes(1, 2, 1))
    with launch.launched(None, None, None, 60) as world:
        trained(world, str(genome_file), tmp_path / "run", resume=True)
    _same(tmp_path / "run", straight)


def _cut_short(rank: int, folder: Path, genome: str) -> None:
    """The last rank is told to stop while all of them validate after the last step."""
    guards: list[InterruptGuard] = []
    enter, rounds = InterruptGuard.__enter__, World.rounds

    def entered(guard: InterruptGuard) -> InterruptGuard:
        guards.append(guard)
        return enter(guard)

    def told(world: World, batches: Iterable[Batch]) -> Iterator[Batch]:
        for place, batch in enumerate(rounds(world, batches)):
            guards[0].requested = place == 1 and rank == 1
            yield batch

    InterruptGuard.__enter__, World.rounds = entered, told  # type: ignore[method-assign]
    few = {"steps": 3, "eval_every": 3, "checkpoint_every": 100}
    outcome = trained(world_of(rank, 1, 1, 2), genome, folder / "run", **few)
    assert outcome == loop.Outcome(3, True)
    if rank == 0:
        assert checkpoint.steps_in(folder / "run") == [3]
        assert [line[0] for line in _numbers(folder / "run")] == [1, 2, 3]  # and no validation


def test_processes_cut_a_validation_short_together(tmp_path: Path, genome_file: Path) -> None:
    run(2, tmp_path, _cut_short, str(genome_file))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [Sizes(1, 1, 3), Sizes(2, 1, 2)])
def test_a_run_goes_on_with_more_processes(tmp_path: Path, straight: Path, genome_file: Path, sizes: Sizes) -> None:
    run(2, tmp_path, _stopped, str(genome_file), Sizes(1, 1, 2))
    count = sizes.dp * sizes.fsdp * sizes.cp
    run(count, tmp_path, _resumed, str(genome_file), sizes)
    _same(tmp_path / "run", straight)


def _batch(rows: int, length: int, *, packed: bool) -> Batch:
    inputs = torch.arange(rows * length).view(rows, length)
    bounds = sorted({*range(0, rows * length + 1, length), 3, length + 1}) if packed else None
    return Batch(inputs, inputs + 1, None if bounds is None else torch.tensor(bounds, dtype=torch.int32))


def _rows(batch: Batch, rows: slice) -> Batch:
    """As a task makes them alone."""
    bounds, length = batch.cu_seqlens, batch.inputs.shape[1]
    if bounds is not None:
        bounds = bounds[(bounds >= rows.start * length) & (bounds <= rows.stop * length)] - rows.start * length
    return Batch(batch.inputs[rows], batch.targets[rows], bounds)


@pytest.mark.parametrize("sizes", [Sizes(1, 1, 1), Sizes(2, 1, 1), Sizes(1, 2, 3), Sizes(2, 2, 2), Sizes(1, 1, 5)])
@pytest.mark.parametrize("packed", [False, True])
def test_shares_are_the_batch(sizes: Sizes, packed: bool) -> None:
    """Every sample once, its target beside it, and the boundaries of documents where they were."""
    batch = _batch(4, 7, packed=packed)
    count = sizes.dp * sizes.fsdp * sizes.cp
    worlds = [World(sizes, rank) for rank in range(count)]
    shares = [world.span(_rows(batch, world.rows(4))) for world in worlds]
    assert torch.equal(torch.cat([share.inputs.flatten() for share in shares]).sort().values, batch.inputs.flatten())
    assert all(torch.equal(share.targets, share.inputs + 1) for share in shares)
    if packed and batch.cu_seqlens is not None:
        readers = shares[:: sizes.cp]
        rows = 4 // len(readers)
        found = {0}
        for number, share in enumerate(readers):
            assert share.cu_seqlens is not None
            assert share.cu_seqlens[-1] == rows * 7
            found |= set((share.cu_seqlens + number * rows * 7).tolist())
        assert sorted(found) == batch.cu_seqlens.tolist()
    else:
        assert all(share.cu_seqlens is None for share in shares)


def test_rounds_ask_everything_once() -> None:
    batches = [_batch(1, length, packed=False) for length in (5, 5, 3)]
    sizes = Sizes(2, 1, 2)
    scored = [list(World(sizes, rank).rounds(batches)) for rank in range(4)]
    assert {len(found) for found in scored} == {2}
    asked = [batch.targets[batch.targets != IGNORE] for found in scored for batch in found]
    assert sum(len(targets) for targets in asked) == 13


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(ArgumentError, match="--batch 3 cannot be dealt out to --dp 2 x --fsdp 2"):
        World(Sizes(2, 2, 1)).check(3, "hyena")
    with pytest.raises(UnsupportedError, match=r"s5 does not read spans.*h3, hyena"):
        World(Sizes(1, 1, 2)).check(2, "s5")
    with pytest.raises(ArgumentError, match="its own are as long as the context; make --filter-length the context"):
        World(Sizes(1, 1, 2)).check(2, "h3", short_filters=True)
    World(Sizes(1, 1, 2)).check(2, "hyena", short_filters=True)
    World(Sizes(1, 1, 2)).check(1, "hyena")
    ALONE.check(1, "h3")


@pytest.mark.parametrize(
    ("count", "given", "sentence"),
    [
        (1, (None, None, 2), "--cp 2 does not fit the number of processes: 1 process was started; start 2"),
        (4, (None, 3, None), "--fsdp 3 does not fit the number of processes: 4 processes were started; start 3"),
        (4, (2, 1, 1), "--dp 2 x --fsdp 1 x --cp 1 does not fit.*start 2"),
        (4, (0, None, None), "--dp must be at least 1, but 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(count: int, given: tuple[int | None, ...], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        launch.sizes_of(count, *given)


@pytest.mark.parametrize("error", [OSError("no space"), RuntimeError("out of memory"), ArgumentError("no")])
def test_who_meets_a_failure_first_says_it(error: Exception) -> None:
    store = dist.HashStore()
    with pytest.raises(type(error)) as first, launch._said_once(store):
        raise error
    with pytest.raises(RankError, match="another rank has ended") as second, launch._said_once(store):
        raise RuntimeError("[gloo/transport] Connection closed by peer")
    assert not getattr(first.value, "said", False)
    assert second.value.said


def test_processes_without_a_gpu_of_their_own_run_on_cpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    launch._take_gpu()
    launch.check_gpu(torch.device("cpu"))
    with pytest.raises(ArgumentError, match="process 1 of this machine has no GPU of its own among its 1; start 1 a machine"):
        launch.check_gpu(torch.device("cuda"))


def test_one_gpu_is_not_named_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    launch.check_named("cuda:1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    launch.check_named("cuda")
    launch.check_named("auto")
    with pytest.raises(ArgumentError, match=r"--device cuda:1 names one GPU for 2 processes.*CUDA_VISIBLE_DEVICES"):
        launch.check_named("cuda:1")


@pytest.mark.parametrize("seconds", [0.0, 0.5, -1.0, 1e300, float("nan"), float("inf")])
def test_a_timeout_that_no_group_can_keep_is_refused(seconds: float) -> None:
    asked = launch.launched(None, None, None, seconds)
    with pytest.raises(ArgumentError, match="--timeout must be from 1 to 100,000,000 seconds"), asked:
        pass


def test_sizes_not_given_are_the_rest() -> None:
    assert launch.sizes_of(1, None, None, None) == Sizes(1, 1, 1)
    assert launch.sizes_of(8, None, 2, 2) == Sizes(2, 2, 2)


def _sharded_gradients(rank: int, folder: Path, names: Sequence[str]) -> None:
    from torch.distributed.tensor import DTensor

    device, world = torch.device("cpu"), world_of(rank, 1, 2, 1).meet(torch.device("cpu"))
    for name in names:
        (preset, config), *_ = models.find(name).PRESETS.items()
        tokens = dataclasses.replace(config, vocabulary=5, predicted=0, values=0, filter_length=64, layers=config.layers)
        generator = torch.Generator().manual_seed(1)
        batch = Batch(torch.randint(0, 5, (2, 64), generator=generator), torch.randint(0, 3, (2,), generator=generator))
        found: list[dict[str, torch.Tensor]] = []
        for several in (False, True):
            torch.manual_seed(0)
            model = with_head(models.find(name).Model(tokens, backend="plain"), Classes(3, "mean")).double().to(device)
            model.body.activation_checkpointing = name in ("m2_bert", "sashimi", "h3")
            part = batch
            if several:
                model, part = world.sharded(model), world.span(_rows(batch, world.rows(2)))
            nats, _, hidden = loss_nats(model, part, autocast=False)
            right_answers(model, hidden, part.targets)
            (nats / 2).backward()
            gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
            found.append({key: g.full_tensor() if isinstance(g, DTensor) else g for key, g in gradients.items()})
        alone, together = found
        assert alone.keys() <= together.keys(), preset
        for key, gradient in alone.items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(together[key], gradient, rtol=1e-6, atol=1e-9 * max(scale, 1.0), msg=f"{name} {key}")
        assert any(gradient.abs().max() > 0 for gradient in alone.values())


def _one_answer(rank: int, folder: Path, cases: Sequence[tuple[str, str]]) -> None:
    """Loss, right answers and gradients of a head over a sequence whose spans two processes read."""
    world = world_of(rank, 1, 1, 2).meet(torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    batch = Batch(torch.randint(0, 5, (3, 33), generator=generator), torch.randint(0, 4, (3,), generator=generator))
    for name, pool in cases:
        (config, *_) = models.find(name).PRESETS.values()
        config = dataclasses.replace(config, vocabulary=5, predicted=0, values=0, filter_length=33)
        found: list[tuple[float, int, dict[str, torch.Tensor]]] = []
        for several in (False, True):
            torch.manual_seed(0)
            handed, pooled = (world.operators(), world.pooling()) if several else ({}, {})
            model = with_head(models.find(name).Model(config, **handed), Classes(4, pool), **pooled).double()
            part = world.span(batch) if several else batch
            nats, count, hidden = loss_nats(model, part, autocast=False)
            right = right_answers(model, hidden.detach(), part.targets)
            nats.backward()
            gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
            if several:
                count, right, nats = world.sum(count), world.sum(right), world.sum(nats)
                gradients = {key: world.sum(gradients.get(key, torch.zeros_like(p))) for key, p in model.named_parameters()}
            assert count == 3
            found.append((nats.item(), int(right), gradients))
        alone, together = found
        assert together[:2] == (pytest.approx(alone[0], rel=1e-12), alone[1])
        for key, gradient in alone[2].items():
            torch.testing.assert_close(together[2][key], gradient, rtol=1e-8, atol=1e-10, msg=f"{name} {pool} {key}")
        assert any(gradient.abs().max() > 1e-6 for gradient in alone[2].values())


def test_heads_of_whole_sequences_read_spans(tmp_path: Path) -> None:
    run(2, tmp_path, _one_answer, [("hyena", "mean"), ("hyena", "last"), ("s4d", "mean"), ("h3", "last")])


@pytest.mark.slow
def test_every_model_is_sharded(tmp_path: Path) -> None:
    """Gradients of shards, put together, are those of one process: blocks within checkpoints, tiers and shared heads too."""
    run(2, tmp_path, _sharded_gradients, tuple(models.available()))


@pytest.mark.slow
def test_steps_are_measured_on_every_mesh() -> None:
    rows = {row[:3]: row for row in map(dataclasses.astuple, step_ranks.measure(step_ranks.asked("tiny", 1024, 4), 1))}
    assert rows.keys() == {sizes for meshes in step_ranks.MESHES.values() for sizes in meshes}
    assert rows[1, 4, 1][5] < rows[4, 1, 1][5] / 3  # parameters and moments are sharded
    assert all(row[3] > 0 for row in rows.values())
