"""Weights that stand alone: `weights-<step>.safetensors` holds the parameters and, as metadata, everything needed to use
them: model, config, step, data. What a resumed run needs beside them is in `state`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longwave import models
from longwave._version import __version__
from longwave.errors import ArgumentError, DataError
from longwave.models import SequenceModel
from longwave.train.files import replacing
from longwave.train.heads import Trained, with_head
from longwave.train.optional import need
from longwave.train.task import Classes

FORMAT = "longwave-1"
_WEIGHTS = re.compile(r"weights-(\d{8})\.safetensors")


def weights_path(folder: Path, step: int) -> Path:
    """Where the weights of `step` stand."""
    return folder / f"weights-{step:08d}.safetensors"


@dataclass(frozen=True)
class Description:
    """What a weights file says about itself.

    `classes` are those of `longwave.train.task.Classes`, empty for a model under its own head; `own` the task's own options.
    """

    task: str
    model: str
    preset: str
    config: dict[str, Any]
    context: int
    step: int
    data: dict[str, Any]
    classes: dict[str, Any] = dataclasses.field(default_factory=dict)
    own: dict[str, Any] = dataclasses.field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """As safetensors keeps it: text to text."""
        fields = {name: json.dumps(value) for name, value in dataclasses.asdict(self).items()}
        return {"format": FORMAT, "longwave": __version__, **fields}


def describe(path: Path) -> Description:
    """Read what the weights file `path` says about itself; the weights stay on the disk.

    Raises:
        DataError: no such file, cut off, not safetensors, or not written by longwave.
    """
    safetensors = need("safetensors")
    if not path.is_file():
        raise DataError(f"{path} is not a file; give a weights-*.safetensors file or the folder of a run")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is cut off or not a safetensors file ({error}); use another checkpoint") from error
    if metadata.get("format") != FORMAT:
        raise DataError(
            f"{path} is a safetensors file, but not a checkpoint of this version of longwave "
            f"(its metadata has format {metadata.get('format')!r}, not {FORMAT!r})"
        )
    try:
        return Description(**{field.name: json.loads(metadata[field.name]) for field in dataclasses.fields(Description)})
    except (KeyError, ValueError) as error:
        raise DataError(f"the metadata of {path} is damaged ({error}); use another checkpoint") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, on the CPU. Raises DataError where it is cut off or not safetensors."""
    safetensors = need("safetensors")
    load_file = need("safetensors.torch").load_file
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is cut off or not a safetensors file ({error}); use another checkpoint") from error
    return tensors


def load_weights(path: Path, model: Trained) -> None:
    """Copy the tensors of `path` into `model`.

    Raises:
        DataError: the file is cut off, or its tensors are not this model's.
    """
    try:
        model.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        raise DataError(f"the tensors in {path} are not those of the model it names ({_one_line(error)})") from error


def load_model(path: Path, *, backend: str = "auto", device: torch.device | None = None) -> tuple[Trained, Description]:
    """The model of a weights file or of a run's newest checkpoint, with its head, in eval mode.

    Raises:
        DataError: there is no whole checkpoint, or it is of a model that this version does not have.
    """
    path = find_weights(path)
    description = describe(path)
    try:
        module = models.find(description.model)
        body: SequenceModel = module.Model(module.Config(**description.config), backend=backend)
        model = with_head(body, Classes(**description.classes) if description.classes else None)
    except (ArgumentError, TypeError) as error:
        raise DataError(f"{path} cannot be used: {_one_line(error)}") from error
    load_weights(path, model)
    return model.eval().to(device or torch.device("cpu")), description


def find_weights(path: Path) -> Path:
    """`path` itself, or the newest whole weights in the folder `path`.

    Raises:
        DataError: neither exists.
    """
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"{path} does not exist; give a weights-*.safetensors file or the folder of a run")
        return path
    broken: DataError | None = None
    for step in steps_in(path):
        try:
            describe(weights_path(path, step))
        except DataError as error:
            broken = error
        else:
            return weights_path(path, step)
    raise broken or DataError(
        f"{path} has no checkpoint (weights-*.safetensors) in it; give the folder of a run that saved one"
    )


def steps_in(folder: Path) -> list[int]:
    """Steps of the weights files in `folder`, newest first."""
    found = (_WEIGHTS.fullmatch(path.name) for path in folder.iterdir())
    return sorted((int(match[1]) for match in found if match), reverse=True)


def save_weights(folder: Path, tensors: dict[str, Tensor], description: Description) -> None:
    """Write the weights of `description.step`: tensors on the CPU by name. Raises DataError where the file system refuses."""
    serialize = need("safetensors.torch").save
    with replacing(weights_path(folder, description.step)) as temporary:
        # Not save_file, which keeps the file from everyone else (mode 0600).
        temporary.write_bytes(serialize(tensors, metadata=description.metadata()))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
