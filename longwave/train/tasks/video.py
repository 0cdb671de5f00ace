"""Moving MNIST: every pixel of the next frame."""

from __future__ import annotations

from longwave.train.task import Classes, Option, Reads, Reference, Setting, Task, bits_per, most_validated

HELP = "predict the next frame of flying digits"
UNIT = "frame"
METRIC = bits_per("pixel")
CONTEXTS = (2, 4_096)
OPTIONS = (
    Option("side", 32, "pixels of a frame's side: 16, 32 or 64 (default: 32)", choices=(16, 32, 64)),
    Option("moving", 2, "digits in a frame, 1 to 8 (default: 2)", least=1),
    Option("digits", "", "CSV file of 784 pixels and a label a line (default: 5,000 of MNIST)", metavar="FILE", is_file=True),
    Option("test_videos", 200, "videos of the test (default: 200)", metavar="VIDEOS", least=1),
    most_validated("pixel", 524_288),
)


def make(setting: Setting) -> Task:
    """Raises DataError where the file cannot be had or read, ArgumentError where there are too many digits."""
    from longwave.data import baselines, moving
    from longwave.train.splits import as_task, compared

    own = setting.own
    pixels = own["side"] ** 2
    split = moving.load(setting.context, own["side"], own["moving"], own["test_videos"], own["digits"] or None)

    def references() -> list[Reference]:
        return [compared("copy", baselines.copied_frame_bits(split)), compared("linear", baselines.frame_window_bits(split))]

    return as_task(
        split,
        setting,
        reads=Reads(values=pixels),
        classes=Classes(split.classes, "positions", places=pixels),
        validated=-(-own["eval_pixels"] // (setting.context * pixels)),
        references=references,
        files=(own["digits"],),
    )
