"""What `longwave info` writes: a checkpoint's model, training, scores and files."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from longwave.train import checkpoint
from longwave.train.record import METRICS, Metrics


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
        f"context     {description.context:,} bases",
        f"step        {description.step:,}",
        f"data        {description.data.get('source')}: {description.data.get('bases', 0):,} bases",
    ]
    if path.is_dir():
        found += _latest(path)
        found += [
            f"file        {file.name}  {file.stat().st_size:,} bytes" for file in sorted(path.iterdir()) if file.is_file()
        ]
    return found


def _part(name: str) -> str:
    """`blocks.3.mixer.in_proj.weight` -> `blocks, mixer`: the same part of every block is counted together."""
    names = [part for part in name.split(".") if not part.isdigit()]
    return ", ".join(names[:2]) if len(names) > 2 else names[0]


def _latest(folder: Path) -> list[str]:
    metrics = Metrics(folder / METRICS).read()
    latest = {line["kind"]: line for line in metrics}
    found = [
        f"{kind:<12}{latest[kind]['bits_per_base']:.4f} bits per base at step {latest[kind]['step']:,}"
        for kind in ("train", "validation")
        if kind in latest
    ]
    if test := latest.get("test"):
        found.append(f"test        {test['model_bits_per_base']:.4f} bits per base on {test['test_bases']:,} held-out bases")
        found.append(f"            {test['markov_bits_per_base']:.4f} by the Markov model of order {test['markov_order']}")
        found.append(f"            {test['uniform_bits_per_base']:.4f} by chance")
    return found
