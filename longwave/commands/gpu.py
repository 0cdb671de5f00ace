"""`longwave gpu`: everything that only a GPU can show, in one go and within a time: tests, measurements, tuning."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import longwave
from longwave.errors import ArgumentError, UnsupportedError

HELP = "on a GPU, within a time: run the tests there, measure against the rivals, tune; keep every log"


class Stage(NamedTuple):
    """A command of this Python, its share of the time beside those of the stages after it, the program it needs, if any, and
    variables of its environment."""

    name: str
    share: float
    arguments: tuple[str, ...]
    needs: str = ""
    environment: tuple[tuple[str, str], ...] = ()


# A worker for every core: what takes time is compiling kernels. Each test is named when it ends.
PYTEST = ("-m", "pytest", "-v", "--tb", "short", "-p", "no:cacheprovider", "-n", "auto", "-m", "not slow", "--device", "cuda")
ONE_THREAD = (("OMP_NUM_THREADS", "1"),)
# What a caching allocator has taken before, a kernel may touch unseen.
SANITIZED = (*ONE_THREAD, ("PYTORCH_NO_CUDA_MEMORY_CACHING", "1"))
LONGWAVE = ("-m", "longwave.cli")
KERNELS = tuple(
    f"tests/backends/triton/test_triton_{part}.py"
    for part in ("values", "fir", "short", "contract", "promises", "range", "offsets")
)
MODELS = "tests/models/test_models_device.py"
ON_A_GPU = "tests/backends/triton/test_triton_gpu.py"
# What would be missed most comes first. {out} is the folder of results.
STAGES = (
    Stage("kernels", 0.25, (*PYTEST, *KERNELS), environment=ONE_THREAD),
    Stage("device", 0.15, (*PYTEST, ON_A_GPU, "-k", "not random and not every_case"), environment=ONE_THREAD),
    Stage("bench-quick", 0.1, (*LONGWAVE, "bench", "--device", "cuda", "--quick", "--json", "{out}/bench-quick.json")),
    Stage("values", 0.15, (*PYTEST, "tests/ops", "tests/nn", MODELS), environment=ONE_THREAD),
    Stage("tune", 0.1, (*LONGWAVE, "tune", "--device", "cuda", "--json", "{out}/tune.json")),
    Stage("sanitizer", 0.1, (*PYTEST, KERNELS[0], "-k", "equal_the_direct_sum"), "compute-sanitizer", environment=SANITIZED),
    Stage("bench", 0.4, (*LONGWAVE, "bench", "--device", "cuda", "--seconds", "0", "--json", "{out}/bench.json")),
    Stage("random", 0.2, (*PYTEST, ON_A_GPU, "-k", "random or every_case"), environment=ONE_THREAD),
)
# How long a stage whose time is up may take to say what it found, before it is killed.
LAST_WORDS = 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(stage.name for stage in STAGES)
    parser.add_argument("--minutes", type=float, default=30.0, help="for everything (30)")
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help=f"some of {names} (all, in this order)")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="the folder of logs and results (runs/gpu)")


def run(args: argparse.Namespace) -> int:
    from longwave.bench.timer import timer_for

    known = [stage.name for stage in STAGES]
    for name in args.only:
        if name not in known:
            raise ArgumentError(f"--only {name} is unknown; choose from {', '.join(known)}")
    if not args.minutes > 0:
        raise ArgumentError(f"--minutes {args.minutes:g} is no time; use more than 0")
    root = Path(longwave.__file__).parents[1]
    if not (root / "tests" / "backends").is_dir():
        raise UnsupportedError("there are no tests beside an installed package; run longwave gpu in a checkout")
    timer_for("cuda")  # raises where there is no GPU
    return run_stages(
        [stage for stage in STAGES if not args.only or stage.name in args.only], 60 * args.minutes, args.out, root
    )


def run_stages(stages: list[Stage], seconds: float, out: Path, root: Path) -> int:
    """One after the other, each with its share of what time is left, and a line about each. Logs, and a summary that is written
    anew after every stage, go to `out`. Returns 0 where all passed or are not installed."""
    from longwave.bench.stamp import make_stamp

    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    end, failed = time.monotonic() + seconds, False
    rows: list[dict[str, object]] = []
    for i, stage in enumerate(stages):
        started = time.monotonic()
        limit = (end - started) * stage.share / sum(later.share for later in stages[i:])
        if stage.needs and shutil.which(stage.needs) is None:
            found = f"{stage.needs} is not installed"
        elif limit < 1:
            found, failed = "no time was left", True
        else:
            found = _run(stage, limit, out, root)
            failed = failed or found != "passed"
        took = time.monotonic() - started
        rows.append({"stage": stage.name, "found": found, "seconds": round(took, 1), "limit_seconds": round(limit, 1)})
        print(f"{stage.name:<14}{found:<44}{took:8.1f} s of {limit:.0f}", flush=True)
        (out / "summary.json").write_text(json.dumps({"stamp": vars(make_stamp()), "stages": rows}, indent=1) + "\n")
    print(f"logs and results: {out}")
    return int(failed)


def _run(stage: Stage, limit: float, out: Path, root: Path) -> str:
    command = [sys.executable, *(part.replace("{out}", str(out)) for part in stage.arguments)]
    if stage.needs:
        command = [stage.needs, "--error-exitcode", "1", *command]
    with (out / f"{stage.name}.log").open("w") as log:
        log.write(f"{' '.join(command)}\n")
        log.flush()
        # A session of its own: what the command starts ends with it.
        process = subprocess.Popen(
            command, cwd=root, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(stage.environment),
        )  # fmt: skip
        try:
            status = process.wait(timeout=max(limit - LAST_WORDS, limit / 2))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # tests that failed are explained at the end
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=min(LAST_WORDS, limit / 2))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return "stopped at its limit"
    return "passed" if status == 0 else f"failed with status {status}"
