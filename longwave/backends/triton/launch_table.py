"""The one table of how kernels are launched: rows of data, each with the device, the date and the command that say so.

The package's rows stand in `launches.json`; those that no GPU has timed serve every device. `longwave tune --device cuda`
measures a machine's own, which serve the device they were measured on and come before the package's. The number of warps
decides no more of a result than its rounding errors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from longwave import dtypes
from longwave.errors import ArgumentError

# The device of rows that leave the fewest registers spilled, and that no GPU has timed.
COMPILED = "none, compiled for sm_80, sm_89 and sm_90"
PACKAGED = Path(__file__).with_name("launches.json")
WARPS, STAGES = (1, 2, 4, 8, 16, 32), range(1, 9)


class Launch(NamedTuple):
    """Of a kernel: warps of a program, and stages of its loops' loads."""

    num_warps: int
    num_stages: int = 1

    def __str__(self) -> str:
        return f"{self.num_warps} warps, {self.num_stages} stages"


class Key(NamedTuple):
    """What a launch depends on: the kernel, the dtype that it multiplies or takes, its matrices or taps, the planes of the
    ring in use, and whether there are gates. One without a size serves where its kernel and dtype have no nearer row."""

    kernel: str
    operand: str = ""
    size: str = ""
    planes: int = 1
    gated: bool = False

    @classmethod
    def of(cls, kernel: str, operand: torch.dtype, size: object = "", planes: int = 1, gated: bool = False) -> Key:
        return cls(kernel, dtypes.name(operand), str(size), planes, gated)

    def __str__(self) -> str:
        planes = "of both planes" if self.planes > 1 else ""
        return " ".join(part for part in (self.kernel, self.size, self.operand, planes, "gated" if self.gated else "") if part)


class Row(NamedTuple):
    """A launch with where it comes from."""

    key: Key
    launch: Launch
    device: str
    date: str
    command: str

    @property
    def data(self) -> dict[str, Any]:
        return {
            **self.key._asdict(),
            **self.launch._asdict(),
            "device": self.device,
            "date": self.date,
            "command": self.command,
        }

    @classmethod
    def of(cls, data: Any) -> Row:
        """Raises ValueError for what is not a row."""
        if not isinstance(data, dict) or set(data) != {*Key._fields, *Launch._fields, "device", "date", "command"}:
            raise ValueError("other fields")
        key = Key(*(data[name] for name in Key._fields))
        launch = Launch(*(data[name] for name in Launch._fields))
        row = cls(key, launch, data["device"], data["date"], data["command"])
        texts = (*key[:3], *row[2:])
        numbers = (key.planes, launch.num_warps, launch.num_stages)
        if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
            raise ValueError("values of other types")
        if type(key.gated) is not bool or key.planes not in (1, 2) or launch.num_warps not in WARPS:
            raise ValueError("no such launch")
        if launch.num_stages not in STAGES:
            raise ValueError("no such number of stages")
        return row


def file() -> Path:
    """Where `longwave tune --device cuda` keeps a machine's own rows."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longwave" / "launches.json"


def read(path: Path) -> tuple[Row, ...]:
    """The rows of a file. Raises OSError where it cannot be read, ValueError where it is no table."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not isinstance(found.get("launches"), list):
        raise ValueError("no rows")
    return tuple(Row.of(row) for row in found["launches"])


def save(rows: Iterable[Row], path: Path) -> Path:
    """Write a table, a line a row, as one: who reads it meanwhile has the one before."""
    lines = ",\n".join(json.dumps(row.data, ensure_ascii=False) for row in sorted(set(rows)))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(f'{{"launches": [\n{lines}\n]}}\n', encoding="utf-8")
    beside.replace(path)
    _table.cache_clear()
    _own.cache_clear()
    _packaged.cache_clear()
    return path


def merged(rows: Iterable[Row], more: Iterable[Row]) -> list[Row]:
    """Rows, of which `more` replace those of the same key and device."""
    return list({(row.key, row.device): row for row in (*rows, *more)}.values())


@lru_cache(maxsize=1)
def _packaged() -> tuple[Row, ...]:
    return read(PACKAGED)


@lru_cache(maxsize=1)
def _own() -> tuple[Row, ...]:
    """None where the file is missing or no table, as with that of the CPU engine."""
    try:
        return read(file())
    except (OSError, ValueError):
        return ()


def rows_of(device: str) -> dict[Key, Row]:
    """What holds on a device of this name: rows that no GPU has timed, the package's of that device, the machine's own."""
    found = {row.key: row for row in _packaged() if row.device == COMPILED}
    if device:
        found |= {row.key: row for row in (*_packaged(), *_own()) if row.device == device}
    return found


@lru_cache(maxsize=16)
def _table(device: str) -> dict[Key, Launch]:
    return {key: row.launch for key, row in rows_of(device).items()}


@lru_cache(maxsize=64)
def name_of(device: torch.device | None) -> str:
    """What a GPU is called; "" of everything else, and of none."""
    return torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else ""


def launch(key: Key, device: torch.device | None = None) -> Launch:
    """For a kernel on a device, or on one that is not here."""
    table = _table(name_of(device))
    return table.get(key) or table[Key(key.kernel, key.operand)]


def start(
    kernel: Any, grid: tuple[int, ...], key: Key, device: torch.device, *arguments: Any, fusion: bool = True, **constants: Any
) -> None:
    """Launch a kernel as the table says; `fusion`: whether products and sums may become one rounding."""
    chosen = launch(key, device)
    kernel[grid](*arguments, **constants, **chosen._asdict(), enable_fp_fusion=fusion)


def able(started: Callable[[Launch], None], way: Launch) -> Callable[[], None] | None:
    """A launch in this way, or None where a program would need more than a multiprocessor has."""
    from triton.errors import TritonError

    try:
        started(way)
    except TritonError:
        return None
    return partial(started, way)


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Kernels go to the current device: make it this one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def keep(rows: Iterable[Row]) -> Path:
    """Among the machine's own."""
    return save(merged(_own(), rows), file())


def show(device: str) -> str:
    """The rows that hold on a device, a line each, and where they come from. A device that is not here has none of its own."""
    name = name_of(torch.device(device)) if torch.cuda.is_available() else ""
    lines = [
        f"{row.key!s:<46}{row.launch!s:<22}{row.device}, {row.date}, {row.command}" for row in sorted(rows_of(name).values())
    ]
    own = file()
    if not own.exists():
        return "\n".join(["the package's rows", *lines])
    kept = f"with those of {own}" if _own() else f"for {own} is no table, and is passed over (--reset removes it)"
    return "\n".join([f"the package's rows, {kept}", *lines])


def adopt(path: Path) -> int:
    """Take the rows of a file into the package's table; how many they are. Raises ArgumentError where there are none, or one
    that no GPU has timed, or is of no kernel that the package has."""
    kernels = {(row.key.kernel, row.key.operand) for row in _packaged()}
    try:
        rows = read(path)
        if not rows:
            raise ValueError("its table is empty")
        for row in rows:
            if row.device in ("", COMPILED):
                raise ValueError(f"no GPU has timed its '{row.key}'")
            if (row.key.kernel, row.key.operand) not in kernels:
                raise ValueError(f"its '{row.key}' is no kernel of this package")
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"{path} has no rows of launches ({error}); give what `longwave tune --device cuda` kept or wrote with --json"
        ) from None
    save(merged(_packaged(), rows), PACKAGED)
    return len(rows)
