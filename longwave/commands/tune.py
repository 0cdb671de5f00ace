"""`longwave tune`: measure where this machine should change from one algorithm to another, and keep that."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from longwave.errors import ArgumentError, UnsupportedError

HELP = (
    "measure this machine's crossovers between the algorithms of the CPU engine and keep them (about two minutes); or a GPU's"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    parser.add_argument(
        "--device", default="cpu", help="cpu, or cuda: rows for the tables of the GPU engine, which are printed (cpu)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --device cuda, write the stamped rows")
    what.add_argument("--show", action="store_true", help="print the table that is in use, and measure nothing")
    what.add_argument("--reset", action="store_true", help="remove this machine's table; that of the package is used again")


def run(args: argparse.Namespace) -> int:
    from longwave.backends import load

    if args.device != "cpu":
        return _measure_gpu(args)
    if args.json is not None:
        raise ArgumentError("--json keeps the rows of --device cuda, and the CPU's table has a place of its own; drop it")
    reason = load("cpu").missing()
    if reason is not None:
        raise UnsupportedError(f"the CPU engine cannot be tuned here: {reason}")
    from longwave.backends.cpu import crossovers
    from longwave.bench import tune

    if args.reset:
        path = crossovers.file()
        there = path.exists()
        path.unlink(missing_ok=True)
        print(f"removed {path}" if there else f"there is no {path}")
        return 0
    if not args.show:
        table = tune.measure(print)
        print(f"kept in {crossovers.save(table)}; every process that starts from now on uses it")
        crossovers.chosen.cache_clear()
    print(tune.show(crossovers.chosen()))
    return 0


def _measure_gpu(args: argparse.Namespace) -> int:
    from longwave.backends import load
    from longwave.bench import record
    from longwave.bench.stamp import make_stamp
    from longwave.bench.timer import timer_for

    if args.show or args.reset:
        raise ArgumentError("--show and --reset are about the CPU engine's table; drop --device, or drop them")
    timer = timer_for(args.device)
    reason = load("triton").missing()
    if reason is not None:
        raise UnsupportedError(f"the GPU engine cannot be tuned here: {reason}")
    from longwave.bench import gpu_tune

    stamp = make_stamp(args.device)
    if args.json is not None:
        record.check_writable(args.json)
    print("\n".join(stamp.lines), flush=True)
    rows: list[gpu_tune.Row] = []
    for row in gpu_tune.measure(timer, args.device):
        rows.append(row)
        print(row.line, flush=True)
        if args.json is not None:  # after every row, so that an interrupted run keeps what it has
            args.json.write_text(json.dumps({"stamp": vars(stamp), "rows": [one._asdict() for one in rows]}, indent=1) + "\n")
    print("for configurations.LAUNCHES:", *gpu_tune.launches(rows, stamp), sep="\n    ")
    for dtype in dict.fromkeys(row.dtype for row in rows):
        print(f"{dtype}: sums are faster at every length up to {gpu_tune.most_taps(rows, dtype)} taps (fir_plan.MOST_TAPS)")
    return 0
