"""`longwave sparsify`: a model behind masks, with the leak and without it, and what white noise says about the leak."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from longwave.bench import leak
from longwave.cli import main
from longwave.masks import FrequencyMask
from longwave.nn.hyena import HyenaOperator
from longwave.train.sparsify import without_leak


@pytest.fixture
def trained(tmp_path: Path, train: Callable[..., int]) -> Path:
    assert train(tmp_path / "run", "--steps", "2", "--eval-bases", "500") == 0
    return tmp_path / "run"


def test_with_the_leak_cut_off_a_masked_layer_is_causal_again() -> None:
    mask = FrequencyMask.lowpass(0.5, leaks_future=True)
    layer, u = HyenaOperator(4, 32, frequency_mask=mask), torch.randn(1, 32, 4)
    changed = u.clone()
    changed[:, 16:] += 1
    with torch.no_grad():
        assert (layer(changed) - layer(u))[:, :16].abs().max() > 1e-4
        before, layer.conv = layer(u), without_leak
        assert (layer(changed) - layer(u))[:, :16].abs().max() < 1e-6
        assert (layer(u) - before).abs().max() > 1e-5  # the cut takes something
        layer.frequency_mask = None
        masked, layer.conv = layer(u), HyenaOperator(4, 32).conv
        assert torch.equal(masked, layer(u))


def test_white_noise_leaks_what_the_theory_says() -> None:
    for keep in (0.25, 0.5):
        found = leak.measure(128, keep, filters=16)
        assert found.best == pytest.approx(keep**0.5, abs=0.01)
        assert 0.001 < found.random < 0.05
        assert found.random < found.decaying < found.single
        assert found.single == pytest.approx((1 - keep) / 2, abs=0.02)
    everything = leak.measure(64, 1.0, filters=4)
    assert everything.best < 1e-6
    assert everything.random < 1e-20


def test_it_sweeps_the_fractions(trained: Path, genome_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    page = tmp_path / "page.md"
    options = ["--fasta", str(genome_file), "--keep", "1,0.25"]
    assert main(["sparsify", str(trained), *options, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["keep"] for row in rows] == [None, 1.0, 0.25]
    assert {row["targets"] for row in rows} == {40_000}
    whole, one, quarter = rows
    assert one["leaking"] == pytest.approx(whole["leaking"], rel=1e-5)
    assert one["cut"] == pytest.approx(whole["leaking"], rel=1e-5)
    assert quarter["leaking"] != pytest.approx(whole["leaking"], rel=1e-7)
    assert quarter["cut"] != quarter["leaking"]
    assert one["negative_energy"] < 1e-10 < 1e-4 < quarter["negative_energy"] < 0.5
    assert min(row["forward_ms"] for row in rows) > 0
    command = ["--mask", "energy", "--keep", "0.5", "--tune", "2", "--page", str(page), "--backend", "plain"]
    assert main(["sparsify", str(trained), "--fasta", str(genome_file), *command]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert "leak cut off" in header
    assert first.split()[:3] == ["all,", "no", "mask"]
    assert len(second.split()) == 7
    text = page.read_text()
    for part in ("longwave train dna --preset micro --context 1024", "| 1,024 | 0.5 |", "after 2 more steps", "| 0.5 |"):
        assert part in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--keep", "half"], "--keep 'half' is no list of fractions"),
        (["--keep", "0.5,2"], "keep is 2.0; give the fraction"),
        (["--mask", "highpass"], "--mask must be one of lowpass, energy"),
        (["--tune", "-1"], "--tune must be at least 0"),
        (["--backend", "fast"], "backend='fast' is unknown"),
        (["--fasta", "nowhere.fa"], "nowhere.fa"),
        (["--page", "nowhere/page.md"], "nowhere"),
    ],
)
def test_bad_input_gets_one_sentence(
    trained: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    capsys.readouterr()
    assert main(["sparsify", str(trained), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.startswith("longwave sparsify: ")
    assert captured.err.count("\n") == 1


def test_no_checkpoint_gets_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sparsify", str(tmp_path)]) == 2
    assert "has no checkpoint" in capsys.readouterr().err
