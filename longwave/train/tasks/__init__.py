"""What can be trained: one file or folder each, found by being here.

A task is a module with

- `HELP`, one line;
- `UNIT`, what a position is: "base", "pixel";
- `METRIC`, a `task.Metric`: the number it is judged by;
- `CONTEXTS`, the least and the most positions that `--context` takes; or None where `context(own)` says how many there are;
- `OPTIONS`, the `task.Option`s that are its own;
- `make(setting) -> task.Task`, which opens the data;

and, where they make sense,

- `prepare(own)`: what one process leaves on the disk before several open the data;
- `held_out(setting, fasta=None, overlap=None)`: names and batches, what `longwave eval` scores in the place of the test data;
- `zoom(before, own) -> Zoom | None`: how images of another run, by its own options, become this one's, for `--init-from`;
- `codec(setting) -> Codec`, for `longwave generate`: text to tokens and back.

What has to be imported for data is imported in `make`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import torch

from longwave.errors import ArgumentError
from longwave.nn.explicit_filters import Zoom
from longwave.train.task import Metric, Option, Setting, Task, Value


class Codec(NamedTuple):
    """Text to tokens (n,), raising ArgumentError where it is none of the task's, and a token to its text."""

    encode: Callable[[str], torch.Tensor]
    decode: Callable[[int], str]


class TaskModule(Protocol):
    """What a module here must have."""

    HELP: str
    UNIT: str
    METRIC: Metric
    CONTEXTS: tuple[int, int] | None
    OPTIONS: tuple[Option, ...]

    def make(self, setting: Setting) -> Task: ...


@functools.cache
def available() -> dict[str, TaskModule]:
    """Task name -> its module, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: cast(TaskModule, importlib.import_module(f"{__name__}.{name}")) for name in names}


def find(name: str) -> TaskModule:
    """The module of the task `name`.

    Raises:
        ArgumentError: there is none of that name.
    """
    if name not in available():
        raise ArgumentError(f"there is no task {name!r}; this version has {', '.join(available())}")
    return available()[name]


def own_options(name: str, kept: Mapping[str, Any], context: int) -> dict[str, Value]:
    """The task's own options of a run: those that it kept, and the defaults of those that there were not when it began."""
    own = {}
    for option in find(name).OPTIONS:
        default = option.default(context) if callable(option.default) else option.default
        own[option.name] = kept.get(option.name, default)
    return own


def zoom(name: str, before: str, its: Mapping[str, Any], own: Mapping[str, Any]) -> Zoom | None:
    """How the images of a run of the task `before` become those of one of `name`, by the own options of both; None where they
    are of one size, or the tasks differ."""
    of_task: Callable[..., Zoom | None] | None = getattr(find(name), "zoom", None)
    return of_task(its, own) if of_task is not None and before == name else None


def offered(name: str, what: str, command: str) -> Any:
    """The function `what` of the task `name`, which `command` needs.

    Raises:
        ArgumentError: the task does not have it, or there is no such task.
    """
    find(name)
    if (function := getattr(available()[name], what, None)) is None:
        able = [other for other, module in available().items() if hasattr(module, what)]
        raise ArgumentError(f"{command} does not know the task {name}; it takes checkpoints of {', '.join(able)}")
    return function
