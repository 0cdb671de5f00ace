"""The table of launches: every launch reads it, each of its rows says where it is from, and what is no table is passed over."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from terminal import typed

from longwave.backends.triton import configurations, launch_table
from longwave.backends.triton.launch_table import COMPILED, PACKAGED, Key, Launch, Row

F16, F32 = torch.float16, torch.float32
ROW = Row(Key.of("convolve", F16, "32·32"), Launch(2, 3), "NVIDIA H200", "2026-11-22", "longwave tune --device cuda")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _forget()
    yield tmp_path
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    for cached in (launch_table._own, launch_table._packaged, launch_table._table):
        cached.cache_clear()


def test_every_launch_of_the_engine_reads_the_table() -> None:
    """No number of warps or stages stands in code, and no kernel is launched but by `launch_table.start`."""
    wrong = []
    for path in sorted(PACKAGED.parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            named = isinstance(node, ast.keyword) and node.arg in Launch._fields
            made = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Launch") and path.stem != "launch_table"
            key = isinstance(node, ast.Dict) and any(
                isinstance(k, ast.Constant) and k.value in Launch._fields for k in node.keys
            )
            started = isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript) and path.stem != "launch_table"
            if named or made or key or (started and isinstance(node.func.value, ast.Attribute)):
                wrong.append(f"{path.name}:{node.lineno} {ast.unparse(node)[:60]}")
    assert not wrong, "\n".join(wrong)


def test_every_row_says_where_it_is_from_and_every_kernel_has_one() -> None:
    rows = launch_table.read(PACKAGED)
    assert len({(row.key, row.device) for row in rows}) == len(rows)
    for row in rows:
        assert row.device
        assert row.date.count("-") == 2
        assert row.command.startswith("longwave ")
        assert (row.device == COMPILED) == (row.command == "longwave kernels --json")
    for one in configurations.shipped():
        assert one.launch in {row.launch for row in rows}
    # A row as general as can be, of each kernel and dtype that has nearer ones.
    general = {(row.key.kernel, row.key.operand) for row in rows if row.key == Key(row.key.kernel, row.key.operand)}
    assert {(row.key.kernel, row.key.operand) for row in rows} == general


def test_the_nearest_row_holds() -> None:
    assert launch_table.launch(Key.of("convolve", F16, "16·32")) == Launch(4)
    assert launch_table.launch(Key.of("convolve", F16, "16·16·16")) == Launch(8)
    assert launch_table.launch(Key.of("convolve", F16, "32·16", 2)) != launch_table.launch(Key.of("convolve", F16, "32·16"))
    with pytest.raises(KeyError):
        launch_table.launch(Key("no_such_kernel"))


def test_a_machines_own_rows_hold_on_its_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_table, "name_of", lambda device: "" if device is None else device.type)
    of_cuda, of_meta = ROW._replace(device="cuda"), ROW._replace(device="meta", launch=Launch(16))
    launch_table.keep([of_cuda, of_meta])
    assert [launch_table.launch(ROW.key, torch.device(name)) for name in ("cuda", "meta")] == [Launch(2, 3), Launch(16)]
    assert launch_table.launch(ROW.key, torch.device("cpu")) == launch_table.launch(ROW.key) == Launch(4)
    launch_table.keep([of_cuda._replace(launch=Launch(8))])
    assert launch_table.launch(ROW.key, torch.device("cuda")) == Launch(8)
    assert launch_table.launch(ROW.key, torch.device("meta")) == Launch(16)


def test_the_package_takes_rows_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What this machine has, or a file that `--json` wrote; its own compiled rows stay."""
    packaged = tmp_path / "package.json"
    launch_table.save(launch_table.read(PACKAGED), packaged)
    before = len(launch_table.read(packaged))
    monkeypatch.setattr(launch_table, "PACKAGED", packaged)
    launch_table.keep([ROW])
    assert typed(capsys, "tune", "--device", "cuda", "--adopt")[0] == 0
    assert len(launch_table.read(packaged)) == before + 1
    written = tmp_path / "tune.json"
    written.write_text(json.dumps({"stamp": {}, "measured": [], "launches": [ROW._replace(device="Another").data]}))
    assert typed(capsys, "tune", "--device", "cuda", "--adopt", str(written))[0] == 0
    assert len(launch_table.read(packaged)) == before + 2
    assert typed(capsys, "tune", "--device", "cuda", "--reset")[0] == 0
    assert launch_table.rows_of("NVIDIA H200")[ROW.key] == ROW
    assert launch_table.rows_of("")[ROW.key].device == COMPILED
    status, out, _ = typed(capsys, "tune", "--device", "cuda", "--show")
    assert status == 0
    assert "convolve 32·32 float16" in out
    assert "longwave kernels --json" in out


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "its table is empty"),
        ([ROW, ROW._replace(device="")], "no GPU has timed its 'convolve 32·32 float16'"),
        ([ROW._replace(device=COMPILED)], "no GPU has timed its 'convolve 32·32 float16'"),
        ([ROW, ROW._replace(key=Key.of("attention", F16))], "its 'attention float16' is no kernel of this package"),
    ],
)
def test_the_package_takes_no_rows_that_are_not_of_its_kernels_on_a_gpu(
    rows: list[Row], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, before = tmp_path / "tune.json", PACKAGED.read_bytes()
    written.write_text(json.dumps({"launches": [row.data for row in rows]}))
    status, _, err = typed(capsys, "tune", "--device", "cuda", "--adopt", str(written))
    assert status == 2
    assert f"{written} has no rows of launches ({reason})" in err
    assert PACKAGED.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.pop("date"),
        lambda row: row.update(more=1),
        lambda row: row.update(num_warps="4"),
        lambda row: row.update(num_warps=3),
        lambda row: row.update(num_stages=0),
        lambda row: row.update(planes=True),
        lambda row: row.update(gated=0),
        lambda row: row.update(device=None),
    ],
)
def test_what_is_not_a_table_is_passed_over(
    change: Callable[[dict[str, Any]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    """As that of the CPU engine is."""
    data = ROW.data
    change(data)
    launch_table.file().parent.mkdir(parents=True)
    for text in (json.dumps({"launches": [ROW.data, data]}), "{", "[]", "{}"):
        launch_table.file().write_text(text)
        _forget()
        assert launch_table.rows_of(ROW.device) == launch_table.rows_of("")
        assert "is no table, and is passed over" in launch_table.show("cuda")
        status, _, err = typed(capsys, "tune", "--device", "cuda", "--adopt")
        assert status == 2
        assert "has no rows of launches" in err


def test_the_table_is_read_once_and_no_device_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch asks a GPU for its name alone, once: no driver waits for that, and a graph can be captured."""
    asked: list[str] = []
    read = launch_table.read
    monkeypatch.setattr(launch_table, "read", lambda path: asked.append(path.name) or read(path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: asked.append(str(device)) or "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("it waits"))
    launch_table.name_of.cache_clear()
    for _ in range(3):
        launch_table.launch(ROW.key, torch.device("cuda:0"))
    launch_table.name_of.cache_clear()
    assert sorted(asked) == ["cuda:0", "launches.json", "launches.json"]


def test_a_launch_that_needs_too_much_is_passed_over() -> None:
    from triton.runtime.errors import OutOfResources

    done: list[Launch] = []

    def started(way: Launch) -> None:
        if way.num_stages > 1:
            raise OutOfResources(2**20, 2**16, "shared memory")
        done.append(way)

    assert launch_table.able(started, Launch(4, 2)) is None
    again = launch_table.able(started, Launch(4))
    assert again is not None
    again()
    assert done == [Launch(4)] * 2
