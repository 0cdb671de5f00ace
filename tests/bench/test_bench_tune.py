"""The table of crossovers: the package's, a machine's own, and what is not a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

pytest.importorskip("numba")

from longwave.backends.cpu import crossovers
from longwave.backends.cpu.crossovers import MEASURED
from longwave.bench import tune
from longwave.cli import main


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    crossovers.chosen.cache_clear()
    yield tmp_path
    crossovers.chosen.cache_clear()


def test_a_machines_own_table_is_used_and_can_be_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert crossovers.chosen() is MEASURED
    own = replace(MEASURED, six_step_from=2**15, machine="this one")
    path = crossovers.save(own)
    crossovers.chosen.cache_clear()
    assert crossovers.chosen() == own
    assert main(["tune", "--show"]) == 0
    assert "this one" in capsys.readouterr().out
    assert main(["tune", "--reset"]) == 0
    assert not path.exists()
    assert main(["tune", "--reset"]) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.pop("machine"),
        lambda table: table.update(six_step_from="many"),
        lambda table: table.update(six_step_from=True),
        lambda table: table.update(most_taps=[]),
        lambda table: table.update(most_taps=[[5, 6]]),
        lambda table: table.update(windows_gain=[]),
    ],
)
def test_what_is_not_a_table_is_passed_over(change: Callable[[dict[str, object]], object]) -> None:
    table = asdict(MEASURED)
    change(table)
    crossovers.file().parent.mkdir(parents=True)
    for text in (json.dumps(table), "{", "[]"):
        crossovers.file().write_text(text)
        crossovers.chosen.cache_clear()
        assert crossovers.chosen() is MEASURED


def test_tuning_compares_every_pair_and_leaves_the_engine_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def times(L: int, K: int, choices: list[dict[str, object]], rounds: int = 5) -> list[float]:
        asked.append((L, K))
        return [2.0, 1.0, *[3.0] * (len(choices) - 2)]

    monkeypatch.setattr(tune, "_times", times)
    lines: list[str] = []
    table = tune.measure(lines.append)
    assert table.block_bytes == 2**14
    assert table.six_step_from == 2**14
    assert table.whole_rows_bytes == 0
    assert all(taps == 8 for _, taps in table.most_taps)
    assert table.windows_gain >= max(1.0, 0.0)
    assert crossovers._parsed(json.loads(json.dumps(asdict(table)))) == table
    assert len(lines) >= len(asked) - 4 * 7


def test_the_engine_measures_with_other_values_and_puts_them_back() -> None:
    from longwave.backends.cpu import layouts, tables

    before = tables.SIX_STEP_FROM, layouts.WINDOWS_GAIN
    with tune.set_crossovers(six_step_from=512, windows_gain=0.0):
        assert tables.transform_length(1000) % 256 == 0
    assert before == (tables.SIX_STEP_FROM, layouts.WINDOWS_GAIN)
    assert tables.transform_length(1000) == 1000
