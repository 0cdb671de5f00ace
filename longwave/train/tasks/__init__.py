"""What can be trained: one file each with `HELP`, `add_arguments(parser)` and `run(args) -> int`; found by being
here.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def available() -> dict[str, ModuleType]:
    """Task name -> its module. Modules are light; what they need is imported by `run`."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}
