"""`longwave kernels`: the GPU kernels, compiled here without a GPU, and what each of them needs."""

from __future__ import annotations

import argparse
import importlib.util
import json
from dataclasses import asdict

HELP = "compile every GPU kernel without a GPU, and show its registers, memory and tensor-core instructions"
COLUMNS = "registers  stack B  shared B    mma  wgmma  local ld/st  instructions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--arch",
        nargs="+",
        default=["sm_80", "sm_89", "sm_90"],
        metavar="SM",
        help="architectures: sm_80 (A100), sm_86, sm_89 (RTX 4090), sm_90 (H100, H200); the default is 80, 89 and 90",
    )
    parser.add_argument("--first", type=int, metavar="N", help="the first N kernels only (all)")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        metavar="TEXT",
        help="kernels with one of these in their names, as 'both planes' (all)",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that compile (2)")
    parser.add_argument("--json", action="store_true", help="print JSON: one object a kernel and architecture")


def run(args: argparse.Namespace) -> int:
    from longwave.errors import ArgumentError, UnsupportedError

    if importlib.util.find_spec("triton") is None:
        raise UnsupportedError("kernels need Triton, which is not installed; pip install 'longwave[gpu]'")
    for name in ("first", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ArgumentError(f"--{name} {value} is too few; use 1 or more")
    from longwave.backends.triton import ahead
    from longwave.bench.stamp import make_stamp

    rows, complaints = [], []
    for found in ahead.compiled(args.arch, args.workers, args.first, args.only):
        rows.append(asdict(found))
        complaints += [f"{found.name} on {found.architecture}: {one}" for one in found.complaints]
        if not args.json:
            if len(rows) == 1:
                print(f"{'kernel':<44} {'':<6}  {COLUMNS}")
            local = f"{found.local_loads}/{found.local_stores}"
            print(
                f"{found.name:<44} {found.architecture:<6}  {found.registers:>9}  {found.stack_bytes:>7}  "
                f"{found.shared_bytes:>8}  {found.mma:>5}  {found.wgmma:>5}  {local:>11}  {found.instructions:>12}",
                flush=True,
            )
    if args.json:
        print(json.dumps({"stamp": asdict(make_stamp()), "kernels": rows, "complaints": complaints}, indent=1))
    elif complaints:
        print("\n" + "\n".join(complaints))
    return int(bool(complaints))
