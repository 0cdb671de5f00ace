"""`longwave results`: the table of what recipes gave."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HELP = "make the table of trained recipes from the runs that are kept"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of runs to add to those that are kept")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the page there (default: to standard output)")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/train/ of the checkout")


def run(args: argparse.Namespace) -> int:
    """Write the page; returns 0.

    Raises:
        LongwaveError: a run was not tested, or the page cannot be written.
    """
    import json

    from longwave.bench import record
    from longwave.bench.stamp import Stamp
    from longwave.train import results

    if args.out is not None:
        record.check_writable(args.out)
    added = [results.load(path) for path in args.runs]
    everything = [*results.kept(), *added]
    for result in added if args.save else []:
        path = results.kept_path(f"{result['task']}-{result['preset']}", Stamp(**result["stamp"]))
        record.write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
        print(f"written: {path}", file=sys.stderr)
    page = results.as_markdown(everything)
    if args.out is None:
        print(page, end="")
    else:
        record.write_atomically(args.out, page.encode())
        print(f"written: {args.out}", file=sys.stderr)
    return 0
