"""What `longwave train TASK` does: options, data, model, loop, and the score on held-out data."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from longwave import models
from longwave.bench.stamp import make_stamp
from longwave.errors import ArgumentError, DataError
from longwave.models import SequenceModel
from longwave.ops.long_conv import long_conv
from longwave.train import checkpoint, folder, loop, options, tasks
from longwave.train.determinism import same_bits
from longwave.train.files import write_text
from longwave.train.heads import Trained, with_head
from longwave.train.interrupt import InterruptGuard
from longwave.train.mesh import refuse_many_processes, single_process_mesh
from longwave.train.optional import TRAIN_MODULES, need
from longwave.train.options import Options
from longwave.train.record import METRICS, Metrics
from longwave.train.score import score
from longwave.train.task import Reads, Reference, Score, Setting, Task

RESULT = "result.json"
SCHEMA = "longwave-train/1"


def run(args: argparse.Namespace) -> int:
    """Train as the parsed command line says; returns 0, or 130 when the run was interrupted and saved.

    Raises:
        LongwaveError: an option or the data cannot be used; nothing has been written.
    """
    with ExitStack() as stack:
        return _run(args, stack)


def _run(args: argparse.Namespace, stack: ExitStack) -> int:
    """`stack`: what is held until the end."""
    for module in TRAIN_MODULES:
        need(module)
    refuse_many_processes()
    asked = options.given(args.task, args)
    if args.resume:
        out = args.out or _default_folder(options.resolve(args.task, asked))
        stored = folder.read_config(out)
        stack.enter_context(folder.held(out))
        if stored.get("task") != args.task:
            raise ArgumentError(
                f"the run in {out} is one of the task {stored.get('task')}, not of {args.task}; name another --out"
            )
        chosen = options.resume_options(args.task, stored.get("train", {}), asked, str(out))
    else:
        chosen = options.resolve(args.task, asked)
        out = args.out or _default_folder(chosen)
        folder.refuse_unusable(out)
        stored = {}
    device = options.choose_device(chosen.device)
    task = opened(chosen)
    if stored and stored.get("data") != task.about:
        raise DataError(
            f"the run in {out} was trained on other data than {task.about['source']} now holds; "
            "put the old file back, or start a new run in another --out"
        )
    task.batches(0)  # refuses data without a window now, while nothing is written
    job = make_job(chosen, task, device)
    about_model = {"name": job.description.model, **job.description.config}
    if stored and stored.get("model") != about_model:
        raise DataError(f"the run in {out} is of another model than this version's {chosen.preset}; start a new run")
    count = parameters(job.model)
    say(f"{job.description.model} {chosen.preset}: {count:,} parameters, context {chosen.context:,}, {device}")
    say(f"{task.about['source']}" + "; fitting what to compare with" * (not args.resume))
    known = [Reference(**reference) for reference in stored.get("references", ())]
    job = dataclasses.replace(job, references=known or task.references())
    if not args.resume:
        compared = [_without_none(dataclasses.asdict(reference)) for reference in job.references]
        about = {"task": chosen.task, "train": chosen.flat, "data": task.about, "model": about_model, "references": compared}
        folder.create(out, about)
        stack.enter_context(folder.held(out))
    resume_command = f"longwave train {chosen.task} --out {shlex.quote(str(out))} --resume"
    with single_process_mesh(device) as mesh, InterruptGuard() as guard, same_bits(device):
        outcome = loop.train(job, chosen, out, resume=args.resume, mesh=mesh, guard=guard)
    if outcome.interrupted:
        say(f"stopped after step {outcome.step:,} and saved; continue with: {resume_command}")
        return 130
    try:
        _finish(job, task, chosen, out)
    except KeyboardInterrupt:
        say(f"stopped before the final test; the model is saved, test it with: {resume_command}")
        return 130
    return 0


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


def make_job(chosen: Options, task: Task, device: torch.device) -> loop.Job:
    """Model and data for the loop, without references."""
    module, autocast = tasks.find(chosen.task), options.choose_autocast(chosen.autocast, device)
    name, model, config = make_model(chosen, task.reads, device)

    def validate(model: Trained) -> Score:
        return score(model, task.validation(), device=device, autocast=autocast)

    description = checkpoint.Description(
        task=chosen.task, model=name, preset=chosen.preset, config=config, context=chosen.context, step=0, data=task.about,
        classes=dataclasses.asdict(task.classes) if task.classes else {}, own=chosen.own,
    )  # fmt: skip
    return loop.Job(
        model=with_head(model, task.classes).to(device),
        batches=task.batches,
        validate=validate,
        metric=module.METRIC,
        unit=module.UNIT,
        description=description,
        references=(),
        device=device,
        autocast=autocast,
    )


def make_model(chosen: Options, reads: Reads, device: torch.device) -> tuple[str, SequenceModel, dict[str, Any]]:
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
    model: SequenceModel = models.find(name).Model(config, backend=chosen.backend)
    model.activation_checkpointing = options.choose_checkpointing(
        chosen.activation_checkpointing, chosen.batch * chosen.context, config.d_model, config.layers
    )
    return name, model, dataclasses.asdict(config)


def _default_folder(chosen: Options) -> Path:
    return Path("runs") / f"{chosen.task}-{chosen.preset}-{chosen.context}"


def parameters(model: Trained) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters())


def _finish(job: loop.Job, task: Task, chosen: Options, out: Path) -> None:
    """Score the held-out test data, print the table, write `result.json` and the metrics' last line."""
    metric, unit, metrics = job.metric, job.unit, Metrics(out / METRICS)
    say(f"scoring held-out {metric.counted}s")
    began = time.perf_counter()
    cost = score(job.model.eval(), task.test(), device=job.device, autocast=job.autocast)
    seconds = time.perf_counter() - began
    last = [line for line in metrics.read() if line["kind"] == "train"][-1]
    found = {
        "preset": chosen.preset,
        "context": chosen.context,
        "batch": chosen.batch,
        "steps": last["step"],
        "parameters": parameters(job.model),
        "seconds": metrics.seconds,
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
