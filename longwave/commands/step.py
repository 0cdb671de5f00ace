"""`longwave step`: the time of a training step with each backend, beside a step whose convolutions are copies."""

from __future__ import annotations

import argparse

HELP = "time a training step with each backend of the convolutions, beside the same with copies in their place"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="small", help="size of the model (small)")
    parser.add_argument("--context", type=int, default=32_768, metavar="POSITIONS", help="positions in a sequence (32768)")
    parser.add_argument("--batch", type=int, default=1, metavar="SEQUENCES", help="sequences in a step (1)")
    parser.add_argument("--backend", nargs="+", default=[], metavar="NAME", help="backends (all that can run)")
    parser.add_argument("--layers", type=int, metavar="N", help="blocks of the model (default: the preset's)")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each kind that count (3); 0: with --memory, that alone")
    parser.add_argument("--ranks", action="store_true", help="steps of DNA on 1, 2 and 4 gloo processes here instead")
    parser.add_argument("--memory", action="store_true", help="one more step of each kind, for the bytes that it holds")
    parser.add_argument("--save", action="store_true", help="write it to benchmarks/results/train/ of the checkout")
    parser.add_argument("--activation-checkpointing", action="store_true", help="compute activations twice and keep few")


def run(args: argparse.Namespace) -> int:
    import json
    import sys
    from dataclasses import asdict

    from longwave import backends
    from longwave.bench import record
    from longwave.bench.stamp import make_stamp
    from longwave.errors import ArgumentError
    from longwave.train import results, step_time
    from longwave.train.heap import keep_freed_memory

    for name in ("context", "batch", "rounds", "layers"):
        least = 0 if name == "rounds" and args.memory else 1
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise ArgumentError(f"--{name} {getattr(args, name)} is too few; use at least {least}")
    if args.ranks:
        one = {"backend": args.backend, "layers": args.layers, "memory": args.memory}
        one["activation-checkpointing"] = args.activation_checkpointing
        if given := " ".join(f"--{name}" for name, value in one.items() if value):
            raise ArgumentError(
                f"--ranks measures steps as they are trained by default, not with {given}; leave one of them out"
            )
        return _ranks(args)
    names = args.backend or [name for name, reason in backends.available().items() if reason is None]
    for name in names:
        backends.load(name)  # refuses a name that is none
    keep_freed_memory(args.context)
    stamp = make_stamp()
    print("\n".join(stamp.lines), flush=True)
    steps = step_time.measure(
        args.preset, args.context, args.batch, names, rounds=args.rounds,
        activation_checkpointing=args.activation_checkpointing, layers=args.layers, memory=args.memory,
    )  # fmt: skip
    print(steps)
    if args.save:
        path = results.kept_path(f"step-{args.preset}-{args.context}", stamp)
        content = {"schema": step_time.SCHEMA, "stamp": asdict(stamp), **asdict(steps)}
        record.write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
        print(f"written: {path}", file=sys.stderr)
    return 0


def _ranks(args: argparse.Namespace) -> int:
    import sys

    from longwave.bench import record
    from longwave.bench.stamp import make_stamp
    from longwave.train import results, step_ranks

    chosen = step_ranks.asked(args.preset, args.context, args.batch)
    stamp = make_stamp()
    print("\n".join(stamp.lines), flush=True)
    rows = []
    for row in step_ranks.measure(chosen, args.rounds):
        rows.append(row)
        print(row.line, flush=True)
    if args.save:
        path = results.kept_path(f"ranks-{args.preset}-{args.context}", stamp)
        about = {"preset": args.preset, "context": args.context, "batch": args.batch, "threads a process": 1}
        record.save_rows(step_ranks.SCHEMA, stamp, about, rows, path)
        print(f"written: {path}", file=sys.stderr)
    return 0
