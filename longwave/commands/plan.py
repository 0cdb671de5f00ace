"""`longwave plan`: what `long_conv` would do with tensors of these shapes, and why; or what a training step would hold."""

from __future__ import annotations

import argparse

from longwave.checks import LAYOUTS
from longwave.errors import ArgumentError
from longwave.lowering import MODES, PRECISIONS

HELP = "explain what long_conv would do (backend, algorithm, memory, predicted time), or a training step of a preset"
# Options that a training step has no use for, and those that a convolution has none for.
OF_CONVOLUTIONS = (
    "channels", "taps", "filters", "per_sample", "reverse_taps", "history", "keep", "documents", "mode", "layout", "dtype",
    "precision", "skip", "pregate", "postgate", "device", "backend", "method",
)  # fmt: skip
OF_STEPS = ("dp", "fsdp", "activation_checkpointing")
DTYPES = ("float64", "float32", "bfloat16", "float16", "complex64", "complex128")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", "-B", type=int, default=1, help="samples in the batch (default 1)")
    parser.add_argument("--channels", "-H", type=int, default=768, help="channels (default 768)")
    parser.add_argument("--length", "-L", type=int, default=4096, help="samples in a row (default 4096)")
    parser.add_argument("--taps", "-K", type=int, help="taps of the filter (default: the length)")
    parser.add_argument("--filters", type=int, help="rows of the filter, dividing the channels (default: the channels)")
    parser.add_argument("--per-sample", action="store_true", help="one filter for each sample of the batch")
    parser.add_argument("--reverse-taps", type=int, default=0, help="taps of k_rev (default: none)")
    parser.add_argument("--history", type=int, default=0, help="samples before the input (default: none)")
    parser.add_argument("--keep", type=float, metavar="FRACTION", help="with a low-pass frequency mask that keeps so much")
    parser.add_argument("--documents", help="boundaries of packed documents, as 0,100,250,4096")
    parser.add_argument("--mode", default="causal", help=f"one of {', '.join(MODES)}")
    parser.add_argument("--layout", default="BHL", help=f"one of {', '.join(LAYOUTS)}")
    parser.add_argument("--dtype", default="float32", help=f"one of {', '.join(DTYPES)}")
    parser.add_argument("--precision", help=f"one of {', '.join(str(p) for p in PRECISIONS)}")
    parser.add_argument("--skip", action="store_true", help="with D")
    parser.add_argument("--pregate", action="store_true")
    parser.add_argument("--postgate", action="store_true")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, h200, h100, a100 or 4090; none need be present")
    parser.add_argument("--backend", default="auto", help="auto, or a backend by name")
    parser.add_argument("--ranks", type=int, default=1, help="split the length over so many processes (default 1)")
    parser.add_argument("--interconnect", type=float, default=50.0, metavar="GB/S", help="that reach a rank (default 50)")
    parser.add_argument("--preset", help="plan a training step of this Hyena preset instead: --batch sequences of --length")
    parser.add_argument("--dp", type=int, default=1, metavar="RANKS", help="of --ranks and --preset: copies of the model")
    parser.add_argument("--fsdp", type=int, default=1, metavar="RANKS", help="of --ranks and --preset: shards of the model")
    parser.add_argument(
        "--activation-checkpointing",
        action="store_true",
        help="with --preset: blocks are computed twice; large steps do by themselves",
    )
    parser.add_argument("--method", default="auto", help="of --ranks: auto, all_to_all or halo")
    parser.set_defaults(usual={name: parser.get_default(name) for name in (*OF_CONVOLUTIONS, *OF_STEPS)})


def run(args: argparse.Namespace) -> int:
    import torch

    import longwave

    idle = OF_STEPS if args.preset is None else OF_CONVOLUTIONS
    if given := [f"--{name.replace('_', '-')}" for name in idle if getattr(args, name) != args.usual[name]]:
        planned, advice = (
            ("a convolution", "add --preset") if args.preset is None else ("a training step", "leave --preset out")
        )
        raise ArgumentError(f"{' '.join(given)} was given, and {planned} is planned without it; leave it out, or {advice}")
    if args.preset is not None:
        return _step(args)
    if args.dtype not in DTYPES:
        raise ArgumentError(f"--dtype {args.dtype} is unknown; choose one of {', '.join(DTYPES)}")
    taps = args.length if args.taps is None else args.taps
    rows = args.channels if args.filters is None else args.filters
    middle = (args.channels, args.length) if args.layout == "BHL" else (args.length, args.channels)
    options = {
        "dtype": getattr(torch, args.dtype),
        "mode": args.mode,
        "k_rev_shape": (rows, args.reverse_taps) if args.reverse_taps else None,
        "D": args.skip,
        "pregate": args.pregate,
        "postgate": args.postgate,
        "history": args.history,
        "frequency_mask": None if args.keep is None else longwave.FrequencyMask.lowpass(args.keep, leaks_future=True),
        "cu_seqlens": None if args.documents is None else _boundaries(args.documents),
        "layout": args.layout,
        "precision": args.precision,
        "device": args.device,
        "backend": args.backend,
    }
    u_shape = (args.batch, *middle)
    k_shape = (args.batch, args.channels, taps) if args.per_sample else (rows, taps)
    if args.ranks == 1:
        print(longwave.plan(u_shape, k_shape, **options))
    else:
        from longwave import distributed

        among = {"ranks": args.ranks, "interconnect_gb_s": args.interconnect, "method": args.method}
        print(distributed.plan(u_shape, k_shape, **among, **options))
    return 0


def _step(args: argparse.Namespace) -> int:
    """What --dp and --fsdp leave of the ranks share sequences, as they share the length of a convolution."""
    from longwave.models import find_preset
    from longwave.train import step_plan
    from longwave.train.options import choose_checkpointing
    from longwave.train.world import Sizes

    cp = args.ranks // max(args.dp * args.fsdp, 1)
    if min(args.ranks, args.dp, args.fsdp) < 1 or args.dp * args.fsdp * cp != args.ranks:
        raise ArgumentError(
            f"--dp {args.dp} x --fsdp {args.fsdp} does not divide --ranks {args.ranks}; give sizes whose product does"
        )
    config = find_preset(args.preset)[1]
    mode = "on" if args.activation_checkpointing else "auto"
    checkpointing = choose_checkpointing(mode, args.batch * args.length // args.ranks, config.d_model, config.layers)
    print(
        step_plan.plan(
            args.preset, args.length, args.batch, Sizes(args.dp, args.fsdp, cp), checkpointing=checkpointing,
            interconnect_gb_s=args.interconnect,
        )
    )  # fmt: skip
    return 0


def _boundaries(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentError(
            f"--documents {text!r} is no list of boundaries; give whole numbers with commas between, as 0,100,250,4096"
        ) from None
