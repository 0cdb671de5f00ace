"""Music: the next sample, one of 256 levels at 8 kHz."""

from __future__ import annotations

from longwave.train.task import Option, Reads, Reference, Setting, Task, bits_per, most_validated

HELP = "predict the next sample of music"
UNIT = "sample"
METRIC = bits_per("sample")
CONTEXTS = (64, 1_048_576)
OPTIONS = (
    Option("wav", "", "WAV file of 16-bit samples (default: five pieces of music at 8 kHz)", metavar="FILE", is_file=True),
    most_validated("sample", 131_072),
)


def make(setting: Setting) -> Task:
    """Raises DataError where a file cannot be had or read, or is too short."""
    from longwave.data import audio, baselines
    from longwave.train.splits import as_task, compared

    path = setting.own["wav"]
    split = audio.load(setting.context, [path] if path else None)

    def references() -> list[Reference]:
        return [Reference("uniform", "uniform", 8.0, 8.0), compared("ngram", baselines.ngram_bits(split))]

    return as_task(
        split,
        setting,
        reads=Reads(vocabulary=audio.LEVELS, predicted=audio.LEVELS, causal=True),
        classes=None,
        validated=-(-setting.own["eval_samples"] // setting.context),
        references=references,
        files=(path,),
    )
