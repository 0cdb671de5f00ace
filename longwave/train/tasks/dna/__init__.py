"""`longwave train dna`: a language model of DNA, judged on held-out bases beside a Markov model.

Here are the options; `job` is the rest, with everything it has to import.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from longwave.errors import ArgumentError

HELP = "train a language model of DNA on E. coli, or on a FASTA file"
CONTEXTS = (1_024, 1_048_576)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options; each defaults to None, so that a resumed run can tell what was asked for."""
    add = parser.add_argument
    add("--preset", help="size of the model (default: tiny); an unknown name lists them all")
    add("--context", type=int, metavar="BASES", help="bases in a window, 1024 to 1048576 (default: the preset's)")
    add("--batch", type=int, metavar="WINDOWS", help="windows in a step")
    add("--steps", type=int, help="updates in all")
    add("--seed", type=int, help="of the initial weights and of the order of windows (default: 0)")
    add("--lr", type=float, metavar="RATE", help="peak learning rate")
    add("--warmup", type=int, metavar="STEPS", help="steps of linear warm-up before the cosine (default: a twentieth)")
    add("--weight-decay", type=float, metavar="RATE", help="of matrices outside filters (default: 0.1)")
    add("--clip", type=float, metavar="NORM", help="largest norm of the gradient (default: 1)")
    add(
        "--fasta",
        metavar="FILE",
        help="train on this file, plain or gzip, its records kept apart (default: E. coli 536, in the package)",
    )
    add("--backend", help="backend of the convolutions (default: auto)")
    add("--device", help="auto, cpu or cuda (default: auto)")
    add("--autocast", metavar="MODE", help="auto, off or bf16 (default: auto, which is bf16 where the hardware has it)")
    add("--activation-checkpointing", metavar="MODE", help="auto, on or off (default: auto, which is by size)")
    add("--eval-every", type=int, metavar="STEPS", help="steps between validations (default: a tenth of all)")
    add("--eval-bases", type=int, metavar="BASES", help="most bases of a validation (default: 65536 or two contexts)")
    add("--checkpoint-every", type=int, metavar="STEPS", help="steps between checkpoints (default: a fifth of all)")
    add("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/dna-PRESET-CONTEXT)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out to the same numbers")


def run(args: argparse.Namespace) -> int:
    """Train; returns 0, or 130 when the run was interrupted and saved.

    Raises:
        LongwaveError: an option or the data cannot be used; nothing has been written.
    """
    if args.context is not None and not CONTEXTS[0] <= args.context <= CONTEXTS[1]:
        raise ArgumentError(f"--context must be from {CONTEXTS[0]:,} to {CONTEXTS[1]:,} bases, but {args.context:,} was given")
    from longwave.train.tasks.dna import job

    return job.run(args)
