"""`longwave eval CHECKPOINT`: the score of a trained model on held-out data, or on DNA of the user's."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "score a trained model on held-out data, or on the records of a FASTA file; tab-separated"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a run, or a weights-*.safetensors file")
    parser.add_argument(
        "--fasta",
        metavar="FILE",
        help="DNA to score, plain or gzip (default: held-out test data; for DNA those of E. coli 536)",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        metavar="BASES",
        help="bases that a window shares with the one before it and does not score again (default: half the context)",
    )
    parser.add_argument("--backend", default="auto", help="backend of the convolutions (default: auto)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--autocast", default="off", metavar="MODE", help="auto, off or bf16 (default: off)")


def run(args: argparse.Namespace) -> int:
    """Write a header, a line for every record and a total to stdout: record, what was asked, score. Returns 0.

    Raises:
        LongwaveError: an option, the checkpoint or the FASTA file cannot be used; no line has been written.
    """
    from longwave.train.optional import need

    need("numpy")
    from longwave.train import evaluate

    for line in evaluate.lines(
        args.checkpoint,
        fasta=args.fasta,
        overlap=args.overlap,
        backend=args.backend,
        device=args.device,
        autocast=args.autocast,
    ):
        print(line, flush=True)
    return 0
