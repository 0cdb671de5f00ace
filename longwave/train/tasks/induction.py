"""Induction heads: what followed a special token when it came before."""

from __future__ import annotations

from longwave.train.task import Option, Reads, Setting, Task, accuracy_per, chance, most_validated

HELP = "repeat the token that followed a special one before"
UNIT = "token"
METRIC = accuracy_per("question")
CONTEXTS = (4, 131_072)
OPTIONS = (
    Option("vocabulary", 20, "tokens, 3 to 256 (default: 20)", least=3),
    Option("test_questions", 1_000, "questions of the test (default: 1000)", metavar="QUESTIONS", least=1),
    most_validated("question", 200),
)


def make(setting: Setting) -> Task:
    """Raises ArgumentError where the vocabulary is out of range."""
    from longwave.data import recall
    from longwave.train.splits import as_task

    words = setting.own["vocabulary"]
    return as_task(
        recall.load_induction(setting.context, words, setting.own["test_questions"]),
        setting,
        reads=Reads(vocabulary=words, predicted=words),
        classes=None,
        validated=setting.own["eval_questions"],
        references=lambda: [chance(words - 1)],
    )
