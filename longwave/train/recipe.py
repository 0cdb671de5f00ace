"""What a model is trained with unless an option says otherwise: a TOML file a (task, model), found by being in `recipes`.

`TASK-MODEL.toml` names a `preset`, the one to take when the model alone is asked for, and has a table for every preset that has
its own numbers: `context`, `batch`, `steps`, `lr`, and any other option of the task. What `also` lists are further runs of the
preset, each with the options that it changes, `init_from` the folder of one before it among them: rows of `docs/results.md`,
whose commands say them.
"""

from __future__ import annotations

import functools
import tomllib
from importlib.resources import files
from typing import Any

from longwave import models

TOKENS_A_STEP = 2**18
DEFAULT_MODEL = "hyena"
SUFFIX = ".toml"


@functools.cache
def available() -> dict[tuple[str, str], dict[str, Any]]:
    """(task, model) -> its recipe, in alphabetical order."""
    found = {}
    folder = files("longwave.train") / "recipes"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(SUFFIX):
            task, _, model = file.name.removesuffix(SUFFIX).partition("-")
            found[task, model] = tomllib.loads(file.read_text(encoding="utf-8"))
    return found


def default_preset(task: str, model: str | None) -> str:
    """The preset that the recipe of the task and the model names, or the model's smallest one.

    Raises:
        ArgumentError: there is no such model.
    """
    presets = models.find(model or DEFAULT_MODEL).PRESETS
    named = available().get((task, model or DEFAULT_MODEL), {}).get("preset")
    return named or min(presets, key=lambda preset: _size(presets[preset]))


def defaults(task: str, preset: str) -> dict[str, Any]:
    """The options of a preset's recipe.

    A preset without one gets its filters' length as context, about `TOKENS_A_STEP` positions a step, and HyenaDNA's rate.

    Raises:
        ArgumentError: there is no such preset.
    """
    model, config = models.find_preset(preset)
    length = config.filter_length
    rough = {"context": length, "batch": max(TOKENS_A_STEP // length, 1), "steps": 10_000, "lr": 6e-4}
    own = available().get((task, model), {}).get(preset, {})
    return {**rough, **{name: value for name, value in own.items() if name != "also"}}


def runs(task: str, preset: str) -> list[dict[str, Any]]:
    """What the preset's recipe runs: the options of each run that differ from `defaults`, those of the first none.

    Raises:
        ArgumentError: there is no such preset.
    """
    model, _ = models.find_preset(preset)
    return [{}, *available().get((task, model), {}).get(preset, {}).get("also", ())]


def _size(config: Any) -> tuple[int, int]:
    return config.layers * config.d_model**2, config.filter_length
