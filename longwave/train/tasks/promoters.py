"""Promoters of the fruit fly against background of the same chromosome: two classes, 2,000 bases or those next to the gene."""

from __future__ import annotations

from longwave.train.task import Classes, Option, Reads, Reference, Setting, Task, accuracy_per, chance, most_validated

HELP = "tell promoters of the fruit fly from other DNA"
UNIT = "base"
METRIC = accuracy_per("sequence")
CONTEXTS = (16, 2_000)
OPTIONS = (
    Option("upstream", "", "FASTA file of promoters (default: dm3's upstream2000)", metavar="FILE", is_file=True),
    Option("chromosome", "", "FASTA file of the chromosome they are on (default: dm3's chr2R)", metavar="FILE", is_file=True),
    most_validated("sequence", 128),
)


def make(setting: Setting) -> Task:
    """Raises DataError where a file cannot be had or read."""
    from longwave.data import baselines, promoters
    from longwave.train.splits import as_task, compared

    own = setting.own
    split = promoters.load(own["upstream"] or None, own["chromosome"] or None, length=setting.context)

    def references() -> list[Reference]:
        return [chance(split.classes), compared("logistic", baselines.kmer_logistic(split))]

    return as_task(
        split,
        setting,
        reads=Reads(vocabulary=split.vocabulary),
        classes=Classes(split.classes, "mean"),
        validated=own["eval_sequences"],
        references=references,
        files=(own["upstream"], own["chromosome"]),
    )
