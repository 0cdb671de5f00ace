"""`longwave tune`: measure where this machine should change between algorithms, or how a GPU launches kernels, and keep it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from longwave.errors import ArgumentError, UnsupportedError

HELP = (
    "measure this machine's crossovers between the algorithms of the CPU engine and keep them (about two minutes); or how a "
    "GPU's kernels are launched"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: how kernels of the GPU engine are launched there (cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --device cuda, write the stamped rows here too")
    what.add_argument("--show", action="store_true", help="print the table that is in use, and measure nothing")
    what.add_argument("--reset", action="store_true", help="remove this machine's table; that of the package is used again")
    what.add_argument(
        "--adopt",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="FILE",
        help="with --device cuda, in a checkout: take the rows of this machine, or of FILE, into the package's table",
    )


def run(args: argparse.Namespace) -> int:
    from longwave.backends import load

    if args.device != "cpu":
        return _run_gpu(args)
    for name in ("json", "adopt"):
        if getattr(args, name) is not None:
            raise ArgumentError(f"--{name} is about rows of --device cuda, and the CPU's table has a place of its own; drop it")
    reason = load("cpu").missing()
    if reason is not None:
        raise UnsupportedError(f"the CPU engine cannot be tuned here: {reason}")
    from longwave.backends.cpu import crossovers
    from longwave.bench import tune

    if args.reset:
        return _reset(crossovers.file())
    if not args.show:
        table = tune.measure(print)
        print(f"kept in {crossovers.save(table)}; every process that starts from now on uses it")
        crossovers.chosen.cache_clear()
    print(tune.show(crossovers.chosen()))
    return 0


def _reset(path: Path) -> int:
    there = path.exists()
    path.unlink(missing_ok=True)
    print(f"removed {path}" if there else f"there is no {path}")
    return 0


def _run_gpu(args: argparse.Namespace) -> int:
    idle = args.show or args.reset or args.adopt is not None
    if idle and args.device != "cuda":
        raise ArgumentError(f"--device {args.device} has no table; use cpu, or cuda, whose table has the rows of every GPU")
    if idle and args.json is not None:
        raise ArgumentError("--json keeps what is measured, and --show, --reset and --adopt measure nothing; drop it")
    from longwave.backends.triton import launch_table

    if args.reset:
        return _reset(launch_table.file())
    if args.adopt is not None:
        from longwave.bench.stamp import checkout

        if checkout() is None:
            raise UnsupportedError("--adopt writes into a checkout, and this is an installed package; run it in a checkout")
        path = launch_table.file() if args.adopt == Path() else args.adopt
        print(f"{launch_table.adopt(path)} rows of {path} are in {launch_table.PACKAGED}")
        return 0
    if not args.show:
        _measure_gpu(args)
    print(launch_table.show(args.device))
    return 0


def _measure_gpu(args: argparse.Namespace) -> None:
    from longwave.backends import load
    from longwave.backends.triton import launch_table
    from longwave.bench import record
    from longwave.bench.stamp import make_stamp
    from longwave.bench.timer import timer_for

    timer = timer_for(args.device)
    reason = load("triton").missing()
    if reason is not None:
        raise UnsupportedError(f"the GPU engine cannot be tuned here: {reason}")
    from longwave.bench import gpu_tune

    stamp = make_stamp(args.device)
    launch_table.file().parent.mkdir(parents=True, exist_ok=True)
    for path in filter(None, (args.json, launch_table.file())):
        record.check_writable(path)
    print("\n".join(stamp.lines), flush=True)
    rows: list[launch_table.Row] = []
    measured: list[gpu_tune.Measured] = []

    def keep(found: gpu_tune.Measured) -> None:
        """After every measurement, so that an interrupted run has what it made."""
        measured.append(found)
        print(found.line, flush=True)
        if args.json is not None:
            kept = {"stamp": vars(stamp), "measured": [one._asdict() for one in measured], "launches": [r.data for r in rows]}
            args.json.write_text(json.dumps(kept, indent=1) + "\n")

    for row, found in gpu_tune.launches(timer, stamp, args.device):
        rows.append(row)
        launch_table.keep([row])
        keep(found)
    print(f"kept in {launch_table.file()}; this machine uses it from now on")
    taps = []
    for found in gpu_tune.sums(timer, args.device):
        taps.append(found)
        keep(found)
    for dtype in gpu_tune.DTYPES:
        print(f"{dtype}: sums are faster at every length up to {gpu_tune.most_taps(taps, dtype)} taps (fir_plan.MOST_TAPS)")
