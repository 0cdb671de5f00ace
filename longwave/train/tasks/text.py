"""Characters of a text: the next one for causal models, those under a mask for models that see both sides."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from longwave.train.task import Option, Reads, Reference, Setting, Task, bits_per, most_validated
from longwave.train.tasks import Codec

if TYPE_CHECKING:
    from longwave.data.examples import Split

HELP = "train a language model of characters on the Jargon File, or on a text of your own"
UNIT = "character"
METRIC = bits_per("character")
CONTEXTS = (16, 65_536)
OPTIONS = (
    Option("text", "", "a text in UTF-8, plain or gzip (default: the Jargon File)", metavar="FILE", is_file=True),
    most_validated("character", 65_536),
)


def make(setting: Setting) -> Task:
    """Raises DataError where the file cannot be had or read, or is too short."""
    from longwave.data import baselines, text
    from longwave.train.splits import as_task, compared

    path = setting.own["text"]
    split = text.load(setting.context, masked=not setting.causal, path=path or None)

    def references() -> list[Reference]:
        uniform = Reference("uniform", "uniform", math.log2(text.MASK), math.log2(text.MASK))
        if setting.causal:
            return [uniform, compared("ngram", baselines.ngram_bits(split))]
        # What is read after a masked character says more than what an n-gram knows, but that has no simple model.
        return [uniform, _frequencies(split)]

    return as_task(
        split,
        setting,
        reads=Reads(vocabulary=text.VOCABULARY, predicted=text.MASK),
        classes=None,
        validated=-(-setting.own["eval_characters"] // setting.context),
        references=references,
        files=(path,),
    )


def _frequencies(split: Split) -> Reference:
    """What characters cost that are predicted by how often they are asked for in training."""
    import torch

    from longwave.data.baselines import held_out_examples, training_examples
    from longwave.data.examples import IGNORE

    train, test = training_examples(split.train).labels, held_out_examples(split.test).labels
    counts = torch.bincount(train[train != IGNORE], minlength=split.classes).double() + 1
    bits = -(counts / counts.sum()).log2()[test[test != IGNORE]].mean()
    return Reference("frequencies", "frequencies of characters", float(bits))


def codec(setting: Setting) -> Codec:
    """The characters of the text that was trained on."""
    import numpy as np
    import torch

    from longwave.data import text

    alphabet = text.alphabet_of(text.read(setting.own["text"] or None))
    return Codec(
        lambda words: torch.from_numpy(alphabet.encode(words).copy()),
        lambda token: alphabet.decode(np.array([token], dtype=np.uint8)),
    )
