"""`--init-from`: the weights of another run, of the same task or another, as those that a run begins with."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from longwave.errors import ArgumentError, DataError
from longwave.train import checkpoint, tasks
from longwave.train.checkpoint import Description
from longwave.train.heads import Trained, body_of
from longwave.train.optional import need
from longwave.train.options import Options
from longwave.train.task import Task

_BODY = "body."
"""Before the names of the tensors of a model that is under a head."""


def begin(model: Trained, chosen: Options, task: Task) -> dict[str, Any]:
    """Copy the weights that `--init-from` names into `model`: its head only where both runs are of one task.

    Args:
        model: on the CPU, whole, with its head.
        chosen, task: what it is to be trained for.

    Returns:
        What the weights are, in TOML's types; nothing where the run begins with drawn ones.

    Raises:
        DataError: there is no whole checkpoint.
        ArgumentError: the model under the head is another one.
    """
    if not chosen.init_from:
        return {}
    path = checkpoint.find_weights(Path(chosen.init_from))
    about, content = checkpoint.describe(path), path.read_bytes()
    try:
        there: dict[str, Tensor] = need("safetensors.torch").load(content)
    except (need("safetensors").SafetensorError, ValueError) as error:
        raise DataError(f"{path} is cut off or not a safetensors file ({error}); use another checkpoint") from error
    zooms = tasks.zoom(chosen.task, about.task, about.own, chosen.own)
    if zooms is not None:
        there = body_of(model).zoomed(there, zooms)
    classes = dataclasses.asdict(task.classes) if task.classes else {}
    if (about.task, about.classes) != (chosen.task, classes):
        headed = bool(about.classes)
        there = {name.removeprefix(_BODY): x for name, x in there.items() if not headed or name.startswith(_BODY)}
        model = body_of(model)
    _refuse_others(path, about, there, model.state_dict(), chosen, zooms is not None)
    model.load_state_dict(there)
    return {
        "task": about.task, "model": about.model, "preset": about.preset, "context": about.context, "step": about.step,
        "source": about.data.get("source", ""), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip


def _refuse_others(
    path: Path, about: Description, there: Mapping[str, Tensor], here: Mapping[str, Tensor], chosen: Options, zoomed: bool
) -> None:
    """Raises ArgumentError for tensors of other names or shapes than the model's own."""
    for name in sorted({*here, *there}):
        its, mine = ("×".join(map(str, tensors[name].shape)) if name in tensors else "missing" for tensors in (there, here))
        if its == mine:
            continue
        taps = about.config["filter_length"]
        if about.preset != chosen.preset:
            advice = f"take the preset {about.preset}"
        elif zoomed:
            advice = "leave --filter-length out"
        elif taps != chosen.filter_length:
            advice = f"take --filter-length {taps}"
        else:
            advice = f"take a task whose inputs are like those of {about.task}"
        raise ArgumentError(
            f"--init-from {path} has weights of {about.model} {about.preset}, whose {name} is {its}, and here it is {mine}; "
            f"{advice}"
        )
