"""`longwave bench` and `longwave numerics` as a user meets them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from terminal import typed

from longwave.bench import record, report, runner
from longwave.bench.cases import BACKWARD, FORWARD, Case
from longwave.bench.plot import write_plot
from longwave.bench.stamp import Stamp, make_stamp
from longwave.errors import ArgumentError, DataError

STAMP = Stamp(
    date_utc="2026-01-02T03:04:05Z",
    command="longwave bench",
    commit="0123456789abcdef",
    dirty=True,
    device="cpu",
    cpu="A CPU @ 3 GHz",
    cores=2,
    memory_bytes=8 * 2**30,
    system="Linux 6 x86_64",
    threads=2,
    load=1.5,
    versions={"longwave": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
)


def _made_up() -> record.Run:
    """Times worked by hand: longwave 2 ms, the faster rival 8 ms, a copy 1 ms."""
    results = []
    for direction in (FORWARD, BACKWARD):
        for L in (1_024, 4_096):
            case = Case(B=4, H=2**20 // (4 * L), L=L, K=L, direction=direction, tags=("lengths",))
            error = {"errors": {"y": 2e-7}, "bounds": {"y": 1e-6}}
            entries = [
                record.Entry("longwave:plain", "longwave", **error, seconds=[2e-3] * 5, extra_bytes=3 * 2**20),
                record.Entry("torch.fft", "rival", **error, seconds=[10e-3] * 5, extra_bytes=9 * 2**20),
                record.Entry("scipy.fft", "rival", **error, seconds=[7e-3, 8e-3, 8e-3, 8e-3, 9e-3], extra_bytes=None),
                record.Entry("bad", "rival", failure="y is off by 1.0e+00, above 1.0e-06"),
                record.Entry("copy", "floor", seconds=[1e-3] * 5),
            ]
            results.append(record.CaseResult(case, entries))
    return record.Run(STAMP, {"ducc0": "not installed"}, results)


def _forbid_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*args: object, **options: object) -> None:
        raise RuntimeError("something was measured")

    monkeypatch.setattr(runner, "measure", measure)


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    run = _made_up()
    record.save(run, path)
    assert record.load(path) == run
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    content = json.loads(path.read_text())
    assert content["schema"] == record.SCHEMA
    assert content["stamp"]["commit"] == STAMP.commit
    assert content["results"][0]["entries"][2]["seconds"] == [7e-3, 8e-3, 8e-3, 8e-3, 9e-3]


def test_the_table_says_what_was_measured() -> None:
    run = _made_up()
    table = report.Table.of(run)
    row = dict(zip(table.header, table.rows(run.results[0])[0], strict=True))
    assert row == {
        "case": "causal-L1024-B4-H256-float32-forward",
        "backend": "plain",
        "ms": "2.00",
        "±": "0.0000",
        "torch.fft ms": "10.0",
        "scipy.fft ms": "8.00",
        "bad ms": "FAILED",
        "copy ms": "1.00",
        "× rival": "4.00",
        "copies": "2.00",
        "GB/s": "4.72",  # 2^20 samples read and written, 2^18 taps read, 4 bytes each, in 2 ms
        "MiB": "3.0",
        "rival MiB": "n/a",
        "error": "2.0e-07",
    }
    text = report.as_text(run)
    assert "bad FAILED: y is off by 1.0e+00" in text
    assert "longwave 0.1.0 at 0123456789 (changed)" in text
    assert "ducc0: not installed" in text
    assert "the machine was busy (load 1.5 on 2 cores)" in text
    quiet = report.as_text(replace(run, stamp=replace(STAMP, load=0.4)))
    assert "load 0.4 before" in quiet
    assert "busy" not in quiet
    widths = {len(line) for line in text.splitlines() if line.startswith(("case", "causal"))}
    assert len(widths) == 1  # aligned
    markdown = [line for line in report.as_markdown(run).splitlines() if line.startswith("|")]
    assert len(markdown) == 2 + 4
    assert len({line.count("|") for line in markdown}) == 1


def test_a_real_run_is_gated_stamped_saved_and_rendered_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, picture = tmp_path / "r.json", tmp_path / "p.png"
    options = ["--samples", "10", "--cases", "L512-", "L1000-", "--backend", "plain", "--seconds", "0"]
    status, out, err = typed(capsys, "bench", *options, "--json", str(result), "--plot", str(picture))
    assert (status, err) == (0, "")
    assert "causal-L1000-B1-H1-float32-forward+backward" in out
    assert "FAILED:" not in out
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    run = record.load(result)
    assert run.names("rival") == ["torch.fft", "scipy.fft", "ducc0"]
    for measured in run.results:
        for entry in measured.entries:
            assert len(entry.seconds) == 5, entry.name
            assert all(seconds > 0 for seconds in entry.seconds)
            assert entry.kind == "floor" or all(entry.errors[name] <= entry.bounds[name] for name in entry.errors)
    names = {entry.name: set(entry.errors) for entry in run.results[-1].entries}
    assert names["longwave:plain"] == names["torch.fft"] == names["ducc0"] == {"y", "du", "dk"}

    _forbid_measuring(monkeypatch)
    again = tmp_path / "again.svg"
    status, shown, err = typed(capsys, "bench", "--from", str(result), "--markdown", "--plot", str(again))
    assert (status, err) == (0, "")
    assert shown.startswith("| case | backend | ms |")
    assert run.stamp.command in shown
    drawn = again.read_text()
    assert drawn.startswith("<?xml")
    assert drawn.count('id="axes_') == 2  # forward, and forward and backward
    assert drawn.count("#0072b2") > 2  # longwave's line and its markers


def test_a_part_of_a_result_can_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    record.save(_made_up(), path)
    part = ["--samples", "20", "--cases", "L4096", "--direction", "forward"]
    status, out, _ = typed(capsys, "bench", "--from", str(path), *part)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines() if line.startswith("causal")] == [
        "causal-L4096-B4-H64-float32-forward"
    ]
    status, _, err = typed(capsys, "bench", "--from", str(path), "--samples", "24")
    assert status == 2
    assert "no case is left" in err


def test_a_broken_longwave_ends_with_status_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longwave.long_conv", lambda u, k, *args, **options: u.clone().zero_())
    status, out, _ = typed(
        capsys, "bench", "--samples", "8", "--cases", "L256-B1-H1-", "--direction", "forward", "--seconds", "0"
    )
    assert status == 1
    assert "longwave:plain FAILED: y is off by 1.0e+00" in out


def test_list_measures_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _forbid_measuring(monkeypatch)
    status, out, _ = typed(capsys, "bench", "--list", "--cases", "L14113", "--direction", "backward")
    assert status == 0
    assert out.splitlines() == [
        f"{'causal-L14113-B4-H74-float32-forward+backward':<56} lengths ugly quick",
        f"{'causal-L14113-B4-H297-float32-forward+backward':<56} lengths ugly quick",
    ]


def test_save_writes_into_the_results_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longwave.bench.stamp.checkout", lambda: tmp_path)
    options = ["--samples", "8", "--cases", "L256-B1-H1-", "--direction", "forward", "--seconds", "0"]
    status, _, _ = typed(capsys, "bench", "--save", *options)
    assert status == 0
    (path,) = (tmp_path / "benchmarks" / "results").iterdir()
    assert record.load(path).results


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "abacus"], "--backend abacus is unknown"),
        (["--cases", "abacus"], "no case has 'abacus' as a tag"),
        (["--samples", "99"], "--samples 99 means 2^99 samples"),
        (["--device", "abacus"], "--device abacus is not on this machine"),
        (["--rounds", "2"], "--rounds 2 is too few"),
        (["--seconds", "-1"], "--seconds -1"),
        (["--json", "{tmp}/no/such/folder.json"], "cannot be written"),
        (["--json", "{tmp}"], "is a folder"),
        (["--plot", "{tmp}/picture.txt"], "is no picture's name"),
        (["--plot", "{tmp}/no/such/folder.png"], "cannot be written"),
        (["--from", "{tmp}/missing.json"], "cannot be read"),
        (["--from", "{tmp}/binary.json"], "is no JSON"),
        (["--from", "{tmp}/other.json"], "has the schema None"),
        (["--from", "{tmp}/list.json"], "has the schema None"),
        (["--from", "{tmp}/damaged.json"], "is a damaged benchmark result"),
        (["--from", "{tmp}/other.json", "--quick"], "--quick cannot go with it"),
        (["--direction", "sideways"], "invalid choice: 'sideways'"),
    ],
)
def test_bad_input_gets_one_sentence_and_status_2(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _forbid_measuring(monkeypatch)
    (tmp_path / "binary.json").write_bytes(b"\x00\xff\xfe")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "damaged.json").write_text(json.dumps({"schema": record.SCHEMA, "results": []}))
    before = sorted(tmp_path.iterdir())
    status, out, err = typed(capsys, "bench", *(option.format(tmp=tmp_path) for option in options))
    assert status == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_plot_needs_a_length_sweep(tmp_path: Path) -> None:
    run = _made_up()
    other = [record.CaseResult(Case(B=1, H=1, L=8, K=8, tags=("small",)), run.results[0].entries)]
    with pytest.raises(DataError, match="length sweep"):
        write_plot(record.Run(STAMP, {}, other), tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_the_stamp_tells_machine_versions_and_command() -> None:
    stamp = make_stamp(argv=["bench", "--cases", "two words"])
    assert stamp.command == "longwave bench --cases 'two words'"
    assert stamp.cores >= 1
    assert stamp.threads >= 1
    assert {"longwave", "python", "torch", "numpy", "scipy", "ducc0"} <= set(stamp.versions)
    assert STAMP.file_name == "20260102-030405-a-cpu-3-ghz-2-cores-0123456789.json"


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    record.write_atomically(target, b"new")
    assert target.read_text() == "new"
    with pytest.raises(ArgumentError):
        record.write_atomically(tmp_path / "no" / "file", b"new")
    with pytest.raises(TypeError):
        record.write_atomically(target, "no bytes")  # type: ignore[arg-type]
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
