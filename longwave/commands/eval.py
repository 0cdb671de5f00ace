"""`longwave eval CHECKPOINT`: what sequences cost under a trained model, in bits per base."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "score DNA with a trained model: bits per base of every record, tab-separated"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a run, or a weights-*.safetensors file")
    parser.add_argument(
        "--fasta",
        metavar="FILE",
        help="sequences to score, plain or gzip (default: the held-out test bases of E. coli 536)",
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
    """Write a header, a line for every record and a total to stdout: record, known bases, bits per base. Returns 0.

    Raises:
        LongwaveError: an option, the checkpoint or the FASTA file cannot be used; no line has been written.
    """
    from longwave.train.optional import need

    need("numpy")
    from longwave.train import evaluate

    for line in evaluate.lines(
        args.checkpoint,
        fasta_path=args.fasta,
        overlap=args.overlap,
        backend=args.backend,
        device=args.device,
        autocast=args.autocast,
    ):
        print(line, flush=True)
    return 0
