"""Where a number comes from: machine, versions, commit, date and command. It travels with every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from longwave._version import __version__

_PACKAGE = Path(__file__).resolve().parents[1]
_MEASURED_PACKAGES = ("torch", "numpy", "scipy", "ducc0", "numba", "triton")


@dataclass(frozen=True)
class Stamp:
    """Everything a reader needs to judge or repeat a number; JSON types only.

    - `commit`: of the checkout longwave runs from, empty for an installed package (then `versions` says which).
    - `dirty`: whether files of the package differ from that commit. `memory_bytes`: of the machine.
    - `load`: the number of processes that were running already, over the last minute; None where it is not told.
    """

    date_utc: str
    command: str
    commit: str
    dirty: bool
    device: str
    cpu: str
    cores: int
    memory_bytes: int
    system: str
    threads: int
    load: float | None
    versions: dict[str, str]

    @property
    def source(self) -> str:
        """`longwave 0.1.0 at 1a2b3c4d5e (changed)`."""
        at = f" at {self.commit[:10]}" if self.commit else ", no commit"
        return f"longwave {self.versions['longwave']}{at}{' (changed)' * self.dirty}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The stamp as text: machine, software, command."""
        gib = self.memory_bytes / 2**30
        device = "" if self.device == "cpu" else f", on {self.device}"
        load = "" if self.load is None else f"; load {self.load:.1f} before"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items() if name != "longwave")
        return (
            f"{self.cpu}, {self.cores} cores, {gib:.0f} GiB, {self.system}; {self.threads} threads{device}{load}",
            f"{self.source}; {versions}; {self.date_utc}",
            self.command,
        )

    @property
    def busy(self) -> bool:
        """Whether others had half the machine or more: times then measure them too."""
        return self.load is not None and self.load > self.cores / 2

    @property
    def file_name(self) -> str:
        """`<date>-<machine>-<commit>.json`."""
        machine = re.sub(r"[^a-z0-9]+", "-", (self.cpu if self.device == "cpu" else self.device).lower()).strip("-")
        day = re.sub(r"[-:]|\..*", "", self.date_utc.removesuffix("Z")).replace("T", "-")
        return f"{day}-{machine}-{self.cores}-cores-{self.commit[:10] or 'v' + self.versions['longwave']}.json"


def make_stamp(device: str = "cpu", argv: list[str] | None = None) -> Stamp:
    """The stamp of this process, now.

    - `argv`: the arguments after the program's name; those of this process when not given.

    Returns a Stamp.
    """
    commit, dirty = _commit()
    return Stamp(
        date_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=shlex.join(["longwave", *(sys.argv[1:] if argv is None else argv)]),
        commit=commit,
        dirty=dirty,
        device=device if device == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})",
        cpu=cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        threads=torch.get_num_threads(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        versions={"longwave": __version__, "python": platform.python_version()} | _versions(),
    )


def checkout() -> Path | None:
    """The root of the git checkout longwave runs from, or None for an installed package."""
    # A virtual environment inside some checkout is not that checkout: the package's own files must be tracked.
    if _git("ls-files", "--error-unmatch", Path(__file__).name, cwd=Path(__file__).parent) is None:
        return None
    root = _git("rev-parse", "--show-toplevel")
    return Path(root) if root else None


def _commit() -> tuple[str, bool]:
    commit = _git("rev-parse", "--verify", "HEAD") if checkout() else None
    if not commit:
        return "", False
    return commit, bool(_git("status", "--porcelain", "--", str(_PACKAGE)))


def _git(*arguments: str, cwd: Path = _PACKAGE) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, or no commit yet
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    found = {}
    for name in _MEASURED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """What the machine calls its processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux: the platform module knows a coarser name
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not a POSIX system
        return 0
