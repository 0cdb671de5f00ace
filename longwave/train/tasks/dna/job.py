"""What `longwave train dna` does: options, data, model, loop, and the score on held-out bases."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
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
from longwave.data import dna, fasta, genome, markov
from longwave.data.codes import Record
from longwave.errors import DataError
from longwave.models import SequenceModel
from longwave.ops.long_conv import long_conv
from longwave.train import checkpoint, folder, loop, options
from longwave.train.determinism import same_bits
from longwave.train.files import write_text
from longwave.train.interrupt import InterruptGuard
from longwave.train.mesh import refuse_many_processes, single_process_mesh
from longwave.train.optional import TRAIN_MODULES, need
from longwave.train.options import Options
from longwave.train.record import METRICS, UNIFORM_BITS, Metrics
from longwave.train.score import Score, score

TASK = "dna"
RESULT = "result.json"


@dataclass(frozen=True)
class Recipe:
    """What a preset is trained with unless an option says otherwise: windows of `context` bases, `batch` of them a
    step.
    """

    context: int
    batch: int
    steps: int
    lr: float


# tiny: under five minutes on two slow cores. The published sizes keep HyenaDNA's context and rate, not its thousands of
# GPU hours.
RECIPES = {
    "tiny": Recipe(context=1_024, batch=4, steps=2_400, lr=3e-3),
    "small": Recipe(context=4_096, batch=8, steps=4_000, lr=1.5e-3),
}
TOKENS_A_STEP = 2**18


def default_recipe(preset: str, filter_length: int) -> Recipe:
    """The recipe of a preset; one without its own gets its filters' length as context and about `TOKENS_A_STEP` bases a
    step.
    """
    return RECIPES.get(preset) or Recipe(filter_length, max(TOKENS_A_STEP // filter_length, 1), 10_000, 6e-4)


def resolve(asked: dict[str, Any]) -> Options:
    """Options with every default filled in.

    Raises:
        ArgumentError: an unknown preset, or a value out of range.
    """
    preset = asked.get("preset", "tiny")
    _, config = models.find_preset(preset)
    recipe = default_recipe(preset, config.filter_length)
    steps = asked.get("steps", recipe.steps)
    context = asked.get("context", recipe.context)
    # As many bases a step as the recipe has, whatever the context.
    batch = max(1, recipe.batch * recipe.context // max(1, context))
    defaults = dict(
        dataclasses.asdict(recipe),
        batch=batch,
        preset=preset,
        seed=0,
        warmup=max(steps // 20, 0),
        weight_decay=0.1,
        clip=1.0,
        eval_every=max(steps // 10, 1),
        eval_bases=max(65_536, 2 * context),
        checkpoint_every=max(steps // 5, 1),
        fasta="",
        backend="auto",
        device="auto",
        autocast="auto",
        activation_checkpointing="auto",
    )
    return Options(**{**defaults, **asked})


def run(args: argparse.Namespace) -> int:
    """Run the parsed command line; the package's `run` has the contract."""
    with ExitStack() as stack:
        return _run(args, stack)


def _run(args: argparse.Namespace, stack: ExitStack) -> int:
    """`stack`: what is held until the end."""
    for module in TRAIN_MODULES:
        need(module)
    refuse_many_processes()
    asked = options.given(args)
    if "fasta" in asked:
        asked["fasta"] = os.path.abspath(asked["fasta"])  # not resolved: /dev/stdin is a link to no path
    if args.resume:
        out = args.out or _default_folder(resolve(asked))
        stored = folder.read_config(out)
        stack.enter_context(folder.held(out))
        chosen = options.resume_options(stored.get("train", {}), asked, str(out))
    else:
        chosen = resolve(asked)
        out = args.out or _default_folder(chosen)
        folder.refuse_unusable(out)
        stored = {}
    device = options.choose_device(chosen.device)
    records = fasta.read_fasta(chosen.fasta) if chosen.fasta else [genome.ecoli()]
    data = dna.split(records, chosen.context)
    about_data = _describe_data(chosen.fasta, records)
    if stored and stored.get("data") != about_data:
        raise DataError(
            f"the run in {out} was trained on other bases than {about_data['source']} now holds; "
            "put the old file back, or start a new run in another --out"
        )

    def batches(rank: int) -> Callable[[int], loop.Batch]:
        windows = dna.Windows(data.train, chosen.context, chosen.batch, chosen.seed, rank, data.train_records)
        return lambda step: loop.Batch(windows.batch(step), windows.documents(step))

    batches(0)  # refuses data without a window now, while nothing is written
    name, model, config = _make_model(chosen, device)
    if stored and stored.get("model") != {"name": name, **config}:
        raise DataError(f"the run in {out} is of another model than this version's {chosen.preset}; start a new run")

    parameters = sum(p.numel() for p in model.parameters())
    say(f"{name} {chosen.preset}: {parameters:,} parameters, context {chosen.context:,}, {device}")
    say(f"{about_data['source']}: {len(data.train):,} bases to train on; fitting Markov models to compare with")
    baseline = markov.fit_best(data.train, data.validation)
    validation = data.validation[: chosen.eval_bases]
    autocast = options.choose_autocast(chosen.autocast, device)

    def validate(model: SequenceModel) -> Score:
        return score(model, validation, chosen.context, records=data.validation_records, device=device, autocast=autocast)

    job = loop.Job(
        model=model,
        batches=batches,
        validate=validate,
        description=checkpoint.Description(
            task=TASK, model=name, preset=chosen.preset, config=config, context=chosen.context, step=0, data=about_data
        ),
        markov_bits=baseline.bits_per_base(validation),
        device=device,
        autocast=autocast,
    )
    if not args.resume:
        folder.create(
            out,
            {"task": TASK, "train": dataclasses.asdict(chosen), "data": about_data, "model": {"name": name, **config}},
        )
        stack.enter_context(folder.held(out))
    resume_command = f"longwave train {TASK} --out {shlex.quote(str(out))} --resume"
    with single_process_mesh(device) as mesh, InterruptGuard() as guard, same_bits(device):
        outcome = loop.train(job, chosen, out, resume=args.resume, mesh=mesh, guard=guard)
    if outcome.interrupted:
        say(f"stopped after step {outcome.step:,} and saved; continue with: {resume_command}")
        return 130
    try:
        _finish(job, data, baseline, outcome, out)
    except KeyboardInterrupt:
        say(f"stopped before the final test; the model is saved, test it with: {resume_command}")
        return 130
    return 0


def say(line: str) -> None:
    """Tell the user; results alone go to stdout."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _default_folder(chosen: Options) -> Path:
    return Path("runs") / f"{TASK}-{chosen.preset}-{chosen.context}"


def _describe_data(path: str, records: list[Record]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for record in records:
        digest.update(len(record.codes).to_bytes(8, "little"))
        digest.update(record.codes.tobytes())
    source = path or f"E. coli 536, {genome.ACCESSION}, in the package"
    bases = sum(len(record.codes) for record in records)
    return {"source": source, "records": len(records), "bases": bases, "sha256": digest.hexdigest()}


def _make_model(chosen: Options, device: torch.device) -> tuple[str, SequenceModel, dict[str, Any]]:
    """The preset's model with filters as long as the context: its model's name, itself on `device`, and its config."""
    # A backend that is unknown, or not of this machine, says so here and not in the first step.
    long_conv(torch.zeros(1, 1, 1, device=device), torch.zeros(1, 1, device=device), backend=chosen.backend)
    name, config = models.find_preset(chosen.preset)
    config = dataclasses.replace(config, filter_length=chosen.context)
    torch.manual_seed(chosen.seed)  # on the CPU, whatever the device: the same initial weights everywhere
    model: SequenceModel = models.find(name).Model(config, backend=chosen.backend)
    model.activation_checkpointing = options.choose_checkpointing(
        chosen.activation_checkpointing, chosen.batch * chosen.context, config.d_model, config.layers
    )
    return name, model.to(device), dataclasses.asdict(config)


def _finish(job: loop.Job, data: dna.DnaSplit, baseline: markov.MarkovModel, outcome: loop.Outcome, out: Path) -> None:
    """Score the held-out test bases, print the table, write `result.json` and the metrics' last line."""
    metrics = Metrics(out / METRICS)
    context, test = job.description.context, data.test
    overlap = context // 2
    say(f"scoring {len(test):,} held-out bases")
    began = time.perf_counter()
    cost = score(
        job.model.eval(), test, context, overlap=overlap, records=data.test_records, device=job.device, autocast=job.autocast
    )
    seconds = time.perf_counter() - began
    speeds = [line["bases_per_s"] for line in metrics.read() if line["kind"] == "train"]
    result = {
        "preset": job.description.preset,
        "context": context,
        "steps": outcome.step,
        "test_bases": cost.bases,
        "model_bits_per_base": cost.bits_per_base,
        "markov_bits_per_base": baseline.bits_per_base(test),
        "markov_order": baseline.order,
        "uniform_bits_per_base": UNIFORM_BITS,
        "overlap": overlap,
        "training_bases_per_s": speeds[-1],
        "scoring_bases_per_s": round(cost.bases / seconds, 1),
    }
    metrics.append("test", outcome.step, **result)
    write_text(out / RESULT, json.dumps(result, indent=2) + "\n")
    rows = [
        ("uniform", UNIFORM_BITS),
        (f"Markov, order {baseline.order}", result["markov_bits_per_base"]),
        (f"{job.description.model} {job.description.preset}, step {outcome.step:,}", cost.bits_per_base),
    ]
    width = max(len(label) for label, _ in rows)
    lines = [f"{cost.bases:,} held-out bases".ljust(width) + "  bits per base"]
    lines += [f"{label.ljust(width)}  {bits:.4f}" for label, bits in rows]
    lines += [f"training {speeds[-1]:,.0f} bases/s, scoring {result['scoring_bases_per_s']:,.0f} bases/s; all files in {out}"]
    sys.stdout.write("\n".join(lines) + "\n")
