"""What `longwave train TASK` does: options, data, model, loop, and the score on held-out data."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from longwave import models
from longwave._version import __version__
from longwave.bench.stamp import make_stamp
from longwave.distributed.agreement import digest
from longwave.errors import ArgumentError, DataError
from longwave.models import SequenceModel
from longwave.ops.long_conv import long_conv
from longwave.train import checkpoint, folder, launch, loop, options, tasks
from longwave.train.begin import begin
from longwave.train.determinism import same_bits
from longwave.train.files import write_text
from longwave.train.heads import Trained, with_head
from longwave.train.heap import keep_freed_memory
from longwave.train.interrupt import InterruptGuard, StoppedError, unless
from longwave.train.optional import TRAIN_MODULES, need
from longwave.train.options import Options
from longwave.train.record import METRICS, Metrics
from longwave.train.score import score
from longwave.train.task import Reads, Reference, Score, Setting, Task
from longwave.train.world import ALONE, World

RESULT = "result.json"
SCHEMA = "longwave-train/1"


def run(args: argparse.Namespace) -> int:
    """Train as the parsed command line says; returns 0, or 130 when the run was interrupted and saved.

    Raises:
        LongwaveError: an option or the data cannot be used, and nothing has been written; or another process was lost.
    """
    with ExitStack() as stack:
        timeout_s = launch.TIMEOUT_S if args.timeout is None else args.timeout
        world = stack.enter_context(launch.launched(args.dp, args.fsdp, args.cp, timeout_s))
        return _run(args, world, stack)


@dataclass(frozen=True)
class Asked:
    """What a command asks for, and what there is of it.

    Attributes:
        out: the run's folder.
        resume: whether to go on with the run that is in it.
        stored: its config, where that is so.
    """

    chosen: Options
    out: Path
    resume: bool
    stored: dict[str, Any]
    device: torch.device


def _run(args: argparse.Namespace, world: World, stack: ExitStack) -> int:
    """`stack`: what is held until the end."""
    asked = world.agreed(lambda: _asked(args, world), _in_common)
    chosen, out, device = asked.chosen, asked.out, asked.device
    keep_freed_memory(chosen.context)
    if world.size > 1:
        world.agreed(lambda: _prepare(chosen) if world.leads else None)
    task = world.agreed(lambda: _task(asked, world), _data_in_common)
    if asked.resume and not args.resume and world.leads:
        say(f"started again by the launcher: going on with the run in {out}")
    world = world.meet(device)
    job, began_with = world.agreed(
        lambda: _job(asked, task, world), lambda made: _short({"weights of --init-from": str(made[1])})
    )
    if world.leads:
        count = parameters(job.model)
        on = f"{device}" if world.size == 1 else f"{world.size} processes on {device.type}"
        say(f"{job.description.model} {chosen.preset}: {count:,} parameters, context {chosen.context:,}, {on}")
        say(f"{task.about['source']}" + "; fitting what to compare with" * (not asked.resume))
    job = dataclasses.replace(job, model=world.sharded(job.model), references=world.told_late(lambda: _references(asked, task)))
    world.agreed(lambda: _hold(asked, task, job, began_with, world, stack) if world.leads else None)
    with InterruptGuard(speaks=world.leads) as guard:
        with same_bits(device):
            outcome = loop.train(job, chosen, out, resume=asked.resume, guard=guard)
        if outcome.interrupted:
            if world.leads:
                say(f"stopped after step {outcome.step:,} and saved; continue with: {_resume_command(asked, world)}")
            return 130
        try:
            _finish(job, task, chosen, out, guard)
        except (StoppedError, KeyboardInterrupt):
            if world.leads:
                say(f"stopped before the final test; the model is saved, test it with: {_resume_command(asked, world)}")
            return 130
    return 0


def _asked(args: argparse.Namespace, world: World) -> Asked:
    """The options of the command, here; nothing is written."""
    for module in TRAIN_MODULES:
        need(module)
    given, stored = options.given(args.task, args), dict[str, Any]()
    out = args.out or default_folder(options.resolve(args.task, given))
    resume = args.resume or launch.goes_on(world, out)
    if resume:
        stored = folder.read_config(out)
        if stored.get("task") != args.task:
            raise ArgumentError(
                f"the run in {out} is one of the task {stored.get('task')}, not of {args.task}; name another --out"
            )
        chosen = options.resume_options(args.task, stored.get("train", {}), given, str(out))
    else:
        chosen = options.resolve(args.task, given)
        if world.leads:
            folder.refuse_unusable(out)
    launch.check_named(chosen.device)
    device = options.choose_device(chosen.device)
    launch.check_gpu(device)
    options.choose_offload(chosen.offload_activations, device)
    return Asked(chosen, out, resume, stored, device)


def _prepare(chosen: Options) -> None:
    """What one process leaves on the disk for all."""
    if prepare := getattr(tasks.find(chosen.task), "prepare", None):
        prepare(chosen.own)


def _task(asked: Asked, world: World) -> Task:
    """The data, here. Raises DataError where they are not those of the run in the folder, ArgumentError where they cannot be
    dealt out."""
    task = opened(asked.chosen)
    if asked.stored and asked.stored.get("data") != task.about:
        raise DataError(
            f"the run in {asked.out} was trained on other data than {task.about['source']} now holds; "
            "put the old file back, or start a new run in another --out"
        )
    chosen = asked.chosen
    shorter = chosen.filter_length < chosen.context
    world.check(chosen.batch, models.find_preset(chosen.preset)[0], short_filters=shorter)
    task.batches(0)  # refuses data without a window now, while nothing is written
    return task


def _in_common(asked: Asked) -> dict[str, str]:
    """What all processes must have been started with, in few words each."""
    words = {f"--{options.dashed(name)}": str(value) for name, value in asked.chosen.flat.items()}
    words |= {"--out": str(asked.out), "--resume": str(asked.resume), "device": asked.device.type}
    words |= {"longwave": __version__, "torch": torch.__version__}
    return _short(words)


def _data_in_common(task: Task) -> dict[str, str]:
    return _short({f"the data's {name}": str(value) for name, value in task.about.items()})


def _short(words: dict[str, str]) -> dict[str, str]:
    return {name: word if len(word) <= 64 else f"{word[:40]}... ({digest(word)})" for name, word in words.items()}


def _job(asked: Asked, task: Task, world: World) -> tuple[loop.Job, dict[str, Any]]:
    """What is trained, and what it began with. Raises DataError where the run in the folder is of another model, or began with
    other weights than there are now."""
    chosen, stored, out = asked.chosen, asked.stored, asked.out
    job = make_job(chosen, task, asked.device, world)
    if stored and stored.get("model") != _about_model(job):
        raise DataError(f"the run in {out} is of another model than this version's {chosen.preset}; start a new run")
    if asked.resume and checkpoint.steps_in(out):
        return job, {}
    began_with = begin(job.model, chosen, task)
    if stored and stored.get("began_with", {}) != began_with:
        raise DataError(
            f"the run in {out} began with weights that {chosen.init_from} had then and has no more; start a new run"
        )
    return job, began_with


def _about_model(job: loop.Job) -> dict[str, Any]:
    return {"name": job.description.model, **job.description.config}


def _references(asked: Asked, task: Task) -> list[Reference]:
    known = [Reference(**reference) for reference in asked.stored.get("references", ())]
    return known or task.references()


def _hold(asked: Asked, task: Task, job: loop.Job, began_with: dict[str, Any], world: World, stack: ExitStack) -> None:
    """Make the folder of a new run, and keep other runs out of it until the end."""
    chosen, out = asked.chosen, asked.out
    if not asked.resume:
        compared = [_without_none(dataclasses.asdict(reference)) for reference in job.references]
        about = {
            "task": chosen.task, "train": chosen.flat, "data": task.about, "model": _about_model(job),
            "references": compared, **({"began_with": began_with} if began_with else {}),
        }  # fmt: skip
        folder.create(out, about)
    launch.remember(world, out)
    stack.enter_context(folder.held(out))


def _resume_command(asked: Asked, world: World) -> str:
    """How to go on; on several processes, any number of which will do."""
    start, sizes = "longwave", ""
    if world.size > 1:
        start = f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', world.size)} -m longwave"
        sizes = "".join(f" --{name} {size}" for name, size in (("fsdp", world.sizes.fsdp), ("cp", world.sizes.cp)) if size > 1)
    return f"{start} train {asked.chosen.task} --out {shlex.quote(str(asked.out))}{sizes} --resume"


def say(line: str) -> None:
    """Tell the user; results alone go to stdout."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def opened(chosen: Options) -> Task:
    """The task of the options, with its data.

    Raises:
        ArgumentError: the model is not one that the task can be asked of.
        DataError: the data cannot be used.
    """
    name, config = models.find_preset(chosen.preset)
    causal = models.is_causal(name, config)
    setting = Setting(context=chosen.context, batch=chosen.batch, seed=chosen.seed, causal=causal, own=chosen.own)
    task = tasks.find(chosen.task).make(setting)
    if task.reads.causal and not causal:
        raise ArgumentError(
            f"the task {chosen.task} asks for what comes next, and the model {name} sees both sides; choose a causal model"
        )
    return task


def make_job(chosen: Options, task: Task, device: torch.device, world: World = ALONE) -> loop.Job:
    """Model and data for the loop, without references; the model whole in every process."""
    module, autocast = tasks.find(chosen.task), options.choose_autocast(chosen.autocast, device)
    name, model, config = make_model(chosen, task.reads, device, world)

    def validate(model: Trained, stopping: Callable[[], bool]) -> Score:
        batches = unless(stopping, world.rounds(task.validation()))
        return world.total(score(model, batches, device=device, autocast=autocast))

    description = checkpoint.Description(
        task=chosen.task, model=name, preset=chosen.preset, config=config, context=chosen.context, step=0, data=task.about,
        classes=dataclasses.asdict(task.classes) if task.classes else {}, own=chosen.own,
    )  # fmt: skip
    return loop.Job(
        model=with_head(model, task.classes, **world.pooling()).to(device),
        batches=task.batches,
        validate=validate,
        metric=module.METRIC,
        unit=module.UNIT,
        description=description,
        references=(),
        device=device,
        autocast=autocast,
        offload=options.choose_offload(chosen.offload_activations, device),
        world=world,
    )


def make_model(
    chosen: Options, reads: Reads, device: torch.device, world: World = ALONE
) -> tuple[str, SequenceModel, dict[str, Any]]:
    """The preset's model for what is read: its name, itself on the CPU, and its config.

    Raises:
        ArgumentError: the backend is unknown or not of this machine, or the model cannot read that.
    """
    # A backend that is unknown, or not of this machine, says so here and not in the first step.
    long_conv(torch.zeros(1, 1, 1, device=device), torch.zeros(1, 1, device=device), backend=chosen.backend)
    name, config = models.find_preset(chosen.preset)
    config = dataclasses.replace(
        config, filter_length=chosen.filter_length, vocabulary=reads.vocabulary, predicted=reads.predicted, values=reads.values
    )
    torch.manual_seed(chosen.seed)  # on the CPU, whatever the device: the same initial weights everywhere
    model: SequenceModel = models.find(name).Model(config, backend=chosen.backend, **world.operators())
    model.activation_checkpointing = options.choose_checkpointing(
        chosen.activation_checkpointing, chosen.batch * chosen.context // world.size, config.d_model, config.layers
    )
    return name, model, dataclasses.asdict(config)


def default_folder(chosen: Options) -> Path:
    """Where a run goes that is given no --out."""
    return Path("runs") / f"{chosen.task}-{chosen.preset}-{chosen.context}"


def parameters(model: Trained) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters())


def _finish(job: loop.Job, task: Task, chosen: Options, out: Path, guard: InterruptGuard) -> None:
    """Score the held-out test data, print the table, write `result.json` and the metrics' last line. Raises StoppedError where
    `guard` is asked to stop before all is scored."""
    metric, unit, metrics, world = job.metric, job.unit, Metrics(out / METRICS), job.world
    if world.leads:
        say(f"scoring held-out {metric.counted}s")
    began = time.perf_counter()
    batches = unless(lambda: world.any(guard.requested), world.rounds(task.test()))
    cost = world.total(score(job.model.eval(), batches, device=job.device, autocast=job.autocast))
    seconds = time.perf_counter() - began
    if not world.leads:
        return
    last = [line for line in metrics.read() if line["kind"] == "train"][-1]
    found = {
        "preset": chosen.preset,
        "context": chosen.context,
        "batch": chosen.batch,
        "steps": last["step"],
        "parameters": parameters(job.model),
        "seconds": metrics.seconds,
        "autocast": "bf16" if job.autocast else "off",
        "metric": metric.name,
        f"test_{metric.counted}s": cost.targets,
        f"model_{metric.name}": metric.of(cost),
        **{f"{reference.name}_{metric.name}": reference.test for reference in job.references},
        f"training_{unit}s_per_s": last[f"{unit}s_per_s"],
        f"scoring_{metric.counted}s_per_s": round(cost.targets / seconds, 1),
    }
    metrics.append("test", last["step"], **found)
    labels = {reference.name: reference.label for reference in job.references}
    stamp = dataclasses.asdict(make_stamp(str(job.device), chosen.words))
    result = {
        "schema": SCHEMA,
        "task": chosen.task,
        "model": job.description.model,
        **found,
        "references": labels,
        "stamp": stamp,
    }
    if began_with := folder.read_config(out).get("began_with"):
        result["began_with"] = began_with
    write_text(out / RESULT, json.dumps(result, indent=2) + "\n")
    sys.stdout.write(_table(cost, job, found, out))


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    """TOML has no None."""
    return {name: value for name, value in fields.items() if value is not None}


def _table(cost: Score, job: loop.Job, found: dict[str, Any], out: Path) -> str:
    metric, unit, about = job.metric, job.unit, job.description
    rows = [(reference.label, reference.test) for reference in job.references]
    rows += [(f"{about.model} {about.preset}, step {found['steps']:,}", metric.of(cost))]
    head = f"{cost.targets:,} held-out {metric.counted}s"
    width = max(len(label) for label, _ in [(head, 0.0), *rows])
    lines = [head.ljust(width) + f"  {metric.label}", *(f"{label.ljust(width)}  {value:.4f}" for label, value in rows)]
    training, scoring = found[f"training_{unit}s_per_s"], found[f"scoring_{metric.counted}s_per_s"]
    lines += [f"training {training:,.0f} {unit}s/s, scoring {scoring:,.0f} {metric.counted}s/s; all files in {out}"]
    return "\n".join(lines) + "\n"
