"""`longwave sparsify CHECKPOINT`: the score of a causal model behind frequency masks, with the leak and without it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it needs the extra [train]
    from longwave.train.sparsify import Row

HELP = "score a trained model with fewer and fewer frequencies of its filters, leaking and with the leak cut off"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a run, or a weights-*.safetensors file")
    add("--keep", default="1,0.5,0.25,0.1", metavar="FRACTIONS", help="fractions of the frequencies kept (1,0.5,0.25,0.1)")
    add("--mask", default="lowpass", help="lowpass, or energy: the strongest frequencies of each layer (lowpass)")
    add("--tune", type=int, default=0, metavar="STEPS", help="also train a copy through the masks, leaking, for so long (0)")
    add("--fasta", metavar="FILE", help="DNA to score (default: held-out test data; for DNA those of E. coli 536)")
    add("--backend", default="auto", help="backend of the convolutions (default: auto)")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--json", action="store_true", help="one JSON object on standard output in the place of the table")
    add("--page", type=Path, metavar="FILE.md", help="write the page docs/frequency_masks.md there too")


def run(args: argparse.Namespace) -> int:
    """Write the table to stdout, row by row. Returns 0.

    Raises:
        LongwaveError: an option, the checkpoint or the FASTA file cannot be used.
    """
    from dataclasses import asdict

    from longwave.train.optional import need

    need("numpy")
    from longwave.bench import leak, record
    from longwave.bench.stamp import make_stamp
    from longwave.train import checkpoint, leak_page, sparsify

    keeps = _fractions(args.keep)
    stamp = make_stamp(args.device if args.device == "cuda" else "cpu")
    if args.page is not None:
        record.check_writable(args.page)
    rows = []
    for row in sparsify.rows(
        args.checkpoint, keeps, kind=args.mask, tune=args.tune, fasta=args.fasta, backend=args.backend, device=args.device
    ):
        rows.append(row)
        if args.json:
            continue
        if len(rows) == 1:  # not before a score is there: what is refused leaves no half of a table
            print(_HEADER)
        print(_line(row), flush=True)
    if args.json:
        print(json.dumps({"stamp": asdict(stamp), "mask": args.mask, "rows": [asdict(row) for row in rows]}))
    if args.page is not None:
        about = checkpoint.describe(checkpoint.find_weights(args.checkpoint))
        leaks = [leak.measure(length, keep) for length in leak_page.LENGTHS for keep in leak_page.KEEPS]
        page = leak_page.as_markdown(stamp, leaks, about, rows, mask=args.mask, tune=args.tune)
        record.write_atomically(args.page, page.encode())
        print(f"written: {args.page}", file=sys.stderr)
    return 0


_HEADER = "        kept  leaking  leak cut off  energy at lags < 0  ms a forward  trained on, leaking  then cut off"


def _line(row: Row) -> str:
    kept, cut, energy = "all, no mask", "", ""
    if row.keep is not None:
        kept, cut, energy = f"{row.keep:g}", f"{row.cut:.4f}", f"{row.negative_energy:.2%}"
    tuned = ["" if bits is None else f"{bits:.4f}" for bits in (row.tuned_leaking, row.tuned_cut)]
    line = f"{kept:>12}  {row.leaking:7.4f}  {cut:>12}  {energy:>18}  {row.forward_ms:12.1f}  {tuned[0]:>19}  {tuned[1]:>12}"
    return line.rstrip()


def _fractions(text: str) -> list[float]:
    from longwave.errors import ArgumentError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentError(
            f"--keep {text!r} is no list of fractions; give numbers with commas between, as 1,0.5,0.25"
        ) from None
