"""Simple models to beat, trained and scored on a task's own split: the commonest class, linear models, n-grams.

Linear models are multinomial logistic regressions in float64, fitted by L-BFGS to the end; how strongly weights are held to
zero, and how long k-mers or windows are, is chosen on the validation part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from longwave.data import draws, ngrams, streams
from longwave.data.codes import ALPHABET, UNKNOWN
from longwave.data.examples import IGNORE, Examples, HeldOut, Source, Split
from longwave.errors import ArgumentError

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of the squared weights that are tried, in nats."""

TRAINING_EXAMPLES = 4_096
"""As many are drawn from a source that has no end."""

TRAINING_VIDEOS = 64

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


def copied_frame_bits(split: Split) -> Baseline:
    """Bits a pixel of the next frame where the last one is believed as often as it was right in training.

    Args:
        split: of videos, inputs (n, T, P) of 0 and 1, labels (n, T, P).

    Raises:
        ArgumentError: another kind of task.
    """
    _check_videos(split)
    train, test = training_examples(split.train, TRAINING_VIDEOS), held_out_examples(split.test)
    counts = torch.bincount(2 * train.inputs.long().flatten() + train.labels.flatten(), minlength=4).view(2, 2).double() + 1
    bits = -(counts / counts.sum(dim=1, keepdim=True)).log2()
    return Baseline("copy of the last frame", float(bits[test.inputs.long(), test.labels].mean()))


def frame_window_bits(split: Split, reaches: Sequence[int] = (2, 4), training: int = 32_768) -> Baseline:
    """Bits a pixel of the next frame by a linear model of the pixels around it in the last two frames.

    Args:
        split: of videos, inputs (n, T, P) of 0 and 1, labels (n, T, P), P a square.
        reaches: how many pixels on every side, to choose from.
        training: pixels to train on, at most.

    Raises:
        ArgumentError: another kind of task.
    """
    _check_videos(split)
    parts = [
        training_examples(split.train, TRAINING_VIDEOS),
        held_out_examples(split.validation),
        held_out_examples(split.test),
    ]
    pairs = [_frame_pairs(part.inputs) for part in parts]
    n, _, side, _ = pairs[0].shape
    chosen = torch.from_numpy(draws.order(n * side**2, 0, 0)[:training])  # not every so many: columns would be missing
    frame, row, column = chosen // side**2, chosen // side % side, chosen % side
    labels = parts[0].labels.view(n, side, side)[frame, row, column]
    best: tuple[float, str, Tensor, Tensor, int] | None = None
    for reach in reaches:
        width = 2 * reach + 1
        around = torch.nn.functional.pad(pairs[0], (reach,) * 4).unfold(2, width, 1).unfold(3, width, 1)
        for penalty, weight, bias in _fits(around[frame, :, row, column].flatten(1).double(), labels, split.classes):
            kernel = weight.detach().view(split.classes, 2, width, width).float(), bias.detach().float()
            bits = _frame_bits(pairs[1], parts[1].labels, *kernel, reach)
            if best is None or bits < best[0]:
                name = f"linear model of {width} × {width} pixels of two frames, penalty {penalty:g}"
                best = bits, name, kernel[0].clone(), kernel[1].clone(), reach
    if best is None:
        raise ArgumentError("no reach was given to choose from; give at least one")
    return Baseline(best[1], _frame_bits(pairs[2], parts[2].labels, *best[2:]))


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


def _check_videos(split: Split) -> None:
    if split.vocabulary or split.classes != 2:
        raise ArgumentError("this model takes videos of black and white pixels; give a split of them")


def _frame_pairs(inputs: Tensor) -> Tensor:
    """Frames (n · T, 2, side, side), each with the one before it (empty before the first), of inputs (n, T, side²)."""
    side = math.isqrt(inputs.shape[2])
    frames = inputs.unflatten(2, (side, side))
    return torch.stack([torch.nn.functional.pad(frames, (0, 0, 0, 0, 1, 0))[:, :-1], frames], dim=2).flatten(0, 1)


def _frame_bits(pairs: Tensor, labels: Tensor, kernel: Tensor, bias: Tensor, reach: int) -> float:
    """The mean of -log2 p of labels (n, T, side²) under a linear model of windows."""
    bits = 0.0
    for part, asked in zip(pairs.split(256), labels.flatten(0, 1).split(256), strict=True):
        logits = torch.nn.functional.conv2d(part, kernel, bias, padding=reach).flatten(2)
        bits += float(torch.nn.functional.cross_entropy(logits, asked, reduction="sum")) / math.log(2)
    return bits / labels.numel()


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
