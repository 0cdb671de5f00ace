"""`longwave train TASK`: every module in `longwave/train/tasks` is a task, found by being there."""

from __future__ import annotations

import argparse
from pathlib import Path

from longwave.train import options, tasks

HELP = "train a model and score it on held-out data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand a task."""
    subparsers = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for name, task in tasks.available().items():
        sub = subparsers.add_parser(name, help=task.HELP, description=task.HELP)
        add_task_arguments(sub, name)
        sub.add_argument("--out", type=Path, metavar="DIR", help=f"folder of the run (default: runs/{name}-PRESET-CONTEXT)")
        sub.add_argument("--resume", action="store_true", help="continue the run in --out to the same numbers")
        _add_processes(sub)
        # Accepted behind the task too; SUPPRESS, or its absence here would undo `longwave train --debug TASK`.
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")


def _add_processes(parser: argparse.ArgumentParser) -> None:
    """How the processes that torchrun starts share the work; a run may go on with other ones."""
    parser.add_argument(
        "--dp", type=int, metavar="RANKS", help="of other sequences, with copies of the model (default: the rest)"
    )
    parser.add_argument("--fsdp", type=int, metavar="RANKS", help="of other sequences, with shards of the model (default: 1)")
    parser.add_argument("--cp", type=int, metavar="RANKS", help="that share each sequence, a span each (default: 1)")
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="after which a collective ends that another process does not join (120)",
    )


def add_task_arguments(parser: argparse.ArgumentParser, task: str) -> None:
    """What a run is made of. Each option defaults to None, so that a resumed run can tell what was asked for."""
    parser.add_argument("--model", help="a model, in the size that its recipe says (default: that of the preset)")
    for option in (*options.common(task), *tasks.find(task).OPTIONS):
        parser.add_argument(f"--{options.dashed(option.name)}", type=option.kind, metavar=option.metavar, help=option.help)


def run(args: argparse.Namespace) -> int:
    """Train; returns 0, or 130 when the run was interrupted and saved.

    Raises:
        LongwaveError: an option or the data cannot be used; nothing has been written.
    """
    from longwave.train import job

    return job.run(args)
