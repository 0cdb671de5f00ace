"""Optional packages of the extra `train`, asked for by name when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from longwave.errors import MissingDependencyError

TRAIN_MODULES = ("numpy", "safetensors.torch", "matplotlib.figure", "tqdm", "tomli_w")


def need(module: str) -> ModuleType:
    """Import `module` and return it.

    Raises:
        MissingDependencyError: its package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise MissingDependencyError(
            f"training and checkpoints need the package {package}, which cannot be imported ({error}); "
            "run `pip install 'longwave[train]'`"
        ) from error
