"""Kernels compiled ahead of time, without a GPU: what each needs of a multiprocessor, and which instructions it has.

The compiler and its tools come with Triton. Compiled kernels are kept in Triton's own cache.
"""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from longwave.backends.triton.configurations import Configuration, shipped
from longwave.backends.triton.spills import KNOWN
from longwave.errors import ArgumentError, UnsupportedError

# The most shared memory of a program, in bytes. CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
SHARED_BYTES = {"sm_80": 163 * 1024, "sm_86": 99 * 1024, "sm_89": 99 * 1024, "sm_90": 227 * 1024}
# In a signature: the pointer or number is a multiple of 16 (bytes, or the number), as a launch would find.
MULTIPLE = ":16"
# A line of assembly: its address, a predicate, its instruction.
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)")


@dataclass(frozen=True)
class Compiled:
    """One configuration on one architecture: registers of a thread, bytes of its stack, bytes of shared memory of a program,
    how many products of matrices its source has (`dots`), and how many instructions there are: of tensor cores for warps
    (`mma`) and for groups of four (`wgmma`), of local memory."""

    name: str
    architecture: str
    registers: int
    stack_bytes: int
    shared_bytes: int
    dots: int
    mma: int
    wgmma: int
    local_loads: int
    local_stores: int
    instructions: int

    @property
    def known_stack_bytes(self) -> int:
        return KNOWN.get(self.name, {}).get(self.architecture, 0)

    @property
    def complaints(self) -> list[str]:
        """What must not be: spilled registers (but for those known), more shared memory than there is, products that go
        without tensor cores."""
        found = []
        local, known = self.local_loads + self.local_stores, self.known_stack_bytes
        if self.stack_bytes > known or (local and not known):
            found.append(f"spills: {self.stack_bytes} bytes, {self.local_loads} loads, {self.local_stores} stores")
        if self.shared_bytes > SHARED_BYTES[self.architecture]:
            found.append(f"{self.shared_bytes} bytes of shared memory, of {SHARED_BYTES[self.architecture]}")
        if self.dots and not self.mma + self.wgmma:
            found.append("no instruction of tensor cores")
        return found


def compiled(
    architectures: Sequence[str], workers: int = 2, first: int | None = None, only: Sequence[str] = ("",)
) -> Iterator[Compiled]:
    """Every shipped configuration, or the first so many, or those whose names have one of `only` in them, on each architecture,
    in their order.

    Raises ArgumentError for an architecture or a name that is unknown, UnsupportedError where Triton interprets.
    """
    from triton import knobs

    unknown = [name for name in architectures if name not in SHARED_BYTES]
    if unknown:
        raise ArgumentError(f"architecture {unknown[0]!r} is unknown; choose from {', '.join(SHARED_BYTES)}")
    if knobs.runtime.interpret:
        raise UnsupportedError("TRITON_INTERPRET is set, so that kernels are interpreted and cannot be compiled; unset it")
    names = [one.name for one in shipped()[:first]]
    for part in only:
        if not any(part in name for name in names):
            raise ArgumentError(f"no kernel has {part!r} in its name; longwave kernels lists them all, as {names[0]!r}")
    named = [i for i, name in enumerate(names) if any(part in name for part in only)]
    work = [(i, architecture) for i in named for architecture in architectures]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_compile_shipped, work)


def _compile_shipped(which: tuple[int, str]) -> Compiled:
    """By its place: a kernel cannot be sent to another process."""
    return compile_one(shipped()[which[0]], which[1])


def compile_one(configuration: Configuration, architecture: str) -> Compiled:
    """Compile a configuration, or take it from Triton's cache, and take its machine code apart."""
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    c = configuration
    arguments = c.kernel.arg_names
    marked = [i for i, name in enumerate(arguments) if str(c.signature.get(name)).endswith(MULTIPLE)]
    types = {name: c.signature.get(name, "constexpr") for name in arguments}
    kernel = triton.compile(
        ASTSource(
            c.kernel,
            {name: of.removesuffix(MULTIPLE) if isinstance(of, str) else of for name, of in types.items()},
            c.constexprs,
            {(i,): [["tt.divisibility", 16]] for i in marked},
        ),
        target=GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32),
        options={**c.launch._asdict(), **c.options},
    )
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        usage = _output(knobs.nvidia.cuobjdump.path, "-res-usage", binary)
        # nvdisasm warns of binaries older than itself, and takes them apart.
        assembly = _output(knobs.nvidia.nvdisasm.path, "-c", binary)
    registers, stack = (int(re.search(rf"{word}:(\d+)", usage)[1]) for word in ("REG", "STACK"))  # type: ignore[index]
    found = _INSTRUCTION.findall(assembly)
    return Compiled(
        name=c.name,
        architecture=architecture,
        registers=registers,
        stack_bytes=stack,
        shared_bytes=kernel.metadata.shared,
        dots=kernel.asm["ttir"].count("tt.dot "),
        mma=found.count("HMMA"),
        wgmma=found.count("HGMMA"),
        local_loads=found.count("LDL"),
        local_stores=found.count("STL"),
        instructions=len(found),
    )


def _output(tool: str, *arguments: str | Path) -> str:
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout
