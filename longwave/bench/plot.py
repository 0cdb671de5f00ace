"""Time per sample over length, log–log: one line for each contestant, the copy floor drawn below them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longwave.bench.cases import BACKWARD, FORWARD
from longwave.bench.contestants import FLOOR, LONGWAVE, RIVAL
from longwave.bench.record import CaseResult, Run, write_atomically
from longwave.bench.timer import Spread
from longwave.errors import ArgumentError, DataError, MissingDependencyError

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito's palette: told apart with every common colour blindness; markers tell them apart without colour.
_OURS = ("#0072B2", "#56B4E9", "#009E73")
_RIVALS = ("#D55E00", "#E69F00", "#CC79A7")
_MARKERS = {LONGWAVE: "o^D", RIVAL: "svP"}


def check_plot(path: Path) -> None:
    """Raises ArgumentError for a file name that is no picture's, MissingDependencyError without matplotlib."""
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(f"{path} is no picture's name; end it in one of {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("--plot needs matplotlib; pip install 'longwave[bench]'") from error


def write_plot(run: Run, path: Path) -> None:
    """Draws the length sweeps of a run into a picture file, whole or not at all.

    Raises DataError where the run has no length sweep, ArgumentError where the path cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    sweep = [result for result in run.results if "lengths" in result.case.tags]
    if not sweep:
        raise DataError("no case of the length sweep was measured, so there is nothing to plot; use --cases lengths")
    totals = sorted({result.case.exponent for result in sweep})
    directions = [d for d in (FORWARD, BACKWARD) if any(result.case.direction == d for result in sweep)]
    rows, columns = len(totals), len(directions)
    figure = Figure(figsize=(0.8 + 5.2 * columns, 1.5 + 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for row, total in zip(axes, totals, strict=True):
        for ax, direction in zip(row, directions, strict=True):
            panel = [r for r in sweep if r.case.exponent == total and r.case.direction == direction]
            _draw(ax, run, sorted(panel, key=lambda result: result.case.L))
            ax.set_title(f"{direction}, 2^{total} samples, float32, causal", fontsize=10)
        row[0].set_ylabel("ns per sample")
    for ax in axes[-1]:
        ax.set_xlabel("length L = K, samples")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=9)
    figure.supxlabel("\n".join(run.stamp.lines[:2]), fontsize=6.5, color="0.35")
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.lower()[1:], dpi=150)
    write_atomically(path, picture.getvalue())


def _draw(ax: Any, run: Run, panel: Sequence[CaseResult]) -> None:
    for kind, colours in ((LONGWAVE, _OURS), (RIVAL, _RIVALS)):
        for i, name in enumerate(run.names(kind)):
            style = {"color": colours[i % len(colours)], "marker": _MARKERS[kind][i % 3]}
            _line(ax, panel, name, **style, linewidth=2.2 if kind == LONGWAVE else 1.3, markersize=5)
    for name, dashes in zip(run.names(FLOOR), ("--", ":"), strict=False):
        _line(ax, panel, name, color="0.45", linestyle=dashes, linewidth=1.3)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ticks = [2**e for e in range(8, 25, 2)]
    ax.set_xticks(ticks, [_length(tick) for tick in ticks])
    ax.set_xlim(min(result.case.L for result in panel) / 1.4, max(result.case.L for result in panel) * 1.4)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    ax.tick_params(axis="y", which="minor", labelsize=7)
    ax.grid(True, which="major", color="0.85", linewidth=0.7)
    ax.grid(True, which="minor", axis="y", color="0.93", linewidth=0.5)
    ax.set_axisbelow(True)


def _line(ax: Any, panel: Sequence[CaseResult], name: str, **style: Any) -> None:
    """Median and, as a thin bar, lowest to highest; ns per sample."""
    lengths, medians, below, above = [], [], [], []
    for result in panel:
        for entry in result.entries:
            if entry.name == name and entry.seconds:
                spread, scale = Spread.of(entry.seconds), 1e9 / result.case.samples
                lengths.append(result.case.L)
                medians.append(spread.median * scale)
                below.append((spread.median - spread.low) * scale)
                above.append((spread.high - spread.median) * scale)
    ax.errorbar(lengths, medians, yerr=(below, above), label=name, elinewidth=0.7, **style)


def _length(samples: int) -> str:
    if samples >= 2**20:
        return f"{samples // 2**20}M"
    return f"{samples // 2**10}K" if samples >= 2**10 else str(samples)
