"""`longwave step`: the time of a training step with each backend, beside a step whose convolutions are copies."""

from __future__ import annotations

import argparse

HELP = "time a training step with each backend of the convolutions, beside the same with copies in their place"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="small", help="size of the model (small)")
    parser.add_argument("--context", type=int, default=32_768, metavar="BASES", help="bases in a window (32768)")
    parser.add_argument("--batch", type=int, default=1, metavar="WINDOWS", help="windows in a step (1)")
    parser.add_argument("--backend", nargs="+", default=[], metavar="NAME", help="backends (all that can run)")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each kind that count (3)")
    parser.add_argument("--activation-checkpointing", action="store_true", help="compute activations twice and keep few")


def run(args: argparse.Namespace) -> int:
    from longwave import backends
    from longwave.bench.stamp import make_stamp
    from longwave.errors import ArgumentError
    from longwave.train import step_time

    for name in ("context", "batch", "rounds"):
        if getattr(args, name) < 1:
            raise ArgumentError(f"--{name} {getattr(args, name)} is too few; use at least 1")
    names = args.backend or [name for name, reason in backends.available().items() if reason is None]
    for name in names:
        backends.load(name)  # refuses a name that is none
    print("\n".join(make_stamp().lines), flush=True)
    steps = step_time.measure(
        args.preset, args.context, args.batch, names, rounds=args.rounds,
        activation_checkpointing=args.activation_checkpointing,
    )  # fmt: skip
    print(steps)
    return 0
