"""What `longwave info` writes: a checkpoint's model, training, scores and files."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from longwave.train import checkpoint, folder, tasks
from longwave.train.record import METRICS, Metrics
from longwave.train.task import Metric


def lines(path: Path) -> list[str]:
    """Describe the weights `path`, or the newest ones in the folder `path`; a folder's metrics and files too.

    Raises:
        DataError: there is no whole checkpoint.
    """
    weights = checkpoint.find_weights(path)
    description = checkpoint.describe(weights)
    tensors = checkpoint.load_tensors(weights)
    parts: Counter[str] = Counter()
    for name, tensor in tensors.items():
        parts[_part(name)] += math.prod(tensor.shape)
    config = ", ".join(f"{name} {value}" for name, value in description.config.items())
    found = [
        f"checkpoint  {weights}",
        f"model       {description.model}, preset {description.preset}",
        f"config      {config}",
        f"parameters  {parts.total():,}",
        *(f"            {count:>11,}  {part}" for part, count in parts.items()),
        f"task        {description.task}",
        f"context     {description.context:,} {tasks.find(description.task).UNIT}s",
        f"step        {description.step:,}",
        f"data        {_data(description.data)}",
    ]
    if path.is_dir():
        kept = folder.read_config(path) if (path / folder.CONFIG).is_file() else {}  # weights may be kept alone
        if begun := kept.get("began_with"):
            whose = f"{begun['model']}, preset {begun['preset']}, on {begun['task']}, context {begun['context']:,}"
            found.append(f"began with  {whose}, step {begun['step']:,}")
        found += _latest(path, tasks.find(description.task).METRIC)
        found += [
            f"file        {file.name}  {file.stat().st_size:,} bytes" for file in sorted(path.iterdir()) if file.is_file()
        ]
    return found


def _part(name: str) -> str:
    """`blocks.3.mixer.in_proj.weight` -> `blocks, mixer`: the same part of every block is counted together."""
    names = [part for part in name.split(".") if not part.isdigit()]
    return ", ".join(names[:2]) if len(names) > 2 else names[0]


def _data(about: dict[str, Any]) -> str:
    """`E. coli 536: 1 records, 4,938,920 bases`."""
    sizes = ", ".join(f"{value:,} {name}" for name, value in about.items() if isinstance(value, int))
    return f"{about.get('source')}: {sizes}"


def _latest(folder: Path, metric: Metric) -> list[str]:
    latest = {line["kind"]: line for line in Metrics(folder / METRICS).read()}
    found = [
        f"{kind:<12}{latest[kind][metric.name]:.4f} {metric.label} at step {latest[kind]['step']:,}"
        for kind in ("train", "validation")
        if kind in latest
    ]
    if test := latest.get("test"):
        asked = test[f"test_{metric.counted}s"]
        found.append(f"test        {test[f'model_{metric.name}']:.4f} {metric.label} on {asked:,} held-out {metric.counted}s")
        others = {name: value for name, value in test.items() if name.endswith(f"_{metric.name}") and name[:6] != "model_"}
        found += [f"            {value:.4f} {name.removesuffix(f'_{metric.name}')}" for name, value in others.items()]
    return found
