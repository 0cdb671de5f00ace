"""What modules of drawn examples share to show them: `python -m longwave.data.NAME OUT.png`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from longwave.errors import MissingDependencyError


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
    """Write a figure, the same bytes wherever it is drawn by the same matplotlib."""
    drawn.savefig(path, dpi=dpi, metadata={"Software": None})


def main(module: str, what: str, draw: Callable[[Path], None], arguments: Sequence[str] | None = None) -> int:
    """Draw examples of `what` into the file that the command line of `module` names; returns 0."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"draw examples of {what}")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    draw(parser.parse_args(arguments).out)
    return 0
