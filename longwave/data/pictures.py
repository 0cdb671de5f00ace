"""What modules of drawn examples share to show them: `python -m longwave.data.NAME OUT.png`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from longwave.errors import ArgumentError, LongwaveError, MissingDependencyError


def figure(width: float, height: float) -> Any:
    """An empty figure of so many inches.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("drawing takes matplotlib; run `pip install 'longwave[train]'`") from error
    return Figure(figsize=(width, height), layout="constrained")


def save(drawn: Any, path: str | Path, dpi: int) -> None:
    """Write a figure, the same bytes wherever it is drawn by the same matplotlib.

    Raises:
        ArgumentError: the file cannot be written, or is to be of a kind that is none of pictures.
    """
    try:
        drawn.savefig(path, dpi=dpi, metadata={"Software": None})
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{path} cannot be drawn ({error}); name a .png in a folder that exists") from error


def main(module: str, what: str, draw: Callable[[Path], None], arguments: Sequence[str] | None = None) -> int:
    """Draw examples of `what` into the file that the command line of `module` names.

    Returns 0, or 2 with one sentence where they cannot be drawn.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"draw examples of {what}")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    try:
        draw(parser.parse_args(arguments).out)
    except LongwaveError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    return 0
