"""`longwave doctor`: versions, devices, threads and caches, and which backends can run here."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys

from longwave._version import __version__

HELP = "show versions, devices, threads and caches, which backends can run here, and why the others cannot"
OPTIONAL = {
    "numpy": "train, bench",
    "safetensors": "train",
    "matplotlib": "train, bench",
    "tqdm": "train",
    "tomli-w": "train",
    "scipy": "bench",
    "ducc0": "bench",
    "triton": "gpu",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # no options


def run(args: argparse.Namespace) -> int:
    import torch

    from longwave import backends
    from longwave.bench.stamp import cpu_name

    print(f"longwave     {__version__}  ({os.path.dirname(os.path.dirname(os.path.abspath(__file__)))})")
    print(f"python       {platform.python_version()}  ({sys.executable})")
    print(f"system       {platform.platform()}")
    print(f"torch        {torch.__version__}")
    for package, extra in OPTIONAL.items():
        try:
            print(f"{package:12s} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{package:12s} not installed; it comes with 'longwave[{extra.split(', ')[0]}]'")
    print(f"cpu          {cpu_name()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}")
    print(f"threads      {torch.get_num_threads()} (torch.set_num_threads or OMP_NUM_THREADS changes it)")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            print(
                f"cuda:{index}       {properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
                f"sm_{properties.major}{properties.minor}, {properties.multi_processor_count} multiprocessors"
            )
    else:
        print(f"cuda         none ({'this PyTorch was built without it' if torch.version.cuda is None else 'no device found'})")
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        print("interpreter  TRITON_INTERPRET is set: Triton's kernels run in Python, for tests")
    for name, reason in backends.available().items():
        print(f"backend      {name}: {'ready' if reason is None else f'cannot run: {reason}'}{_cache_of(name)}")
    return 0


def _cache_of(name: str) -> str:
    """Where a backend keeps what it compiled, if it compiles."""
    from longwave import backends

    folder = getattr(backends.load(name), "cache_folder", None)
    return "; nothing to compile, no cache" if folder is None else f"; cache in {folder()}"
