"""`--init-from`: a run that begins with what another one learnt."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from made_data import FILES
from safetensors.torch import load_file
from terminal import typed

from longwave.cli import build_parser, main
from longwave.data import genes, promoters, species
from longwave.data.codes import Record, decode, encode, reverse_complement
from longwave.data.examples import Examples
from longwave.errors import ArgumentError, UnsupportedError
from longwave.models import longconv
from longwave.nn.explicit_filters import Zoom, zoomed
from longwave.train import checkpoint, evaluate, job, options, race
from longwave.train.folder import read_config

FEW = ("--batch", "2", "--steps", "2", "--lr", "0.01", "--device", "cpu", "--autocast", "off", "--eval-every", "2")


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> str:
    """A small LongConv for images."""
    config = dataclasses.replace(longconv.PRESETS["longconv-paths"], d_model=8, layers=1)
    monkeypatch.setitem(longconv.PRESETS, "micro-paths", config)
    return "micro-paths"


def learnt(task: str, out: Path, *words: str) -> dict[str, torch.Tensor]:
    assert main(["train", task, "--out", str(out), *FEW, *words]) == 0
    return load_file(checkpoint.find_weights(out))


STILL = ("--lr", "1e-30")
"""A rate at which nothing is learnt."""


def test_weights_go_from_the_next_base_to_a_task_of_classes(
    tmp_path: Path, micro: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = FILES["promoters"](tmp_path)
    first = learnt("dna", tmp_path / "dna", "--preset", micro, "--context", "1024", *FILES["dna"](tmp_path))
    words = ["--init-from", str(tmp_path / "dna"), "--context", "100", *data, *STILL]
    second = learnt("promoters", tmp_path / "promoters", *words)
    fresh = learnt(
        "promoters", tmp_path / "fresh", "--preset", micro, "--context", "100", "--filter-length", "1024", *data, *STILL
    )
    assert {name.removeprefix("body.") for name in second} == {*first, "head.weight", "head.bias"}
    for name, x in first.items():
        torch.testing.assert_close(second[f"body.{name}"], x, rtol=1e-6, atol=1e-8)
    assert any((second[name] - fresh[name]).abs().max() > 1e-3 for name in fresh)
    torch.testing.assert_close(second["head.weight"], fresh["head.weight"], rtol=1e-6, atol=1e-8)  # drawn anew, by the seed
    result = json.loads((tmp_path / "promoters" / "result.json").read_text())
    assert result["began_with"]["task"] == "dna"
    assert len(result["began_with"]["sha256"]) == 64
    assert "--init-from" in result["stamp"]["command"]
    assert read_config(tmp_path / "promoters")["train"]["filter_length"] == 1024
    said = typed(capsys, "info", str(tmp_path / "promoters"))[1]
    assert f"began with  hyena, preset {micro}, on dna, context 1,024, step 2\n" in said
    # The head goes along where the task is the same, and its run can be gone when this one is resumed.
    third = learnt("promoters", tmp_path / "third", *words, "--init-from", str(tmp_path / "promoters"))
    for name, x in second.items():
        torch.testing.assert_close(third[name], x, rtol=1e-6, atol=1e-8)
    for path in (tmp_path / "promoters").iterdir():
        if path.is_file():
            path.unlink()
    assert main(["train", "promoters", "--out", str(tmp_path / "third"), "--resume"]) == 0


def test_filters_of_images_grow_with_them(tmp_path: Path, paths: str) -> None:
    few = ("--test-images", "2", "--eval-images", "2", "--dashes", "3")
    small = learnt("pathfinder", tmp_path / "small", "--preset", paths, "--side", "32", *few)
    large = learnt("pathfinder", tmp_path / "large", "--init-from", str(tmp_path / "small"), "--side", "64", *few, *STILL)
    model = longconv.Model(dataclasses.replace(longconv.PRESETS["micro-paths"], filter_length=64 * 64))
    from longwave.train.tasks import find

    zoom = find("pathfinder").zoom({"side": 32}, {"side": 64})  # type: ignore[attr-defined]
    assert zoom.factor == pytest.approx(5.2 / 3.6)
    expected = model.zoomed(small, zoom)
    assert {name: x.shape for name, x in expected.items()} == {name: x.shape for name, x in large.items()}
    changed = [name for name in small if small[name].shape != large[name].shape]
    assert len(changed) == 1
    for name, x in expected.items():
        torch.testing.assert_close(large[name], x, rtol=1e-5, atol=1e-7)
    # What is squashed stays so, and what is not is as large as it was drawn.
    k = large["body.blocks.0.mixer.long.filter.k"]
    assert (k[k != 0].abs() >= longconv.PRESETS["micro-paths"].squash).all()


@pytest.mark.parametrize(
    ("task", "words", "says"),
    [
        ("mnist", [], "inputs.bias is missing"),
        ("promoters", ["--preset", "m2-bert-tiny"], "take the preset micro"),
        ("promoters", ["--model", "m2_bert"], "leave --model out"),
    ],
)
def test_other_weights_are_refused(
    task: str, words: list[str], says: str, tmp_path: Path, micro: str, capsys: pytest.CaptureFixture[str]
) -> None:
    learnt("dna", tmp_path / "dna", "--preset", micro, "--context", "1024", *FILES["dna"](tmp_path))
    out = tmp_path / "refused"
    given = [*FILES[task](tmp_path), *words, "--init-from", str(tmp_path / "dna")]
    status, _, complaint = typed(capsys, "train", task, "--out", str(out), *FEW, *given)
    assert status == 2
    assert says in complaint
    assert not out.exists()


def test_what_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--out", str(tmp_path / "run"), "--init-from", str(tmp_path / "nothing"))
    status, _, complaint = typed(capsys, "train", "mnist", *words)
    assert status == 2
    assert "does not exist" in complaint


def test_state_spaces_do_not_go_to_images_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--test-images", "2", "--eval-images", "2")
    learnt("pathfinder", tmp_path / "small", "--preset", "s4d-pixels", *few)
    words = ["--init-from", str(tmp_path / "small"), "--side", "64", *few]
    status, _, complaint = typed(capsys, "train", "pathfinder", "--out", str(tmp_path / "large"), *FEW, *words)
    assert status == 2
    assert "longconv" in complaint


def test_filters_that_are_no_images_are_refused(tmp_path: Path, paths: str, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--test-images", "2", "--eval-images", "2")
    learnt("pathfinder", tmp_path / "short", "--preset", paths, "--filter-length", "512", *few)
    out = str(tmp_path / "large")
    words = ["--init-from", str(tmp_path / "short"), *few]
    status, _, complaint = typed(capsys, "train", "pathfinder", "--out", out, *FEW, *words, "--side", "64")
    assert status == 2
    assert "two-sided filters over images of 32² pixels have 2,048 taps, but 1,024" in complaint
    assert main(["train", "pathfinder", "--out", out, *FEW, *words]) == 0  # of the same size they are as they are
    with pytest.raises(ArgumentError, match="1,024 taps, but 2,048"):
        zoomed(torch.ones(1, 2048), Zoom(32, 64, 2.0), two_sided=False)
    smoothed = longconv.Model(dataclasses.replace(longconv.PRESETS[paths], smooth=2))
    with pytest.raises(UnsupportedError, match="smooth=0"):
        smoothed.zoomed(smoothed.state_dict(), Zoom(32, 64, 2.0))


def test_a_head_stays_with_its_task(tmp_path: Path, micro: str) -> None:
    """Promoters and the rest are two classes, and so are two species."""
    first = learnt("promoters", tmp_path / "first", "--preset", micro, "--context", "64", *FILES["promoters"](tmp_path))
    folder = tmp_path / "two"
    folder.mkdir()
    for number, name in enumerate("ab"):
        (folder / f"{name}.fa").write_text(f">{name}\n" + "ACGT"[number : number + 2] * 4_000 + "\n")
    words = ["--folder", str(folder), "--context", "64", "--init-from", str(tmp_path / "first"), *STILL]
    second = learnt("species", tmp_path / "species", *words)
    assert (first["head.weight"] - second["head.weight"]).abs().max() > 1e-3
    for name in first:
        if name.startswith("body."):
            torch.testing.assert_close(first[name], second[name], rtol=1e-6, atol=1e-8)


def test_a_run_that_has_no_checkpoint_yet_begins_again_with_the_same_weights(
    tmp_path: Path, micro: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = FILES["promoters"](tmp_path)
    dna = tmp_path / "dna"
    first = learnt("dna", dna, "--preset", micro, "--context", "1024", *FILES["dna"](tmp_path))
    words = ("--init-from", str(dna), "--context", "100", *data, *STILL)
    learnt("promoters", tmp_path / "run", *words)

    def begun_only() -> Path:
        """As a run is that was stopped before its first checkpoint."""
        out = tmp_path / "begun"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        shutil.copy(tmp_path / "run" / "config.toml", out)
        return out

    out = begun_only()
    assert main(["train", "promoters", "--out", str(out), "--resume"]) == 0
    found = load_file(checkpoint.find_weights(out))
    for name, x in first.items():
        torch.testing.assert_close(found[f"body.{name}"], x, rtol=1e-6, atol=1e-8)
    newer = checkpoint.find_weights(dna)
    shutil.copy(newer, newer.with_name("weights-00000009.safetensors"))
    changed = load_file(newer)
    changed["norm.weight"] += 1
    about = checkpoint.describe(newer)
    checkpoint.save_weights(dna, changed, dataclasses.replace(about, step=9))
    status, _, complaint = typed(capsys, "train", "promoters", "--out", str(begun_only()), "--resume")
    assert status == 2
    assert "began with weights" in complaint


def test_a_race_begins_with_them_too(tmp_path: Path, micro: str) -> None:
    learnt("dna", tmp_path / "dna", "--preset", micro, "--context", "1024", *FILES["dna"](tmp_path))
    asked = {
        "init_from": str(tmp_path / "dna"),
        "context": 1024,
        "batch": 2,
        "device": "cpu",
        "fasta": str(tmp_path / "genome.fa"),
    }
    asked["fasta"] = FILES["dna"](tmp_path)[1]
    chosen = options.resolve("dna", asked)
    side = race._Side(chosen, job.opened(chosen), torch.device("cpu"))
    for name, x in load_file(checkpoint.find_weights(tmp_path / "dna")).items():
        assert torch.equal(side.job.model.state_dict()[name], x)


def test_the_stamped_command_says_the_length_of_filters(tmp_path: Path, micro: str) -> None:
    learnt("dna", tmp_path / "dna", "--preset", micro, "--context", "1024", *FILES["dna"](tmp_path))
    for length in (100, 1024):
        asked = {"init_from": str(tmp_path / "dna"), "context": 100, "filter_length": length}
        chosen = options.resolve("promoters", asked)
        again = build_parser().parse_args(chosen.words)
        assert options.resolve("promoters", options.given("promoters", again)) == chosen


def letters(records: list[Record]) -> list[str]:
    return [decode(record.codes) for record in records]


def rows(examples: Examples) -> list[str]:
    return [decode(codes) for codes in examples.inputs.numpy()]


def test_what_tasks_hold_out_is_in_no_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def strands(row: str) -> tuple[str, str]:
        return row, decode(reverse_complement(encode(row)))

    def inside(row: str, corpus: list[str]) -> bool:
        return any(strand in text for strand in strands(row) for text in corpus)

    upstream, chromosome = FILES["promoters"](tmp_path)[1::2]
    split = promoters.load(upstream, chromosome, length=60)
    corpus = letters(promoters.training_records(chromosome))
    train = split.train.batch(0, 16, 0)
    assert all(inside(row, corpus) for row in rows(train))
    for part in (split.validation, split.test):
        assert not any(inside(row, corpus) for examples in part.batches(64) for row in rows(examples))

    files = FILES["genes"](tmp_path)[1::2]
    split = genes.load(60, *files)
    corpus = letters(genes.training_records(*files))
    assert all(inside(row.rstrip("N"), corpus) for row in rows(split.train.batch(0, 16, 0)))
    for part in (split.validation, split.test):
        held_out = [row.rstrip("N") for examples in part.batches(64) for row in rows(examples)]
        assert not any(inside(row, corpus) for row in held_out if len(row) > 30)

    folder = FILES["species"](tmp_path)[1]
    split = species.load(60, folder)
    corpus = letters(species.training_records(folder))
    assert len(corpus) == split.classes
    assert all(inside(row, corpus) for row in rows(split.train.batch(0, 16, 0)))
    for part in (split.validation, split.test):
        assert not any(inside(row, corpus) for examples in part.batches(64) for row in rows(examples))


@pytest.mark.parametrize("corpus", ["promoters", "species", "genes"])
def test_a_corpus_trains_on_every_record_of_its_own(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"promoters": promoters, "species": species, "genes": genes}
    texts = {name: [letter * 20_000 for letter in pair] for name, pair in zip(made, ("AC", "CG", "GT"), strict=True)}
    for name, module in made.items():
        records = [Record(f"{name}{number}", encode(text)) for number, text in enumerate(texts[name])]
        monkeypatch.setattr(module, "training_records", lambda records=records: records)
    chosen = options.resolve("dna", {"corpus": corpus, "context": 1024, "batch": 64})
    task = job.opened(chosen)
    expected = {int(encode(text[:1])[0]) for text in texts[corpus]}
    assert {int(x) for x in task.batches(0).targets.unique() if x >= 0} == expected
    for part in (task.validation, task.test):
        assert {int(x) for batch in part() for x in batch.targets.unique() if x >= 0} == expected
    assert corpus in task.about["source"]


def test_two_sets_of_dna_are_refused(genome_file: Path) -> None:
    with pytest.raises(ArgumentError, match="leave one of them out"):
        job.opened(options.resolve("dna", {"corpus": "genes", "fasta": str(genome_file)}))


def test_options_that_came_later_have_their_defaults(tmp_path: Path, paths: str) -> None:
    few = ("--test-images", "2", "--eval-images", "2", "--dashes", "3")
    learnt("pathfinder", tmp_path / "run", "--preset", paths, *few)
    about = checkpoint.describe(checkpoint.find_weights(tmp_path / "run"))
    old = dataclasses.replace(about, own={name: about.own[name] for name in ("side", "test_images", "eval_images")})
    assert evaluate.setting(old).own == {**about.own, "dashes": 6}
    stored = {**read_config(tmp_path / "run")["train"]}
    for name in ("first_dashes", "grow_every", "init_from"):
        del stored[name]
    assert options.resume_options("pathfinder", stored, {}, "run").own == about.own
