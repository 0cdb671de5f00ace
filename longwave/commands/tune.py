"""`longwave tune`: measure where this machine should change from one algorithm to another, and keep that."""

from __future__ import annotations

import argparse

from longwave.errors import UnsupportedError

HELP = "measure this machine's crossovers between the algorithms of the CPU engine and keep them (about two minutes)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--show", action="store_true", help="print the table that is in use, and measure nothing")
    what.add_argument("--reset", action="store_true", help="remove this machine's table; that of the package is used again")


def run(args: argparse.Namespace) -> int:
    from longwave.backends import load

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
