"""Simple models to beat, trained and scored on a task's own split: the commonest class, linear models, n-grams.

Linear models are multinomial logistic regressions in float64, fitted by L-BFGS to the end; how strongly weights are held to
zero, and how long k-mers or windows are, is chosen on the validation part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from longwave.data import ngrams, streams
from longwave.data.codes import ALPHABET, UNKNOWN
from longwave.data.examples import IGNORE, Examples, HeldOut, Source, Split
from longwave.errors import ArgumentError

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of the squared weights that are tried, in nats."""

TRAINING_EXAMPLES = 4_096
"""As many are drawn from a source that has no end."""

_ITERATIONS = 100


@dataclass(frozen=True)
class Baseline:
    """What a simple model reaches on the test part.

    Attributes:
        name: what it is, in a few words, with what was chosen.
        score: accuracy from 0 to 1, or bits a token.
    """

    name: str
    score: float


def majority(split: Split) -> Baseline:
    """Accuracy of the class that is the most frequent in training."""
    train = training_examples(split.train)
    labels = train.labels[train.labels != IGNORE]
    commonest = int(torch.bincount(labels, minlength=split.classes).argmax())
    test = held_out_examples(split.test).labels
    asked = test[test != IGNORE]
    return Baseline(f"always class {commonest}", float((asked == commonest).double().mean()))


def kmer_logistic(split: Split, lengths: Sequence[int] = (3, 4, 5)) -> Baseline:
    """Accuracy of a linear model of how often every k-mer of known bases stands in a sequence of DNA.

    Args:
        split: inputs (n, L) of DNA, labels (n,).
        lengths: k to choose from, 1 … 8.

    Raises:
        ArgumentError: another kind of task, or a length that is out of range.
    """
    if split.vocabulary != len(ALPHABET) or not all(1 <= k <= 8 for k in lengths):
        raise ArgumentError(
            f"k-mers of 1 to 8 bases are counted in DNA, and k of {list(lengths)} was asked in {split.vocabulary} kinds of "
            "tokens; give a split of DNA and such lengths"
        )
    parts = _parts(split)
    candidates = {f"{k}-mers": [_kmers(part.inputs, k) for part in parts] for k in lengths}
    return _best_linear(candidates, [part.labels for part in parts], split.classes)


def pixel_logistic(split: Split) -> Baseline:
    """Accuracy of a linear model of the numbers of an example.

    Args:
        split: inputs (n, L, V) float32, labels (n,).

    Raises:
        ArgumentError: another kind of task.
    """
    if split.vocabulary:
        raise ArgumentError(f"this model takes numbers and the split has tokens of {split.vocabulary}; give one of numbers")
    parts = _parts(split)
    features = [part.inputs.flatten(1).double() for part in parts]
    return _best_linear({"pixels": features}, [part.labels for part in parts], split.classes)


def base_window_logistic(split: Split, reaches: Sequence[int] = (4, 16, 48), training: int = 32_768) -> Baseline:
    """Accuracy of a linear model of the bases around a base, for a task with a label a position.

    Args:
        split: inputs (n, L) of DNA, labels (n, L).
        reaches: how many bases on either side, to choose from.
        training: positions to train on, evenly spread, at most.

    Raises:
        ArgumentError: another kind of task.
    """
    if split.vocabulary != len(ALPHABET):
        raise ArgumentError(f"this model takes DNA and the split has {split.vocabulary} kinds of tokens; give one of DNA")
    parts = _parts(split)
    known = [_known_bases(part.inputs) for part in parts]
    at = torch.nonzero(parts[0].labels != IGNORE)
    at = at[torch.arange(min(training, len(at))) * len(at) // min(training, len(at))]
    fitted = []
    for reach in reaches:
        around = torch.nn.functional.pad(known[0], (reach, reach)).unfold(2, 2 * reach + 1, 1)
        features = around[at[:, 0], :, at[:, 1]].flatten(1).double()
        labels = parts[0].labels[at[:, 0], at[:, 1]]
        for penalty, weight, bias in _fits(features, labels, split.classes):
            kernel = weight.view(split.classes, known[0].shape[1], 2 * reach + 1).float()
            validation, test = (
                _share_right(torch.nn.functional.conv1d(bases, kernel, bias.float(), padding=reach).movedim(1, -1), part.labels)
                for bases, part in zip(known[1:], parts[1:], strict=True)
            )
            fitted.append((f"linear model of {2 * reach + 1} bases, penalty {penalty:g}", validation, test))
    return _best(fitted)


def ngram_bits(split: Split) -> Baseline:
    """Bits a token of the n-gram model whose order and pseudocount are best on validation.

    Args:
        split: of windows of tokens with the next ones as labels, as `text` and `audio` make them.

    Raises:
        ArgumentError: another kind of task.
    """
    pieces = []
    for part in (split.train, split.validation, split.test):
        if not isinstance(part, streams.TokenWindows | streams.HeldOutPieces):
            raise ArgumentError("n-grams are counted in streams of tokens; give a split of text or audio")
        pieces.append(part.pieces)
    train, validation, test = pieces
    model = ngrams.fit_best(train, validation, split.vocabulary)
    return Baseline(f"Markov model of order {model.order}", model.bits_per_token(test))


def training_examples(source: Source, count: int = TRAINING_EXAMPLES) -> Examples:
    """All examples of a source that holds them, or `count` of one that draws."""
    return source if isinstance(source, Examples) else source.batch(0, count)


def held_out_examples(part: HeldOut) -> Examples:
    """All examples of a part, in memory."""
    batches = list(part.batches(256))
    return Examples(torch.cat([batch.inputs for batch in batches]), torch.cat([batch.labels for batch in batches]))


def _parts(split: Split) -> list[Examples]:
    return [training_examples(split.train), held_out_examples(split.validation), held_out_examples(split.test)]


def _known_bases(codes: Tensor) -> Tensor:
    """(n, 4, L) float32: which base stands where; an unknown one is none."""
    return (codes[:, None] == torch.arange(UNKNOWN, dtype=torch.uint8)[:, None]).float()


def _kmers(codes: Tensor, k: int) -> Tensor:
    """(n, 4^k) float64: the share of every k-mer among those without an unknown base."""
    windows = codes.long().unfold(1, k, 1)
    numbers = (windows * 4 ** torch.arange(k)).sum(dim=-1)
    known = (windows != UNKNOWN).all(dim=-1)
    counts = torch.zeros(len(codes), 4**k, dtype=torch.float64)
    counts.scatter_add_(1, torch.where(known, numbers, 0), known.double())
    return counts / counts.sum(dim=1, keepdim=True).clamp_min(1)


def _best_linear(candidates: dict[str, list[Tensor]], labels: Sequence[Tensor], classes: int) -> Baseline:
    """The best on validation of linear models of features (training, validation, test), each (n, f)."""
    fitted = []
    for name, features in candidates.items():
        mean, deviation = features[0].mean(dim=0), features[0].std(dim=0)
        train, *held_out = [(part - mean) / torch.where(deviation > 0, deviation, 1) for part in features]
        for penalty, weight, bias in _fits(train, labels[0], classes):
            validation, test = (
                _share_right(part @ weight.T + bias, asked) for part, asked in zip(held_out, labels[1:], strict=True)
            )
            fitted.append((f"linear model of {name}, penalty {penalty:g}", validation, test))
    return _best(fitted)


def _best(fitted: Sequence[tuple[str, float, float]]) -> Baseline:
    """Of (name, validation, test) the test score of the best on validation, of equals the first."""
    name, _, score = max(fitted, key=lambda one: one[1])
    return Baseline(name, score)


def _share_right(logits: Tensor, labels: Tensor) -> float:
    asked = labels != IGNORE
    return float((logits.argmax(dim=-1)[asked] == labels[asked]).double().mean())


def _fits(features: Tensor, labels: Tensor, classes: int) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Penalties, from the strongest on, with the weights (classes, f) and biases (classes,) that are best under them."""
    weight = torch.zeros(classes, features.shape[1], dtype=features.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=features.dtype, requires_grad=True)
    for penalty in sorted(PENALTIES, reverse=True):
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")
        optimizer.step(partial(_closure, optimizer, features, labels, weight, bias, penalty))
        yield penalty, weight.detach(), bias.detach()


def _closure(
    optimizer: torch.optim.LBFGS, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, penalty: float
) -> Tensor:
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(features @ weight.T + bias, labels) + penalty * weight.square().sum()
    loss.backward()
    return loss
