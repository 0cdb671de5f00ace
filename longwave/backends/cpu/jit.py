"""Compiling the engine, once a machine: Numba with a disk cache that cannot go stale.

Numba's own cache looks at the file of the function it loads, and not at the files of the functions called there: an edited
callee leaves the caller returning old numbers. Here the folder's name holds a hash of every file of the engine, of the
versions of Numba and llvmlite and of the CPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import platform
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding
from numba import njit, types
from numba.core import caching

# No fast-math: it makes NaN undefined. Integer division may assume that nobody divides by zero.
SETTINGS: Any = numba.config  # its attributes are made from environment variables
OPTIONS: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}


def tag(folder: Path = Path(__file__).parent) -> str:
    """What the compiled code depends on, as a short hash: the engine's files, the compiler, the CPU."""
    digest = hashlib.sha256()
    cpu = (
        SETTINGS.CPU_NAME or binding.get_host_cpu_name(),
        SETTINGS.CPU_FEATURES or binding.get_host_cpu_features().flatten(),
    )
    for part in (numba.__version__, llvmlite.__version__, platform.python_version(), *cpu):
        digest.update(part.encode() + b"\0")
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Where the compiled engine is kept: below NUMBA_CACHE_DIR, or XDG_CACHE_HOME, or ~/.cache."""
    above = SETTINGS.CACHE_DIR or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(above) / "longwave" / f"cpu-{tag()}"


class _Locator(caching._CacheLocator):
    """Tells Numba to keep a function in `cache_folder`, whatever the age of its file: the folder's name vouches for it."""

    def __init__(self, py_func: Callable[..., Any]) -> None:
        self._line = py_func.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return cache_folder().name

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator | None:
        locator = cls(py_func)
        try:
            locator.ensure_cache_path()
        except OSError:  # nowhere to write: the engine is compiled anew in every process
            return None
        return locator


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes: list[Any] = [_Locator]  # noqa: RUF012  (Numba's own attribute)


class _Cache(caching.FunctionCache):
    _impl_class = _Implementation


def part(function: Callable[..., Any]) -> Any:
    """A function that kernels call, compiled once for all values: Numba would compile it again for every constant argument."""
    compiled: Any = njit(**OPTIONS)(function)
    by_type = compiled.get_call_template
    compiled.get_call_template = lambda args, kws: by_type(tuple(map(types.unliteral, args)), kws)
    return compiled


_kernels: list[Any] = []


def kernel(function: Callable[..., Any]) -> Any:
    """A function that Python calls: compiled for the types of its first call, or loaded from the cache."""
    compiled: Any = njit(**OPTIONS)(function)
    _kernels.append(compiled)
    with contextlib.suppress(RuntimeError):  # no place to write (see _Locator)
        compiled._cache = _Cache(function)
    return compiled


def pointer(compiled: Any, *like: Any) -> int:
    """The address of a kernel as a C function of its integers, and of `like` if it takes one: a number of that type."""
    key = tuple(type(x) for x in like)
    found = compiled.__dict__.setdefault("pointers", {})
    if key not in found:
        count = len(inspect.signature(compiled.py_func).parameters) - len(like)
        compiled.compile((types.int64,) * count + tuple(numba.typeof(x) for x in like))
        result = compiled.overloads[(types.int64,) * count + tuple(numba.typeof(x) for x in like)]
        found[key] = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)
    return int(found[key])


def warm() -> int:
    """Compile (or load) every kernel that was defined so far, for both arithmetic types; their number."""
    count = 0
    for compiled in _kernels:
        takes_like = "like" in inspect.signature(compiled.py_func).parameters
        for like in ((np.float32(1),), (np.float64(1),)) if takes_like else ((),):
            pointer(compiled, *like)
            count += 1
    return count
