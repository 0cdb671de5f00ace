"""`longwave race TASK`: what a model learns in the same seconds on the backend `plain` and on the engine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from longwave.commands.train import add_task_arguments
from longwave.train import options, tasks

HELP = "train one model for the same seconds on two backends, and draw both curves"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand a task."""
    subparsers = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for name in tasks.available():
        sub = subparsers.add_parser(name, help=f"{HELP}: {name}", description=HELP)
        add_task_arguments(sub, name)
        sub.add_argument("--seconds", type=float, default=300.0, help="of training for each backend (default: 300)")
        sub.add_argument("--out", type=Path, metavar="FILE.png", help="draw the curves there (default: race-TASK-PRESET.png)")
        sub.add_argument("--save", action="store_true", help="write all numbers to benchmarks/results/train/ of the checkout")
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")


def run(args: argparse.Namespace) -> int:
    """Write a table to stdout and a picture; returns 0.

    Raises:
        LongwaveError: an option or the data cannot be used.
    """
    from longwave.bench import record
    from longwave.bench.stamp import make_stamp
    from longwave.train import race, results
    from longwave.train.heap import keep_freed_memory

    chosen = options.resolve(args.task, options.given(args.task, args))
    out = args.out or Path(f"race-{chosen.task}-{chosen.preset}.png")
    record.check_writable(out)
    stamp = make_stamp(str(options.choose_device(chosen.device)))
    print("\n".join(stamp.lines), flush=True)
    keep_freed_memory(chosen.context)
    run = race.run(chosen, args.seconds)
    print(run)
    race.draw(run, stamp, out)
    print(f"written: {out}", file=sys.stderr)
    if args.save:
        path = results.kept_path(f"race-{chosen.task}-{chosen.preset}", stamp)
        record.write_atomically(path, (json.dumps(run.as_dict(stamp), indent=1) + "\n").encode())
        print(f"written: {path}", file=sys.stderr)
    return 0
