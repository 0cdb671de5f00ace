"""`longwave bench`: how fast, against whom, and right at that shape."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longwave.bench.cases import Case
    from longwave.bench.record import Run

# Options that measure something else, with a table of its own.
APART = ("short", "partial", "packed", "stream", "ranks")
HELP = "time long_conv against torch.fft, scipy.fft and ducc0, or GPU rivals; every shape is checked for correctness first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is measured")
    what.add_argument("--backend", nargs="+", default=[], metavar="NAME", help="backends of longwave (all that can run)")
    what.add_argument(
        "--cases",
        "--filter",
        nargs="+",
        default=[],
        metavar="WORD",
        help="cases with this tag, or with this inside their name (all)",
    )
    what.add_argument("--samples", nargs="+", type=int, metavar="E", help="totals of 2^E samples (22 and 24; with --quick 20)")
    what.add_argument(
        "--direction",
        nargs="+",
        choices=("forward", "backward"),
        default=["forward", "backward"],
        help="`backward` is forward and backward together (both)",
    )
    what.add_argument(
        "--device", default="cpu", help="cpu, or cuda: there 64 · 768 rows of 256 … 4M samples unless --samples is given (cpu)"
    )
    apart = what.add_mutually_exclusive_group()
    apart.add_argument("--short", action="store_true", help="short_conv against F.conv1d instead")
    apart.add_argument("--partial", action="store_true", help="a million samples under filters from short to long instead")
    apart.add_argument(
        "--packed", action="store_true", help="packed documents against a padded batch and a loop instead, and their memory"
    )
    apart.add_argument(
        "--stream",
        action="store_true",
        help="streams instead: steps beside a direct sum, chunks beside a full call, generation, a reverb",
    )
    apart.add_argument(
        "--ranks", action="store_true", help="a sequence split over 1, 2 and 4 gloo processes of this machine instead"
    )
    what.add_argument("--list", action="store_true", help="list the cases and their tags, and measure nothing")
    how = parser.add_argument_group("how long")
    how.add_argument("--rounds", type=int, default=5, help="rounds for each case, at least 5 (5)")
    how.add_argument("--seconds", type=float, help="more rounds, to 100, for so many seconds a case (5; with --quick 0)")
    how.add_argument("--quick", action="store_true", help="a few cases, in about a minute")
    out = parser.add_argument_group("what is kept")
    out.add_argument("--json", type=Path, metavar="FILE", help="write the stamped result with all raw times")
    out.add_argument(
        "--save",
        action="store_true",
        help="write it to benchmarks/results/<date>-<machine>-<commit>.json of the checkout, or of this folder",
    )
    out.add_argument("--plot", type=Path, metavar="FILE.png", help="draw time per sample over length")
    out.add_argument("--markdown", action="store_true", help="print the table as Markdown at the end")
    out.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE.json",
        help="show or plot (a part of) an earlier result; measure nothing",
    )


def run(args: argparse.Namespace) -> int:
    from longwave.bench import plot, record, report

    for name in APART:
        if getattr(args, name):
            return _measure_apart(name, args)
    if args.plot is not None:
        plot.check_plot(args.plot)
        record.check_writable(args.plot)
    if args.source is not None:
        _refuse_both(args)
        shown = _narrowed(record.load(args.source), args)
        print(report.as_markdown(shown) if args.markdown else report.as_text(shown))
        status = 0
    elif args.list:
        for case in _chosen(args):
            print(f"{case.name:<56} {' '.join(case.tags)}")
        return 0
    else:
        shown, status = _measure(args)
        if args.markdown:
            print("\n" + report.as_markdown(shown))
    if args.plot is not None:
        plot.write_plot(shown, args.plot)
        print(f"plot: {args.plot}")
    return status


def _measure_apart(name: str, args: argparse.Namespace) -> int:
    """A table of its own kind; its module in `longwave.bench` has the option's name."""
    from longwave.bench import record
    from longwave.bench.contestants import runnable_backends
    from longwave.bench.stamp import checkout, make_stamp

    _refuse_beside(name, args)
    seconds = _time_of(args, 0.0)
    table = importlib.import_module(f"longwave.bench.{name}")
    backends = runnable_backends(args.backend)
    stamp = make_stamp()
    targets = [args.json] if args.json is not None else []
    if args.save:
        folder = (checkout() or Path.cwd()) / "benchmarks" / "results"
        folder.mkdir(parents=True, exist_ok=True)
        targets.append(folder / stamp.file_name.replace(".json", f"-{table.SUFFIX}.json"))
    for path in targets:
        record.check_writable(path)
    about = table.about()
    print("\n".join([*stamp.lines, ", ".join(f"{key} {value}" for key, value in about.items())]), flush=True)
    rows = []
    for row in table.measure(backends, args.rounds, seconds):
        rows.append(row)
        print(row.line, flush=True)
        for path in targets:
            record.save_rows(table.SCHEMA, stamp, about, rows, path)
    for path in targets:
        print(f"result: {path}")
    return 0


def _refuse_beside(name: str, args: argparse.Namespace) -> None:
    from longwave.errors import ArgumentError

    of_cases = {
        "--cases": args.cases,
        "--samples": args.samples,
        "--direction": len(args.direction) == 1,
        "--device": args.device != "cpu",
        "--list": args.list,
        "--quick": args.quick,
        "--plot": args.plot is not None,
        "--markdown": args.markdown,
        "--from": args.source is not None,
    }
    given = [option for option, value in of_cases.items() if value]
    if given:
        raise ArgumentError(f"--{name} has a table of its own, measured on the CPU, and {given[0]} is not for it; drop one")


def _time_of(args: argparse.Namespace, otherwise: float) -> float:
    """Seconds for every case. Raises ArgumentError for no time, or too few rounds."""
    from longwave.bench.timer import MIN_ROUNDS
    from longwave.errors import ArgumentError

    if args.rounds < MIN_ROUNDS:
        raise ArgumentError(f"--rounds {args.rounds} is too few for a median with its spread; use at least {MIN_ROUNDS}")
    seconds: float = otherwise if args.seconds is None else args.seconds
    if not seconds >= 0:
        raise ArgumentError(f"--seconds {seconds:g} is no time; use 0 or more")
    return seconds


def _refuse_both(args: argparse.Namespace) -> None:
    from longwave.errors import ArgumentError

    measuring = {
        "--backend": args.backend,
        "--quick": args.quick,
        "--list": args.list,
        "--json": args.json,
        "--save": args.save,
    }
    given = [option for option, value in measuring.items() if value]
    if given:
        raise ArgumentError(f"--from shows an earlier result and measures nothing, so {given[0]} cannot go with it; drop one")


def _narrowed(run: Run, args: argparse.Namespace) -> Run:
    """The results that --samples, --cases and --direction ask for."""
    from dataclasses import replace

    from longwave.bench.cases import select

    kept = [result for result in run.results if not args.samples or result.case.exponent in args.samples]
    chosen = set(select([result.case for result in kept], words=args.cases, directions=_directions(args)))
    return replace(run, results=[result for result in kept if result.case in chosen])


def _directions(args: argparse.Namespace) -> list[str]:
    from longwave.bench.cases import BACKWARD, FORWARD

    return [{"forward": FORWARD, "backward": BACKWARD}[word] for word in args.direction]


def _chosen(args: argparse.Namespace) -> list[Case]:
    from longwave.bench.cases import SAMPLES, case_list, gpu_case_list, select
    from longwave.errors import ArgumentError

    if args.device != "cpu" and not args.samples:
        words = args.cases or (["quick"] if args.quick else [])
        return select(gpu_case_list(_memory_bytes(args.device)), words=words, directions=_directions(args))
    samples = args.samples or ([20] if args.quick else SAMPLES)
    for exponent in samples:
        if not 8 <= exponent <= 32:
            raise ArgumentError(f"--samples {exponent} means 2^{exponent} samples; use exponents from 8 to 32")
    words = args.cases or (["quick"] if args.quick else [])
    return select(case_list(samples), words=words, directions=_directions(args))


def _memory_bytes(device: str) -> int:
    import torch

    from longwave.bench.timer import timer_for

    timer_for(device)  # raises where the device is not here
    return int(torch.cuda.get_device_properties(device).total_memory)


def _measure(args: argparse.Namespace) -> tuple[Run, int]:
    from longwave.bench import record, report
    from longwave.bench.contestants import FLOOR, LONGWAVE, RIVAL, contestants
    from longwave.bench.runner import measure
    from longwave.bench.stamp import checkout, make_stamp
    from longwave.bench.timer import timer_for

    cases = _chosen(args)
    seconds = _time_of(args, 0.0 if args.quick else 5.0)
    timer = timer_for(args.device)
    field, absent = contestants(args.backend, args.device)
    shown = record.Run(make_stamp(args.device), absent, [])
    targets = [args.json] if args.json is not None else []
    if args.save:
        folder = (checkout() or Path.cwd()) / "benchmarks" / "results"
        folder.mkdir(parents=True, exist_ok=True)
        targets.append(folder / shown.stamp.file_name)
    for path in targets:
        record.check_writable(path)

    ours, rivals, floors = ([one.name for one in field if one.kind == kind] for kind in (LONGWAVE, RIVAL, FLOOR))
    table = report.Table(ours, rivals, floors, cases)
    print("\n".join([*report.heading(shown), "", table.line(table.header)]), flush=True)
    failed = False
    for case in cases:
        result = measure(case, field, timer, rounds=args.rounds, seconds=seconds, device=args.device)
        shown.results.append(result)
        print("\n".join([table.line(row) for row in table.rows(result)] + report.failures(result)), flush=True)
        failed = failed or any(entry.failure and not entry.refused for entry in result.of_kind(LONGWAVE))
        # After every case, so that an interrupted run keeps what it has.
        for path in targets:
            record.save(shown, path)
    print("\n" + "\n".join(report.LEGEND))
    for path in targets:
        print(f"result: {path}")
    return shown, int(failed)
