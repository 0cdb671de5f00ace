"""Scores, schedule, parameter groups, files, mesh and options by themselves."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from longwave.errors import ArgumentError, DataError
from longwave.models.hyena import HyenaConfig, HyenaLM
from longwave.train import checkpoint, options
from longwave.train.files import replacing, write_text
from longwave.train.heads import Classifier, with_head
from longwave.train.optim import learning_rate, make_optimizer, parameter_groups, set_rate
from longwave.train.progress import Progress
from longwave.train.record import Metrics, draw
from longwave.train.score import loss_nats, right_answers, score
from longwave.train.stretches import consecutive
from longwave.train.task import IGNORE, Batch, Classes, Reference, Score, bits_per

CPU = torch.device("cpu")


class _Remembers(nn.Module):
    """A model whose prediction depends on how many tokens it has been shown, and on the last one."""

    activation_checkpointing = False
    places = 1

    def __init__(self, memory: int) -> None:
        super().__init__()
        self.memory, self.seen = memory, []
        torch.manual_seed(0)
        self.table = torch.randn(memory + 1, 5, 3)

    def head_weight(self) -> torch.Tensor:
        return torch.arange(12.0).reshape(4, 3).sin()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(tokens.shape))
        place = torch.arange(tokens.shape[1]).clamp(max=self.memory)
        return self.table[place.expand(tokens.shape), tokens]


def _codes(n: int) -> np.ndarray:
    codes = np.random.default_rng(0).integers(0, 5, n).astype(np.uint8)
    codes[0] = 1
    return codes


def _scored(model: nn.Module, codes: np.ndarray, context: int, **options: Any) -> Score:
    return score(model, consecutive(codes, context, start=4, unknown=4, **options), device=CPU)


@pytest.mark.parametrize("overlap", [0, 3, 7])
@pytest.mark.parametrize("n", [1, 2, 8, 9, 40, 41])
def test_score_counts_every_known_base_once(n: int, overlap: int) -> None:
    """Against one window over everything: a model that remembers no more than the overlap cannot tell the difference."""
    codes, model = _codes(n), _Remembers(overlap)
    found = _scored(model, codes, 8, overlap=overlap)
    assert max(shape[1] for shape in model.seen) <= 8
    inputs = torch.from_numpy(np.concatenate([[4], codes[:-1]])).long()[None]
    targets = torch.from_numpy(codes).long()
    log_p = F.log_softmax(model(inputs)[0] @ model.head_weight().T, dim=-1)
    known = targets != 4
    bits = -log_p[known].gather(1, targets[known][:, None]).sum().item() / math.log(2)
    assert found.targets == known.sum().item()
    assert found.bits == pytest.approx(bits, rel=1e-5)
    assert bits > 0.5


def test_score_with_overlap_gives_context() -> None:
    """The control: a model that remembers more than the overlap does see a difference."""
    codes, model = _codes(40), _Remembers(7)
    assert _scored(model, codes, 8, overlap=7).bits != pytest.approx(_scored(model, codes, 8, overlap=0).bits, rel=1e-3)


@pytest.mark.parametrize("overlap", [0, 30])
def test_score_of_joined_records_is_that_of_each_alone(overlap: int) -> None:
    torch.manual_seed(0)
    model = HyenaLM(HyenaConfig(d_model=8, layers=2, filter_length=64, d_inner=16)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that what is far away counts
    sizes = (1, 20, 2, 35)
    separator = np.array([4], np.uint8)
    parts = [_codes(n + 5)[5:] for n in sizes]
    joined = np.concatenate([x for part in parts for x in (separator, part)][1:])
    records = np.cumsum([n + 1 for n in sizes])[:-1] - 1
    alone = sum((_scored(model, part, 64) for part in parts), Score(0, 0.0))
    apart = _scored(model, joined, 64, overlap=overlap, records=records)
    assert apart.targets == alone.targets
    assert apart.bits == pytest.approx(alone.bits, rel=1e-9)
    assert _scored(model, joined, 64).bits != pytest.approx(alone.bits, rel=1e-4)  # the control


@pytest.mark.parametrize("overlap", [-1, 8])
def test_score_refuses_an_overlap_out_of_range(overlap: int) -> None:
    with pytest.raises(ArgumentError, match="overlap"):
        _scored(_Remembers(1), _codes(9), 8, overlap=overlap)


@pytest.mark.parametrize("places", [1, 4_096])
def test_a_model_of_frames_is_scored_a_few_rows_at_a_time(places: int) -> None:
    """Its hidden states are of every place of a position, on a task of tokens too."""
    model = _Remembers(8)
    whole = _scored(model, _codes(100), 8)
    assert model.seen == [(12, 8), (1, 4)]
    model.seen, model.places = [], places
    assert _scored(model, _codes(100), 8).targets == whole.targets
    assert model.seen == ([(12, 8), (1, 4)] if places == 1 else [(2, 8)] * 6 + [(1, 4)])
    assert _scored(model, _codes(100), 8).mean_bits == pytest.approx(whole.mean_bits, rel=1e-6)


def test_score_of_nothing_known_is_nan() -> None:
    assert math.isnan(_scored(_Remembers(1), np.full(5, 4, np.uint8), 8).mean_bits)
    assert (Score(1, 2.0) + Score(3, 2.0)).mean_bits == 1.0


def test_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(step, peak=1.0, warmup=4, steps=20) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))
    assert rates[-1] == pytest.approx(0.02)
    assert learning_rate(0, peak=2.0, warmup=0, steps=1) == 2.0


def test_only_matrices_outside_filters_decay() -> None:
    model = HyenaLM(HyenaConfig(d_model=8, layers=1, filter_length=16, d_inner=16))
    decayed, exempt = parameter_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert sorted(names[id(p)] for p in decayed["params"]) == [
        f"blocks.0.{name}.weight" for name in ("mixer.in_proj", "mixer.out_proj", "mlp_in", "mlp_out")
    ]
    assert len(decayed["params"]) + len(exempt["params"]) == len(names)
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.1, 0.0)


def test_replacing_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="cannot write"):
        write_text(tmp_path / "nowhere" / "file", "x")


def test_metrics_are_cut_back(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        metrics.append("train", step, bits_per_base=0.1 * step)
    metrics.append("test", 2, model_bits_per_base=1.0)
    metrics.cut_back(2)
    assert [(line["kind"], line["step"]) for line in metrics.read()] == [("train", 1), ("train", 2)]
    assert metrics.read()[1]["bits_per_base"] == 0.2  # no digit lost on the way


def test_picture_shows_the_curves(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    metrics = Metrics(tmp_path / "metrics.jsonl")
    lines = [Reference("uniform", "uniform", 2.0, 2.0), Reference("markov", "Markov", 1.94, 1.95)]
    draw(tmp_path, "nothing yet", bits_per("base"), lines)
    empty = image.imread(tmp_path / "loss.png")
    for step in range(1, 200):
        metrics.append("train", step, bits_per_base=1.9 + 0.1 / step)
        if step % 50 == 0:
            metrics.append("validation", step, bits_per_base=1.92)
    draw(tmp_path, "a run", bits_per("base"), lines)
    drawn = image.imread(tmp_path / "loss.png")
    blue = np.array([0x1F, 0x77, 0xB4]) / 255
    assert (np.abs(drawn[..., :3] - blue).max(axis=2) < 0.02).sum() > 200
    assert (np.abs(empty[..., :3] - blue).max(axis=2) < 0.02).sum() == 0


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for screen in (_Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", screen)
        progress = Progress(10, 4, 2_048, unit="base", label="bits per base")
        for step in range(5, 11):
            progress.update(step, 1.91)
        progress.say("a word between")
        progress.close()
        text = screen.getvalue()
        assert "1.9100 bits" in text
        assert "bases/s" in text
        assert "a word between" in text
        assert ("\r" in text) == screen.isatty()
        assert ("10/10 steps" if screen.isatty() else "step 10/10:") in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch", 0), ("steps", 0), ("seed", -1), ("lr", 0.0), ("lr", math.nan), ("clip", math.inf), ("warmup", 10**9),
        ("weight_decay", -0.1), ("autocast", "fp8"), ("activation_checkpointing", "yes"), ("eval_every", 0),
        ("checkpoint_every", 0), ("seed", 2**63),
    ],
)  # fmt: skip
def test_options_refuse_values_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ArgumentError, match="--" + name.replace("_", "-")):
        options.resolve("dna", {name: value})


def test_a_preset_without_a_recipe_gets_a_context_that_the_task_has() -> None:
    assert options.resolve("promoters", {"preset": "hyenadna-large-1m"}).context == 2_000
    assert options.resolve("promoters", {"preset": "m2-bert-80m"}).context == 128
    with pytest.raises(ArgumentError, match="from 16 to 2,000 bases"):
        options.resolve("promoters", {"preset": "hyenadna-large-1m", "context": 1_000_000})


def test_options_resolve_and_resume() -> None:
    chosen = options.resolve("dna", {"steps": 40})
    assert (chosen.preset, chosen.steps, chosen.warmup, chosen.eval_every) == ("tiny", 40, 2, 4)
    stored = chosen.flat
    assert options.resume_options("dna", stored, {"steps": 40}, "run") == chosen
    with pytest.raises(ArgumentError, match="--steps 40, but 41"):
        options.resume_options("dna", stored, {"steps": 41}, "run")
    with pytest.raises(ArgumentError, match=r"config\.toml"):
        options.resume_options("dna", {"steps": 40}, {}, "run")


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "meta"])
def test_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="--device"):
        options.choose_device(name)


def test_weights_alone_give_the_model_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = HyenaConfig(d_model=8, layers=1, filter_length=16, d_inner=16)
    model = HyenaLM(config)
    about = checkpoint.Description("dna", "hyena", "micro", dataclasses.asdict(config), 16, 7, {"source": "none"})
    checkpoint.save_weights(tmp_path, model.state_dict(), about)
    loaded, found = checkpoint.load_model(tmp_path / "weights-00000007.safetensors")
    tokens = torch.randint(0, 4, (1, 16))
    assert torch.equal(loaded(tokens), model(tokens))
    assert found == about
    assert json.loads(json.dumps(found.config)) == dataclasses.asdict(config)


class _Filter(nn.Module):
    """A layer that says how it is trained."""

    optimizer_options: ClassVar[dict[str, dict[str, float]]] = {
        "rate": {"lr_scale": 0.1, "weight_decay": 0.0},
        "inner.*": {"lr_scale": 0.5},
    }

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.inner = nn.Parameter(torch.zeros(2)), nn.Linear(2, 2)


def test_layers_say_how_they_are_trained() -> None:
    model = nn.Sequential(nn.Linear(2, 2), _Filter())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, lr=1.0, weight_decay=0.1)
    set_rate(optimizer, 0.01)
    found = {
        (group["weight_decay"], round(group["lr"], 9)): sorted(names[id(p)] for p in group["params"])
        for group in optimizer.param_groups
    }
    assert found == {
        (0.1, 0.01): ["0.weight"],
        (0.1, 0.005): ["1.inner.weight"],
        (0.0, 0.01): ["0.bias"],
        (0.0, 0.005): ["1.inner.bias"],
        (0.0, 0.001): ["1.rate"],
    }


@pytest.mark.parametrize("pool", ["positions", "mean", "last"])
def test_a_head_answers_where_it_is_asked(pool: str) -> None:
    torch.manual_seed(0)
    body = HyenaLM(HyenaConfig(d_model=8, layers=1, filter_length=16, d_inner=16)).double()
    model = with_head(body, Classes(3, pool)).double()
    assert isinstance(model, Classifier)
    nn.init.normal_(model.head.bias)
    inputs = torch.randint(0, 5, (2, 12))
    hidden = body(inputs)
    looked_at = {"positions": hidden, "mean": hidden.mean(dim=1), "last": hidden[:, -1]}[pool]
    logits = looked_at @ model.head.weight.T + model.head.bias
    targets = torch.randint(0, 3, logits.shape[:-1])
    targets[0] = IGNORE if pool == "positions" else targets[0]
    nats, count, features = loss_nats(model, Batch(inputs, targets), autocast=False)
    expected = F.cross_entropy(logits.reshape(-1, 3), targets.reshape(-1), ignore_index=IGNORE, reduction="sum")
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-6)
    assert int(count) == int((targets != IGNORE).sum())
    right = (logits.argmax(dim=-1) == targets).sum()
    assert int(right_answers(model, features, targets)) == int(right)
    whole = score(model, [Batch(inputs, targets), Batch(inputs, targets)], device=CPU)
    assert (whole.targets, whole.right) == (2 * int(count), 2 * int(right))
    assert whole.accuracy == pytest.approx(int(right) / int(count))


def test_a_head_that_is_none_is_refused() -> None:
    body = HyenaLM(HyenaConfig(d_model=8, layers=1, filter_length=16, d_inner=16))
    for classes in (Classes(1, "mean"), Classes(3, "max")):
        with pytest.raises(ArgumentError, match="a head has"):
            with_head(body, classes)
    with pytest.raises(ArgumentError, match="packed documents"):
        with_head(body, Classes(2, "mean"))(torch.zeros(1, 8).long(), cu_seqlens=torch.tensor([0, 4, 8], dtype=torch.int32))
