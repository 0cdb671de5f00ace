"""`longwave info CHECKPOINT`: what a checkpoint is."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "describe a trained model: sizes, training, scores, files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a run, or a weights-*.safetensors file")


def run(args: argparse.Namespace) -> int:
    """Write the description to stdout; returns 0.

    Raises:
        LongwaveError: the checkpoint cannot be used.
    """
    from longwave.train import describe

    print("\n".join(describe.lines(args.checkpoint)))
    return 0
