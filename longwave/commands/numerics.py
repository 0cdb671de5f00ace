"""`longwave numerics`: the error tables of docs/numerics.md."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "measure the error of every result by dtype, length and kind of input, and write it as Markdown"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write it there (standard output)")
    parser.add_argument("--max-length", type=int, metavar="N", help="leave out lengths above N samples (4,194,304)")
    parser.add_argument("--backend", nargs="+", default=[], metavar="NAME", help="backends of longwave (all that can run)")


def run(args: argparse.Namespace) -> int:
    import sys

    from longwave.bench import numerics, numerics_report, record
    from longwave.bench.stamp import make_stamp
    from longwave.errors import ArgumentError

    max_length = numerics.LENGTHS[-1] if args.max_length is None else args.max_length
    if max_length < numerics.LENGTHS[0]:
        raise ArgumentError(
            f"--max-length {max_length} leaves nothing to measure; the shortest length is {numerics.LENGTHS[0]}: allow that"
        )
    if args.out is not None:
        record.check_writable(args.out)
    stamp = make_stamp()
    rows = numerics.rows(args.backend, max_length=max_length, progress=lambda line: print(line, file=sys.stderr))
    page = numerics_report.as_markdown(stamp, rows, numerics.mutant_rows())
    if args.out is None:
        print(page, end="")
    else:
        record.write_atomically(args.out, page.encode())
        print(f"written: {args.out}")
    # torch.fft is measured, not promised: only longwave's own misses fail the command.
    broken = [row for row in rows if row.side.startswith("longwave:") and max(row.worst or 0, row.worst_point or 0) > 1]
    return int(bool(broken))
