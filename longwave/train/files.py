"""Files that are whole or absent: written beside their place, then moved into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longwave.errors import DataError

_MARK = ".partial-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in `path`'s folder; at the end of the context it is flushed to the disk and takes `path`'s
    place.

    If the context fails, `path` is as it was and the temporary file is gone.

    Raises:
        DataError: the file system refuses.
    """
    temporary = path.with_name(f"{_MARK}{os.getpid()}-{path.name}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)  # the name too, not only the bytes
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; check the folder's rights and free space") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8. Raises DataError where the file system refuses."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_leftovers(folder: Path) -> None:
    """Delete what an interrupted `replacing` of an earlier process may have left in `folder`."""
    for leftover in folder.glob(f"{_MARK}*"):
        leftover.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
