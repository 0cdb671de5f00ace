"""`longwave train dna`, `eval` and `info`: what they leave and print, and what they refuse in a sentence."""

from __future__ import annotations

import itertools
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from terminal import typed

from longwave.cli import main
from longwave.models import hyena
from longwave.train import checkpoint, recipe

QUICK = ("--steps", "2", "--eval-bases", "500")


@pytest.fixture
def trained(tmp_path: Path, train: Callable[..., int]) -> Path:
    folder = tmp_path / "trained"
    assert train(folder, *QUICK) == 0
    return folder


def test_train_learns_and_leaves_its_files(
    tmp_path: Path, train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "run"
    assert train(out, "--steps", "60", "--lr", "0.03", "--eval-bases", "1000", "--batch", "4") == 0
    captured = capsys.readouterr()
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        "config.toml", "loss.png", "metrics.jsonl", "result.json", "state-00000060", "weights-00000060.safetensors",
    ]  # fmt: skip
    result = json.loads((out / "result.json").read_text())
    # A third of the bases follow from the one before: the truth costs 4/3 bits where the frame is known.
    assert result["model_bits_per_base"] < 1.97
    assert result["uniform_bits_per_base"] == 2.0
    assert result["test_bases"] == 2_000
    table = captured.out.splitlines()
    assert f"{result['model_bits_per_base']:.4f}" in table[3]
    assert f"{result['markov_bits_per_base']:.4f}" in table[2]
    assert "bases/s" in table[4]
    assert "step 60/60:" in captured.err
    config = tomllib.loads((out / "config.toml").read_text())
    assert config["train"]["lr"] == 0.03
    assert config["model"]["filter_length"] == 1024
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 61))
    assert lines[-1]["kind"] == "test"
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("several", [True, False])
def test_train_keeps_the_records_of_a_file_apart(
    tmp_path: Path, micro: str, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    """Every window of a step that holds bases of two records is packed; a file of one record never is."""
    letters = torch.randint(4, (30_000,), generator=torch.Generator().manual_seed(0)).tolist()
    text = "".join("ACGT"[i] for i in letters)
    path, places = tmp_path / "contigs.fa", [0, 30_000]
    if several:
        places = [0, *sorted({300 * i + 17 * i % 290 for i in range(1, 99)}), 30_000]
    path.write_text("".join(f">contig{a}\n{text[a:b]}\n" for a, b in itertools.pairwise(places)))
    seen: list[bool] = []
    forward = hyena.HyenaLM.forward

    def watched(model: hyena.HyenaLM, tokens: torch.Tensor, **options: torch.Tensor) -> torch.Tensor:
        bounds = options["cu_seqlens"].tolist() if options else range(0, tokens.numel() + 1, tokens.shape[1])
        separators = [i for i in range(tokens.numel()) if tokens.flatten()[i] == 4]
        assert set(separators) <= set(bounds)
        seen.append(bool(options))
        return forward(model, tokens, **options)

    monkeypatch.setattr(hyena.HyenaLM, "forward", watched)
    command = ["train", "dna", "--preset", micro, "--context", "1024", "--fasta", str(path), "--batch", "2"]
    assert main([*command, "--out", str(tmp_path / "run"), *QUICK]) == 0
    assert len(seen) > 3
    assert all(seen) if several else not any(seen)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_bases"] == 1_500
    assert 1.5 < result["model_bits_per_base"] < 2.5


def test_train_in_bf16_with_checkpointing(tmp_path: Path, train: Callable[..., int]) -> None:
    assert train(tmp_path / "a", *QUICK, "--autocast", "bf16", "--activation-checkpointing", "on") == 0
    assert train(tmp_path / "b", *QUICK, "--autocast", "off", "--activation-checkpointing", "off") == 0
    bits = [json.loads((tmp_path / name / "result.json").read_text())["model_bits_per_base"] for name in "ab"]
    assert bits[0] == pytest.approx(bits[1], rel=0.01)
    assert bits[0] != bits[1]


def test_eval_scores_records_and_a_total(trained: Path, genome_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", str(trained), "--fasta", str(genome_file), "--overlap", "0"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["record", "bases", "bits_per_base"]
    assert [row[:2] for row in rows[1:]] == [["one", "25000"], ["two", "15000"], ["total", "40000"]]
    one, two, total = (float(row[2]) for row in rows[1:])
    assert total == pytest.approx((25 * one + 15 * two) / 40, abs=1e-4)
    assert 1.5 < total < 2.2


def test_eval_of_weights_repeats_the_final_test(
    trained: Path, tmp_path: Path, genome_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from longwave.data import dna, fasta

    test = dna.split(fasta.read_fasta(genome_file), 1024).test
    held_out = tmp_path / "test.fa"
    held_out.write_text(f">test\n{fasta.decode(test)}\n")
    capsys.readouterr()
    assert main(["eval", str(checkpoint.find_weights(trained)), "--fasta", str(held_out)]) == 0
    score = capsys.readouterr().out.splitlines()[1].split("\t")[2]
    assert score == f"{json.loads((trained / 'result.json').read_text())['model_bits_per_base']:.4f}"


def test_eval_without_a_file_scores_the_held_out_end_of_the_genome(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", str(trained), "--overlap", "0"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[1][:2] == ["NC_008253.1:test", "246946"]
    assert rows[2] == ["total", *rows[1][1:]]
    assert 1.9 < float(rows[1][2]) < 2.3


def test_info_describes_a_folder_and_a_file(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = checkpoint.find_weights(trained)
    capsys.readouterr()
    assert main(["info", str(trained)]) == 0
    text = capsys.readouterr().out
    parameters = sum(tensor.numel() for tensor in checkpoint.load_tensors(weights).values())
    for expected in ("preset micro", f"{parameters:,}", "1,024 bases", "validation", "held-out bases", "metrics.jsonl"):
        assert expected in text
    assert main(["info", str(weights)]) == 0
    assert "metrics.jsonl" not in capsys.readouterr().out


def _refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """Run a command that must fail as the user's mistakes do; returns its sentence."""
    status, out, err = typed(capsys, *command)
    assert status == 2, (out, err)
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("longwave ")
    return err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--context", "1000"], "1,024 to 1,048,576"),
        (["--context", "1048577"], "1,024 to 1,048,576"),
        (["--context", "65536"], "choose a context"),
        (["--preset", "huge"], "hyenadna-tiny-1k"),
        (["--backend", "quantum"], "plain"),
        (["--device", "tpu"], "--device"),
        (["--fasta", "no-such-file.fa"], "no-such-file.fa"),
        (["--lr", "0"], "--lr"),
        (["--lr", "fast"], "--lr"),
        (["--steps", "-1"], "--steps"),
        (["--autocast", "fp8"], "bf16"),
        (["--resume"], "no run in"),
    ],
)
def test_train_refuses_bad_options_and_writes_nothing(
    tmp_path: Path, micro: str, genome_file: Path, capsys: pytest.CaptureFixture[str], options: list[str], word: str
) -> None:
    out = tmp_path / "out"
    base = ["--preset", micro, "--context", "1024", "--fasta", str(genome_file), "--device", "cpu", "--out", str(out)]
    assert word in _refused(capsys, "train", "dna", *base, *options)
    assert not out.exists()


def test_train_refuses_to_write_over_a_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert "--resume" in _refused(capsys, "train", "dna", "--out", str(trained))
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_train_refuses_an_out_that_is_a_file_or_cannot_be_made(
    tmp_path: Path, micro: str, genome_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    base = ("train", "dna", "--preset", micro, "--fasta", str(genome_file), "--context", "1024", "--steps", "1")
    assert "is a file" in _refused(capsys, *base, "--out", str(file))
    assert "cannot be made" in _refused(capsys, *base, "--out", str(file / "below"))
    assert file.read_text() == "mine"


def test_resume_refuses_other_options_and_other_data(
    trained: Path, genome_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resume = ("train", "dna", "--out", str(trained), "--resume")
    assert "--lr" in _refused(capsys, *resume, "--lr", "0.5")
    genome_file.write_text(genome_file.read_text().replace("A", "C", 1))
    assert "other data" in _refused(capsys, *resume)


def test_train_refuses_more_ranks_than_processes(
    tmp_path: Path, train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *QUICK, "--cp", "2") == 2
    assert "torchrun --nproc-per-node 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_loss_that_is_no_number_is_refused(
    tmp_path: Path, train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", "--steps", "20", "--warmup", "0", "--lr", "1e30", "--eval-bases", "100") == 2
    assert "smaller --lr" in capsys.readouterr().err


def test_checkpoints_that_cannot_be_used_are_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = checkpoint.find_weights(trained)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-50])
    text = tmp_path / "text.safetensors"
    text.write_text("not a checkpoint, only words")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign)
    about = checkpoint.describe(whole).metadata()
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other, metadata={**about, "model": '"transformer"'})
    mixed = tmp_path / "mixed.safetensors"
    save_file({"weight": torch.zeros(3)}, mixed, metadata=about)
    (tmp_path / "empty").mkdir()
    cases = {
        cut: "cut off",
        text: "not a safetensors file",
        foreign: "not a checkpoint",
        other: "no model 'transformer'",
        mixed: "not those of the model",
        tmp_path / "empty": "no checkpoint",
        tmp_path / "missing": "does not exist",
    }
    for path, word in cases.items():
        assert word in _refused(capsys, "eval", str(path))
    for path in (cut, text, foreign, tmp_path / "empty", tmp_path / "missing"):
        assert cases[path] in _refused(capsys, "info", str(path))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--overlap", "1024"], "--overlap"),
        (["--fasta", "no-such-file.fa"], "no-such-file.fa"),
        (["--backend", "quantum"], "quantum"),
        (["--device", "tpu"], "--device"),
        (["--autocast", "fp8"], "--autocast"),
    ],
)
def test_eval_refuses_bad_options(
    trained: Path, genome_file: Path, capsys: pytest.CaptureFixture[str], options: list[str], word: str
) -> None:
    assert word in _refused(capsys, "eval", str(trained), "--fasta", str(genome_file), *options)


def test_default_folder_names_preset_and_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro: str, genome_file: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train", "dna", "--preset", micro, "--context", "2048", "--fasta", os.fspath(genome_file), "--batch", "1"]
    assert main([*command, "--steps", "1", "--eval-bases", "100"]) == 0
    assert (tmp_path / "runs" / "dna-micro-2048" / "config.toml").exists()
    assert recipe.defaults("dna", "hyenadna-large-1m")["context"] == 1_000_000
