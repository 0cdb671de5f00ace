"""Which of eight vertebrates a stretch of DNA is from."""

from __future__ import annotations

from longwave.train.task import Classes, Option, Reads, Reference, Setting, Task, accuracy_per, chance, most_validated

HELP = "tell from which of eight vertebrates DNA is"
UNIT = "base"
METRIC = accuracy_per("sequence")
CONTEXTS = (16, 32_768)
OPTIONS = (
    Option("folder", "", "one FASTA file a species (default: loci of eight vertebrates)", metavar="DIR", is_file=True),
    most_validated("sequence", 256),
)


def make(setting: Setting) -> Task:
    """Raises DataError where a file cannot be had or read."""
    from longwave.data import baselines, species
    from longwave.train.splits import as_task, compared

    own = setting.own
    split = species.load(setting.context, own["folder"] or None)

    def references() -> list[Reference]:
        return [chance(split.classes), compared("logistic", baselines.kmer_logistic(split))]

    return as_task(
        split,
        setting,
        reads=Reads(vocabulary=split.vocabulary),
        classes=Classes(split.classes, "mean"),
        validated=own["eval_sequences"],
        references=references,
        files=(own["folder"],),
    )
