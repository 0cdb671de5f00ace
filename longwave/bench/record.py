"""A benchmark run as a value, and as a stamped JSON file: all raw times, from which every table and picture is made."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from longwave.bench.cases import Case
from longwave.bench.stamp import Stamp
from longwave.errors import ArgumentError, DataError

SCHEMA = "longwave-bench/1"


@dataclass(frozen=True)
class Entry:
    """One contestant at one case.

    - `errors`, `bounds`: relative L2 by result name. `failure`: why there is no time (empty: it passed the gate).
    - `refused`: the backend said that it does not take this case; that is no failure of the gate.
    - `seconds`: per call, one number a round; entry i of every contestant is from the same round.
    - `extra_bytes`: peak memory of one call, results included; None where the machine cannot say.
    """

    name: str
    kind: str
    errors: dict[str, float] = field(default_factory=dict)
    bounds: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    refused: bool = False
    seconds: list[float] = field(default_factory=list)
    extra_bytes: int | None = None


@dataclass(frozen=True)
class CaseResult:
    case: Case
    entries: list[Entry]

    def of_kind(self, kind: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == kind]


@dataclass(frozen=True)
class Run:
    """A stamp, who could not take part and why, and the results so far."""

    stamp: Stamp
    absent: dict[str, str]
    results: list[CaseResult]

    def names(self, kind: str) -> list[str]:
        """The contestants of a kind, in the order they were measured."""
        return list(dict.fromkeys(entry.name for result in self.results for entry in result.of_kind(kind)))


def save(run: Run, path: Path) -> None:
    """Writes a run as JSON, whole or not at all. Raises ArgumentError where the path cannot be written."""
    results = [
        {"case": result.case.as_dict(), "entries": [asdict(entry) for entry in result.entries]} for result in run.results
    ]
    content = {"schema": SCHEMA, "stamp": asdict(run.stamp), "absent": run.absent, "results": results}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def save_rows(schema: str, stamp: Stamp, about: dict[str, Any], rows: Sequence[Any], path: Path) -> None:
    """Writes the rows of a table of its own kind, dataclasses with all raw times, as `save` does."""
    content = {"schema": schema, "stamp": asdict(stamp), **about, "results": [asdict(row) for row in rows]}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def load(path: Path) -> Run:
    """Reads what `save` wrote. Raises DataError for a file that is missing, no JSON, or no result of this version."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name a file that `longwave bench` wrote") from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON; name a file that `longwave bench --json` wrote") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise DataError(f"{path} has the schema {schema!r}, and {SCHEMA!r} is what can be read; measure again")
    try:
        results = [
            CaseResult(Case.from_dict(result["case"]), [Entry(**entry) for entry in result["entries"]])
            for result in content["results"]
        ]
        return Run(Stamp(**content["stamp"]), dict(content["absent"]), results)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is a damaged benchmark result ({error}); measure again") from error


def check_writable(path: Path) -> None:
    """Raises ArgumentError where `path` cannot be written: before minutes of measuring, not after them."""
    if path.is_dir():
        raise ArgumentError(f"{path} is a folder; name a file")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ArgumentError(f"{path} cannot be written ({error.strerror}); name a file in a folder that exists") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all. Raises ArgumentError where the path cannot be written."""
    check_writable(path)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)  # mkstemp lets nobody else read
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
