"""Genes in DNA: every base is between genes, in an exon, or in an intron."""

from __future__ import annotations

from longwave.train.task import Classes, Option, Reads, Reference, Setting, Task, accuracy_per, most_validated

HELP = "label every base of DNA: between genes, exon or intron"
UNIT = "base"
METRIC = accuracy_per("base")
CONTEXTS = (64, 65_536)
OPTIONS = (
    Option("genes_train", "", "GenBank file to train on (default: that of AUGUSTUS)", metavar="FILE", is_file=True),
    Option("genes_test", "", "GenBank file to test on (default: that of AUGUSTUS)", metavar="FILE", is_file=True),
    most_validated("base", 131_072),
)


def make(setting: Setting) -> Task:
    """Raises DataError where a file cannot be had or read."""
    from longwave.data import baselines, genes
    from longwave.train.splits import as_task, compared

    own = setting.own
    split = genes.load(setting.context, own["genes_train"] or None, own["genes_test"] or None)

    def references() -> list[Reference]:
        return [
            compared("majority", baselines.majority(split)),
            compared("logistic", baselines.base_window_logistic(split)),
        ]

    return as_task(
        split,
        setting,
        reads=Reads(vocabulary=split.vocabulary),
        classes=Classes(split.classes, "positions"),
        validated=-(-own["eval_bases"] // setting.context),
        references=references,
        files=(own["genes_train"], own["genes_test"]),
    )
