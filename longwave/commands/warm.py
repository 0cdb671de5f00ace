"""`longwave warm`: compile what backends compile at their first call, and keep it on disk."""

from __future__ import annotations

import argparse
import time

HELP = "compile the CPU engine now, so that no first call has to wait; `doctor` shows where it is kept"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # no options


def run(args: argparse.Namespace) -> int:
    from longwave import backends

    for name, reason in backends.available().items():
        warm = getattr(backends.load(name), "warm", None)
        if reason is not None:
            print(f"{name}: cannot run: {reason}")
        elif warm is None:
            print(f"{name}: nothing to compile")
        else:
            start = time.perf_counter()
            count = warm()
            print(f"{name}: {count} kernels ready after {time.perf_counter() - start:.1f} s")
    return 0
