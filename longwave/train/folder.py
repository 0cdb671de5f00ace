"""The folder of a run: made once, never written over, taken up again with --resume."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longwave.errors import ArgumentError, DataError
from longwave.train.files import remove_leftovers, write_text
from longwave.train.optional import need

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: there a second process is not kept away
    fcntl = None

CONFIG = "config.toml"


def refuse_unusable(folder: Path) -> None:
    """Refuse a folder for a new run before any work is done; nothing is written.

    Raises:
        ArgumentError: it is a file, has something in it that would be written over, or lies where nothing can be made.
    """
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"--out {folder} is a file; name a folder that does not exist yet")
    if folder.is_dir() and any(folder.iterdir()):
        raise ArgumentError(f"--out {folder} is not empty; add --resume to continue its run, or name another folder")
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ArgumentError(f"--out {folder} cannot be made, for {nearest} is not a folder to write in; name another folder")


def create(folder: Path, config: dict[str, Any]) -> None:
    """Make `folder` with `config.toml` in it.

    Raises:
        ArgumentError: the folder is unusable.
        DataError: it cannot be made.
    """
    refuse_unusable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from error
    write_text(folder / CONFIG, need("tomli_w").dumps(config))


def read_config(folder: Path) -> dict[str, Any]:
    """What `create` wrote.

    Raises:
        DataError: there is no run in `folder`, or its config is damaged.
    """
    path = folder / CONFIG
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"--resume found no run in {folder} (there is no {CONFIG}); leave it out to start one") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); start a new run in another --out") from error
    return config


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """While no other process writes the run in `folder`; temporary files that a killed one left are removed first.

    Raises:
        ArgumentError: another process holds it.
    """
    with (folder / CONFIG).open("rb") as config:
        if fcntl is not None:
            try:
                fcntl.flock(config, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ArgumentError(
                    f"another process is writing the run in {folder}; wait for it or stop it, or name another --out"
                ) from error
        remove_leftovers(folder)
        yield
