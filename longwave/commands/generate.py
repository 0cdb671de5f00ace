"""`longwave generate CHECKPOINT`: DNA or text that a trained model goes on with."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "continue a prompt of DNA or text with a trained model, letter by letter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a run, or a weights-*.safetensors file")
    parser.add_argument("--prompt", metavar="TEXT", help="the letters to continue")
    parser.add_argument("--fasta", metavar="FILE", help="continue the first record of DNA in this file instead, plain or gzip")
    parser.add_argument("--length", type=int, default=100, metavar="N", help="letters to generate (default: 100)")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 takes the likeliest letter (default: 1)")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw among the K likeliest letters (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal text (default: 0)")
    parser.add_argument("--backend", default="auto", help="backend of the streams (default: auto)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")


def run(args: argparse.Namespace) -> int:
    """Write the generated letters to stdout as they come, and a line's end. Returns 0.

    Raises:
        LongwaveError: an option, the checkpoint or the FASTA file cannot be used; nothing has been written.
    """
    from longwave.train.optional import need

    need("numpy")
    from longwave.train import generate

    letters = generate.letters(
        args.checkpoint, prompt=args.prompt, fasta_path=args.fasta, length=args.length, temperature=args.temperature,
        top_k=args.top_k, seed=args.seed, backend=args.backend, device=args.device,
    )  # fmt: skip
    for letter in generate.with_progress(letters, args.length):
        print(letter, end="", flush=True)
    print()
    return 0
