"""What a task gives: the words in which every module of `train/tasks` speaks to the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

IGNORE = -100
"""The target of a position at which nothing is asked; that of `longwave.data.examples` too."""

Value = str | int | float | bool


class Batch(NamedTuple):
    """What a step trains on, or a part of what is scored; on the CPU.

    Attributes:
        inputs: (B, L) integer tokens, or (B, L, values) float32.
        targets: (B, L) int64, (B,) where one answer a sequence is asked for, or (B, L, places) where several a position are;
            `IGNORE` where nothing is.
        cu_seqlens: (S + 1,) int32, the documents in the inputs, row after row, where any row holds two; else None.
    """

    inputs: Tensor
    targets: Tensor
    cu_seqlens: Tensor | None = None


class Batches(Protocol):
    """What a run trains on."""

    def __call__(self, step: int, rows: slice = ..., /) -> Batch:
        """The batch of a step (0 is the first), or those rows of it, with the boundaries of documents that are in them."""
        ...


@dataclass(frozen=True)
class Score:
    """`targets` questions were answered at a cost of `bits` bits in all; to `right` of them the likeliest answer was true."""

    targets: int
    bits: float
    right: int = 0

    @property
    def mean_bits(self) -> float:
        """The cost of an answer; NaN where nothing was asked."""
        return self.bits / self.targets if self.targets else math.nan

    @property
    def accuracy(self) -> float:
        """The share of right answers; NaN where nothing was asked."""
        return self.right / self.targets if self.targets else math.nan

    def __add__(self, other: Score) -> Score:
        return Score(self.targets + other.targets, self.bits + other.bits, self.right + other.right)


@dataclass(frozen=True)
class Metric:
    """The number that a task is judged by.

    Attributes:
        name: its key in `metrics.jsonl` and `result.json`.
        label: as text.
        counted: what is asked once each: "base", "image".
        of: the number, from a Score.
        higher_is_better: accuracy, not bits.
    """

    name: str
    label: str
    counted: str
    of: Callable[[Score], float]
    higher_is_better: bool


def bits_per(counted: str) -> Metric:
    """The mean of -log2 p(answer)."""
    return Metric(f"bits_per_{counted}", f"bits per {counted}", counted, lambda score: score.mean_bits, False)


def accuracy_per(counted: str) -> Metric:
    """The share of right answers."""
    return Metric("accuracy", f"accuracy per {counted}", counted, lambda score: score.accuracy, True)


@dataclass(frozen=True)
class Reads:
    """What a model must read and predict: fields of its config, but `causal`.

    Attributes:
        vocabulary: tokens that can be read, or 0 for numbers.
        predicted: the first so many tokens can be predicted, 0 where a head of classes answers.
        values: numbers a position, or 0 for tokens.
        causal: whether only causal models may be asked.
    """

    vocabulary: int = 0
    predicted: int = 0
    values: int = 0
    causal: bool = False


@dataclass(frozen=True)
class Classes:
    """A head of `count` classes in the place of the model's own.

    Attributes:
        count: at least 2.
        pool: "positions" for an answer at each, "mean" or "last" for one a sequence: of the mean over its positions, or of its
            last one.
        places: answers at each position, as of the pixels of a frame; 1 where the pool is another.
    """

    count: int
    pool: str
    places: int = 1


@dataclass(frozen=True)
class Reference:
    """What a model is compared with: its score on the same test data, and on the validation data where that is known.

    Attributes:
        name: the beginning of its key in `result.json`.
        label: as text: "Markov, order 11".
    """

    name: str
    label: str
    test: float
    validation: float | None = None


def chance(answers: int) -> Reference:
    """The accuracy of guessing one of so many, all equally frequent."""
    return Reference("chance", "chance", 1 / answers, 1 / answers)


@dataclass(frozen=True)
class Option:
    """An option of one task, `--dashed-name`; its type is that of its default.

    Attributes:
        default: or a function of the context.
        least: the least number allowed.
        is_file: a path, kept absolute.
    """

    name: str
    default: Value | Callable[[int], Value]
    help: str
    metavar: str | None = None
    least: float | None = None
    choices: tuple[Value, ...] = ()
    is_file: bool = False

    @property
    def kind(self) -> type:
        return int if callable(self.default) else type(self.default)


def most_validated(counted: str, most: int) -> Option:
    """The option that bounds what a validation during training asks, by default as said."""
    help = f"most {counted}s of a validation (default: {most})"
    return Option(f"eval_{counted}s", most, help, metavar=f"{counted.upper()}S", least=1)


@dataclass(frozen=True)
class Setting:
    """What a task is opened with: positions of a sequence, sequences of a step, the seed of their order, whether the model is
    causal, and the values of the task's own options.
    """

    context: int
    batch: int
    seed: int
    causal: bool
    own: Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """An opened task.

    Attributes:
        reads: what a model must be.
        classes: the head, or None for the model's own `head_weight()`.
        about: where the data come from (`source`) and how much they are, in JSON's types; a resumed run must find it unchanged.
        batches: as the protocol says, the same for the same seed and step.
        validation, test: what is scored, the same in every call; they share nothing with each other and with `batches`.
        references: what to compare with; the last is the baseline to beat.
    """

    reads: Reads
    classes: Classes | None
    about: dict[str, Any]
    batches: Batches
    validation: Callable[[], Iterable[Batch]]
    test: Callable[[], Iterable[Batch]]
    references: Callable[[], list[Reference]]
