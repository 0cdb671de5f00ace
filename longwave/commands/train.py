"""`longwave train TASK`: every module in `longwave/train/tasks` is a task, found by being there."""

from __future__ import annotations

import argparse

from longwave.train import tasks

HELP = "train a model and score it on held-out data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand a task."""
    subparsers = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for name, task in tasks.available().items():
        sub = subparsers.add_parser(name, help=task.HELP, description=task.HELP)
        task.add_arguments(sub)
        # Accepted behind the task too; SUPPRESS, or its absence here would undo `longwave train --debug TASK`.
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")


def run(args: argparse.Namespace) -> int:
    """Train; returns 0, or 130 when the run was interrupted and saved.

    Raises:
        LongwaveError: an option or the data cannot be used; nothing has been written.
    """
    status: int = tasks.available()[args.task].run(args)
    return status
