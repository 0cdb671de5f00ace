"""Where one way becomes faster than another: measured, in one table, and measured anew by `longwave tune`.

Which algorithm runs decides a result's rounding errors, though not their size: a machine with a table of its own gives
results of the same accuracy, and other bits.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Crossovers:
    """
    - `six_step_from`: transforms from this length on go by six steps.
    - `block_bytes`: the rows of a transform that are taken through all inner passes at once.
    - `windows_gain`: windows are taken where they are expected to take at most this part of the time of one transform.
    - `whole_rows_bytes`: while the matrices of all threads' long rows are within this, every thread takes rows of its own.
    - `most_taps`: (from so many samples on, up to so many taps) the taps are summed as they stand; lengths fall.
    """

    six_step_from: int
    block_bytes: int
    windows_gain: float
    whole_rows_bytes: int
    most_taps: tuple[tuple[int, int], ...]
    machine: str
    command: str


MEASURED = Crossovers(
    six_step_from=2**16,
    block_bytes=2**14,
    windows_gain=1.2,
    whole_rows_bytes=36 * 2**20,
    most_taps=((32_768, 32), (64, 24), (0, 16)),
    machine="AMD EPYC 7003, 2 cores, AVX2",
    command="longwave tune, twice, on 2026-11-22",
)


def file() -> Path:
    """Where `longwave tune` keeps a machine's own table."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longwave" / "crossovers.json"


@lru_cache(maxsize=1)
def chosen() -> Crossovers:
    """The machine's own table where there is a whole one, or that of the package."""
    try:
        return _parsed(json.loads(file().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return MEASURED


def _parsed(found: Any) -> Crossovers:
    """Raises ValueError for what is not a table."""
    kinds = {field.name: type(getattr(MEASURED, field.name)) for field in fields(Crossovers)}
    if not isinstance(found, dict) or set(found) != set(kinds):
        raise ValueError("other fields")
    most = found["most_taps"]
    if not isinstance(most, list) or not all(isinstance(row, list) and [type(x) for x in row] == [int, int] for row in most):
        raise ValueError("no table of taps")
    if not isinstance(found["windows_gain"], int | float):
        raise ValueError("no number")
    found = {**found, "most_taps": tuple(map(tuple, most)), "windows_gain": float(found["windows_gain"])}
    if any(type(found[name]) is not kind for name, kind in kinds.items()) or not most or most[-1][0] != 0:
        raise ValueError("values of other types")
    return Crossovers(**found)


def save(table: Crossovers) -> Path:
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(asdict(table), indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
    return path
