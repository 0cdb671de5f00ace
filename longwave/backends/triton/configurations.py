"""The kernels as they are launched: a plain table of what is compiled ahead of time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Configuration:
    """What `triton.compile(ASTSource(kernel, signature, constexprs), options=…)` takes to compile a kernel ahead of time."""

    name: str
    kernel: Any
    signature: dict[str, Any]
    constexprs: dict[Any, Any]
    num_warps: int
    num_stages: int
    options: dict[str, Any] = field(default_factory=lambda: {"enable_fp_fusion": True})


def shipped() -> list[Configuration]:
    """Every configuration; those that the ordinary tests compile come first."""
    from longwave.backends.triton import fir_configurations

    return fir_configurations.shipped()
