"""A planned training step beside one that is taken: what it holds, as PyTorch's allocator gives it out."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from allocated import gated_scratch_bytes, peak_bytes
from processes import run, world_of

from longwave import models
from longwave.cli import main
from longwave.errors import ArgumentError
from longwave.models import hyena
from longwave.nn import filters, staged
from longwave.train import job, loop, step_plan, step_ranks
from longwave.train.optim import make_optimizer
from longwave.train.world import ALONE, Sizes, World

PRESET, CONTEXT, BATCH = "tiny", 2048, 4
# Small things that no plan counts, and what the process group's threads hold a moment longer.
WITHIN = 0.1


def _held_to_the_plan(world: World, more: dict[str, Any]) -> None:
    chosen = dataclasses.replace(step_ranks.asked(PRESET, CONTEXT, BATCH), **more)
    device, world = torch.device("cpu"), world.meet(torch.device("cpu"))
    made = job.make_job(chosen, job.opened(chosen), device, world)
    model = world.sharded(made.model)
    optimizer = make_optimizer(model, lr=chosen.lr, weight_decay=chosen.weight_decay)

    def step(number: int) -> None:
        loop.update(made, optimizer, 1e-5, chosen.clip, number, world.span(made.batches(number, world.rows(BATCH))))

    step(0)
    held = min(peak_bytes(lambda number=number: step(number)) for number in range(1, 4))  # type: ignore[misc]
    checkpointing = more.get("activation_checkpointing") == "on"
    planned = step_plan.plan(PRESET, CONTEXT, BATCH, world.sizes, checkpointing=checkpointing)
    assert planned.step_bytes == pytest.approx(held, rel=WITHIN)


MODES: list[dict[str, Any]] = [{"activation_checkpointing": "off"}, {"activation_checkpointing": "on"}]


@pytest.mark.parametrize("more", MODES)
def test_a_step_holds_what_is_planned(more: dict[str, Any]) -> None:
    _held_to_the_plan(ALONE, more)


@pytest.mark.parametrize(
    ("part", "positions", "rows", "more", "convolves"),
    [
        (256, 16_384, 1, {"layers": 3}, True),  # most is held while a group of channels is convolved
        (2_048, 8_200, 2, {"layers": 2, "filter_width": 4, "filter_features": 3}, False),  # in the MLP
        (2_048, 8_200, 1, {"layers": 2, "d_model": 72, "d_inner": 72, "order": 3}, False),  # in the network of the filters
    ],
)
def test_a_step_in_stages_holds_what_is_planned(
    part: int, positions: int, rows: int, more: dict[str, int], convolves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staged, "PART", part)
    for module in (filters, hyena, step_plan):
        monkeypatch.setattr(module, "PART", 4 * part)
    config = dataclasses.replace(models.find_preset("small")[1], filter_length=positions, **more)
    monkeypatch.setitem(hyena.PRESETS, "small", config)
    model, tokens = hyena.HyenaLM(config, activation_checkpointing=True), torch.randint(0, 4, (rows, positions))
    model(tokens).mean().backward()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # each has scratch memory of its own
    try:
        held = peak_bytes(lambda: model(tokens).mean().backward())
        held -= convolves * gated_scratch_bytes(staged.group_channels(config.d_model), positions)
    finally:
        torch.set_num_threads(threads)
    planned = step_plan.plan("small", positions, rows, Sizes(1, 1, 1), checkpointing=True)
    assert planned.step_bytes - planned.gradient_bytes == pytest.approx(held, rel=WITHIN)


def _on_ranks(rank: int, folder: Path, every: list[Sizes]) -> None:
    for sizes in every:
        for more in MODES:
            _held_to_the_plan(world_of(rank, *sizes), more)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="gloo is tested on Linux")
def test_a_step_on_ranks_holds_what_is_planned(tmp_path: Path) -> None:
    run(2, tmp_path, _on_ranks, [Sizes(2, 1, 1), Sizes(1, 2, 1), Sizes(1, 1, 2)])


def test_bytes_on_the_way_are_counted_by_hand() -> None:
    alone, copies, shards, spans = (
        step_plan.plan("tiny", 4096, 4, Sizes(*s)) for s in ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2))
    )
    assert alone.shard_bytes == alone.span_bytes == copies.span_bytes == shards.span_bytes == 0
    assert copies.shard_bytes == alone.parameters * 4  # a ring brings half of a sum, and half of its result
    blocks = alone.parameters - 5 * 64 - 2 * 64  # but embedding and last norm
    assert shards.shard_bytes == 4 * (2 * alone.parameters + blocks) // 2 == spans.shard_bytes
    # Two blocks; gated samples there, results back, and as much in backward; a rank's half of them.
    assert spans.span_bytes == 2 * 2 * 2 * (4 * 64 * 4096 * 4 // 4)
    again = step_plan.plan("tiny", 4096, 4, Sizes(1, 1, 2), checkpointing=True, interconnect_gb_s=100)
    assert again.span_bytes * 2 == spans.span_bytes * 3  # a forward more
    assert again.communication_ms == pytest.approx(1e3 * (again.shard_bytes + again.span_bytes) / 100e9)
    assert shards.kept_bytes * 2 == copies.kept_bytes == alone.kept_bytes == 3 * 4 * alone.parameters


def test_the_command_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--preset", "hyenadna-large-1m", "--length", "1000000", "--batch", "2", "--activation-checkpointing"]
    assert main(["plan", "--ranks", "16", "--fsdp", "2", *options]) == 0
    said = capsys.readouterr().out
    assert "--dp 1 x --fsdp 2 x --cp 8 ranks, blocks computed twice" in said
    assert "ms on the way at 50 GB/s" in said
    assert main(["plan", "--ranks", "3", "--fsdp", "2", *options]) == 2
    assert "--fsdp 2 does not divide --ranks 3" in capsys.readouterr().err


def test_the_command_computes_large_steps_twice_as_training_does(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["plan", "--preset", "small", "--length", "1048576"]
    assert main(options) == 0
    large = capsys.readouterr().out
    assert "blocks computed twice" in large
    assert main([*options, "--activation-checkpointing"]) == 0
    assert capsys.readouterr().out == large
    assert main(["plan", "--preset", "small", "--length", "4096"]) == 0
    assert "blocks computed twice" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--preset", "tiny", "--device", "h200", "--skip"),
            "--skip --device was given, and a training step is planned without",
        ),
        (("--dp", "2"), "--dp was given, and a convolution is planned without it; leave it out, or add --preset"),
        (("--activation-checkpointing",), "--activation-checkpointing was given"),
        (("--preset", "tiny", "--interconnect", "0"), "give GB/s, above 0"),
    ],
)
def test_the_command_refuses_what_it_would_not_use(
    options: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--length", "64", *options]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert not said.out


def test_steps_on_ranks_refuse_what_they_would_not_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", "--ranks", "--preset", "tiny", "--activation-checkpointing", "--layers", "1"]) == 2
    assert "not with --layers --activation-checkpointing" in capsys.readouterr().err


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match="steps of Hyena alone are planned, and h3-tiny is a preset of h3"):
        step_plan.plan("h3-tiny", 1024, 2, Sizes())
    with pytest.raises(ArgumentError, match="interconnect_gb_s is -3"):
        step_plan.plan("tiny", 1024, 2, Sizes(2, 1, 1), interconnect_gb_s=-3)
    with pytest.raises(ArgumentError, match="3 sequences of 1,024 cannot be dealt out to --dp 2 x --fsdp 1 ranks"):
        step_plan.plan("tiny", 1024, 3, Sizes(2, 1, 1))
