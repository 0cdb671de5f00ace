"""What a resumed run needs, kept while training goes on: every process writes its shards, and another number may read them.

`state-<step>/` is a checkpoint of `torch.distributed.checkpoint`: model and optimizer, copied first and written beside the next
steps. `weights-<step>.safetensors` is made of it once it is whole, by the first process: where those stand, the state does too.
An older pair is removed only then. Nothing random is kept: a batch follows from the options and the step's number.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future as Written

from longwave.distributed.agreement import everywhere
from longwave.errors import DataError
from longwave.train import checkpoint
from longwave.train.checkpoint import Description
from longwave.train.heads import Trained
from longwave.train.launch import lost
from longwave.train.world import World


def state_path(folder: Path, step: int) -> Path:
    """Where the state of `step` stands: a folder."""
    return folder / f"state-{step:08d}"


class _Writer(dcp.FileSystemWriter):
    """Has every process wait until all have written: the disk of one may take longer than a collective waits."""

    def __init__(self, path: Path, world: World) -> None:
        super().__init__(path)
        self.world = world

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Written[list[WriteResult]]:
        try:
            written = super().write_data(plan, planner)
            written.wait()
            return written
        finally:
            self.world.together("written")


class Saver:
    """Writes the checkpoints of a run, one at a time, while training goes on; all processes make one and call it alike."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        # Groups of its own: what is exchanged from its thread must not meet the collectives of training.
        self._group = dist.new_group(backend="gloo", timeout=world.timeout)
        self._alone = dist.new_group([0], backend="gloo")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, model: Trained, optimizer: torch.optim.Optimizer, description: Description) -> None:
        """Begin to write the pair of `description.step`, once the one before is written; older ones are removed at the end.

        Raises:
            DataError: the file system refused the one before; an older pair is still there.
        """
        self.finish()
        self.world.together()  # the first process may still be at the weights
        path = state_path(self.folder, description.step)
        tensors, moments = _state(model, optimizer)
        like = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in tensors.items()}
        whole = {"model": tensors, "optimizer": moments}
        written = dcp.async_save(whole, storage_writer=_Writer(path, self.world), process_group=self._group)
        self._pending = self._thread.submit(self._complete, written, description, like)

    def check(self) -> None:
        """Raise what `finish` would if it is known already: steps that no checkpoint will hold are not worth taking."""
        if self._pending is not None and self._pending.done():
            self.finish()

    def finish(self) -> None:
        """Wait until all that was begun is written. Raises DataError as `save` does."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except CheckpointException as error:
            if lost(_reason(error)):
                raise RuntimeError(_reason(error)) from error
            raise DataError(
                f"a checkpoint in {self.folder} cannot be written ({_reason(error)}); check rights and space"
            ) from error

    def close(self) -> None:
        """Wait for what was begun, whatever becomes of it."""
        self._thread.shutdown()

    def _complete(self, written: Any, description: Description, like: dict[str, Tensor]) -> None:
        written.result()
        if not self.world.leads:
            return
        # Read back rather than gathered: nothing travels, and what stands is known to be readable.
        dcp.load({"model": like}, checkpoint_id=state_path(self.folder, description.step), process_group=self._alone)
        checkpoint.save_weights(self.folder, like, description)
        for step in checkpoint.steps_in(self.folder):
            if step != description.step:
                remove(self.folder, step)


def remove(folder: Path, step: int) -> None:
    """The pair of a step: the weights first, so that they never stand without the state."""
    checkpoint.weights_path(folder, step).unlink(missing_ok=True)
    shutil.rmtree(state_path(folder, step), ignore_errors=True)


def restore(
    folder: Path, model: Trained, optimizer: torch.optim.Optimizer, world: World, description: Description
) -> tuple[int, list[str]]:
    """Load the newest pair of which both parts are whole into `model` and `optimizer`; all processes call it.

    Returns:
        Its step, and one sentence for every newer pair that was passed over.

    Raises:
        DataError: no pair is whole, or it is of another model than `description`'s.
    """
    passed_over: list[str] = []
    for step in world.told(checkpoint.steps_in(folder)):
        try:
            world.agreed(partial(_check, folder, step, description))
            tensors, moments = _state(model, optimizer)
            path = state_path(folder, step)
            if world.any(not path.is_dir()):
                raise DataError(f"{path} is missing")
            dcp.load({"model": tensors, "optimizer": moments}, checkpoint_id=path)
            set_state_dict(model, optimizer, model_state_dict=dict(tensors), optim_state_dict=moments)
        except CheckpointException as error:
            passed_over.append(f"{state_path(folder, step)} cannot be read ({_reason(error)})")
        except DataError as error:
            passed_over.append(str(error))
        else:
            if world.leads:
                for newer in (other for other in checkpoint.steps_in(folder) if other > step):
                    remove(folder, newer)  # it is written again, and not over what is left of it
            world.together()
            return step, passed_over
    reasons = f" ({'; '.join(passed_over)})" if passed_over else ""
    with everywhere():
        raise DataError(f"{folder} has no whole checkpoint to resume from{reasons}; start again in another --out")


def _state(model: Trained, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of the model by name, and what the optimizer keeps, by names too."""
    tensors, moments = get_state_dict(model, optimizer)
    return cast(dict[str, Tensor], tensors), dict(moments)


def _check(folder: Path, step: int, description: Description) -> None:
    """The weights of a step say that they are whole and of this model."""
    path = checkpoint.weights_path(folder, step)
    found = checkpoint.describe(path)
    if (found.model, found.config) != (description.model, description.config):
        raise DataError(f"{path} is of another model than this run's {description.preset}")


def remove_unfinished(folder: Path) -> None:
    """States without weights: what a killed run had begun to write."""
    whole = checkpoint.steps_in(folder)
    for path in folder.glob("state-????????"):
        if path.is_dir() and int(path.name[-8:]) not in whole:
            shutil.rmtree(path, ignore_errors=True)


def _reason(error: CheckpointException) -> str:
    """The first process's failure, on one line."""
    failures: Iterator[Any] = iter(error.failures.values())
    return " ".join(str(next(failures)[0]).split()).split(". ")[0][:200]
