"""What `longwave train` asks of the C library."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from longwave.train.heap import keep_freed_memory
keep_freed_memory({"kept": 1_024, "given back": 2**20}[sys.argv[1]])
def step():
    for _ in range(5):
        torch.zeros(2**24)  # 64 MB
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="glibc's malloc"
)
def test_memory_that_is_kept_is_touched_once() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "given back")
    }
    assert faults["kept"] < 100 < 10_000 < faults["given back"]
