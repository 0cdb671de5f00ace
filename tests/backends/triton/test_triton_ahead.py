"""The kernels as they are shipped, compiled for GPUs that are not here."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import triton

from longwave.backends.triton.configurations import shipped
from longwave.backends.triton.spills import KNOWN, TRITON

ARCHITECTURES = ("sm_80", "sm_89", "sm_90")
ORDINARY = 16  # configurations that are compiled in every run of the tests


def _kernels(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: this one interprets."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "error", "-m", "longwave.cli", "kernels", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=kept | environment, check=False)


@pytest.mark.skipif(triton.__version__ != TRITON, reason=f"what spills is known of the compiler of Triton {TRITON}")
@pytest.mark.parametrize("first", [ORDINARY, pytest.param(None, marks=pytest.mark.slow)])
def test_no_kernel_spills_more_than_is_known_or_needs_more_than_there_is(first: int | None) -> None:
    done = _kernels("--json", "--arch", *ARCHITECTURES, *(["--first", str(first)] if first else []))
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert found["complaints"] == []
    kernels = found["kernels"]
    assert {kernel["architecture"] for kernel in kernels} == set(ARCHITECTURES)
    assert len(kernels) == len({(kernel["name"], kernel["architecture"]) for kernel in kernels})
    # What is known to spill does so: a kernel that was mended leaves the table.
    spill = {(kernel["name"], kernel["architecture"]) for kernel in kernels if kernel["local_loads"] + kernel["local_stores"]}
    names = {kernel["name"] for kernel in kernels}
    assert spill == {(name, part) for name, parts in KNOWN.items() if name in names for part in parts}
    for kernel in kernels:  # the tools were understood
        assert 16 <= kernel["registers"] <= 255
        assert kernel["instructions"] > 50


def test_tables_are_kept_of_every_kernel_that_ships() -> None:
    kept: dict[tuple[str, str], int] = {}
    for file in sorted((Path(__file__).parents[3] / "benchmarks" / "results").glob("*-kernels-*.json")):
        kernels = json.loads(file.read_text())["kernels"]
        kept |= {(kernel["name"], kernel["architecture"]): kernel["stack_bytes"] for kernel in kernels}
    names = {configuration.name for configuration in shipped()}
    assert kept.keys() == {(name, part) for name in names for part in ARCHITECTURES}
    assert {(name, part): held for (name, part), held in kept.items() if held} == {
        (name, part): held for name, parts in KNOWN.items() for part, held in parts.items()
    }


def test_a_kernel_that_must_not_be_is_complained_of() -> None:
    from longwave.backends.triton.ahead import Compiled

    good = Compiled("k", "sm_89", 255, 0, 99 * 1024, dots=1, mma=1, wgmma=0, local_loads=0, local_stores=0, instructions=100)
    assert good.complaints == []
    for wrong, word in (
        ({"stack_bytes": 8}, "spills: 8 bytes"),
        ({"local_loads": 1}, "1 loads"),
        ({"shared_bytes": 99 * 1024 + 1}, "shared memory"),
        ({"mma": 0}, "no instruction of tensor cores"),
    ):
        (complaint,) = dataclasses.replace(good, **wrong).complaints
        assert word in complaint
    name = next(iter(KNOWN))
    part, known = next(iter(KNOWN[name].items()))
    spilling = dataclasses.replace(good, name=name, architecture=part, stack_bytes=known, local_loads=9)
    assert spilling.complaints == []
    assert dataclasses.replace(spilling, stack_bytes=known + 1).complaints
    assert dataclasses.replace(good, architecture="sm_90", shared_bytes=227 * 1024).complaints == []


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--arch", "sm_75"], {}, "architecture 'sm_75' is unknown; choose from sm_80, sm_86, sm_89, sm_90"),
        (
            ["--only", "split", "no such"],
            {},
            "no kernel has 'no such' in its name; longwave kernels lists them all",
        ),
        (["--first", "0"], {}, "--first 0 is too few; use 1 or more"),
        ([], {"TRITON_INTERPRET": "1"}, "TRITON_INTERPRET is set"),
    ],
)
def test_what_cannot_be_compiled_is_refused(arguments: list[str], environment: dict[str, str], sentence: str) -> None:
    done = _kernels(*arguments, **environment)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
