"""`docs/results.md`: every recipe and every run that was kept, with score, baseline and where it ran."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from longwave.bench.stamp import Stamp, checkout
from longwave.errors import DataError
from longwave.train import recipe, tasks
from longwave.train.job import RESULT, SCHEMA
from longwave.train.options import Options, dashed, resolve
from longwave.train.task import Value

_HEADER = (
    "task", "model", "preset", "parameters", "context", "steps", "seconds", "score", "baseline", "command", "commit", "machine",
)  # fmt: skip

_INTRODUCTION = """\
# Results

This page is written by a command from the runs kept in `benchmarks/results/train/`; to change it, run a recipe and the
command again:

    longwave train TASK --model MODEL --out RUN
    longwave results RUN --save --out docs/results.md

Scores are those of held-out test data; the baseline is a simple method on the same data. Rows without a score were not run.
"""


def load(path: Path) -> dict[str, Any]:
    """The result of a run: its folder, or its `result.json`.

    Raises:
        DataError: it cannot be read, or is none.
    """
    path = path / RESULT if path.is_dir() else path
    content = _read(path)
    if content.get("schema") != SCHEMA:
        raise DataError(f"{path} is no result of `longwave train` of this version; train again")
    return content


def _read(path: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); give the folder of a run that was tested") from error
    return content if isinstance(content, dict) else {}


def kept_folder() -> Path:
    """Where results are kept: in the checkout longwave runs from, or in this folder."""
    return (checkout() or Path.cwd()) / "benchmarks" / "results" / "train"


def kept_path(name: str, stamp: Stamp) -> Path:
    """A file for a result in `kept_folder`, which is made."""
    folder = kept_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{stamp.file_name}"


def kept() -> list[dict[str, Any]]:
    """The results of training that are kept, beside races and timed steps. Raises DataError for a file that cannot be read, or
    is of another version."""
    folder = kept_folder()
    found = sorted(folder.glob("*.json")) if folder.is_dir() else []
    family = SCHEMA.partition("/")[0]
    return [load(path) for path in found if str(_read(path).get("schema", family)).partition("/")[0] == family]


def as_markdown(results: Iterable[dict[str, Any]]) -> str:
    """The page: a row for every result, and one for every run of a recipe that has none, of its preset and context."""
    results = list(results)
    rows = [_row(result) for result in results]
    ran = {(result["task"], result["preset"], result["context"]) for result in results}
    for (task, model), content in recipe.available().items():
        for preset in (name for name, value in content.items() if isinstance(value, dict)):
            for asked in recipe.runs(task, preset):
                known = {name: value for name, value in asked.items() if name != "init_from"}  # of a run that may not be here
                chosen = resolve(task, {"preset": preset, **known})
                if (task, preset, chosen.context) not in ran:
                    rows.append(_missing(model, chosen, asked))
    rows.sort(key=lambda row: (*row[:3], int(row[4].replace(",", ""))))
    lines = ["| " + " | ".join(_HEADER) + " |", "|" + "---|" * len(_HEADER), *("| " + " | ".join(row) + " |" for row in rows)]
    return _INTRODUCTION + "\n" + "\n".join(lines) + "\n"


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    metric, stamp = tasks.find(result["task"]).METRIC, Stamp(**result["stamp"])
    name, label = list(result["references"].items())[-1]
    used = f"{stamp.threads} of " * (stamp.threads < stamp.cores)
    machine = f"{stamp.cpu}, {used}{stamp.cores} cores" if stamp.device == "cpu" else stamp.device
    machine += ", bf16" * (result.get("autocast") == "bf16")
    return (
        result["task"], result["model"], result["preset"], f"{result['parameters']:,}", f"{result['context']:,}",
        f"{result['steps']:,}", f"{result['seconds']:,.0f}",
        f"{result[f'model_{metric.name}']:.4f} {metric.label}, of {result[f'test_{metric.counted}s']:,}",
        f"{result[f'{name}_{metric.name}']:.4f}, {label}", f"`{stamp.command}`",
        f"{stamp.commit[:10] or stamp.versions['longwave']}{' (changed)' * stamp.dirty}", machine,
    )  # fmt: skip


def _missing(model: str, chosen: Options, asked: Mapping[str, Value]) -> tuple[str, ...]:
    words = "".join(f" --{dashed(name)} {value}" for name, value in asked.items())
    command = f"`longwave train {chosen.task} --preset {chosen.preset}{words}`"
    return (
        chosen.task, model, chosen.preset, "", f"{chosen.context:,}", f"{chosen.steps:,}", "", "not run", "", command, "", "",
    )  # fmt: skip
