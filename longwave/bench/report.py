"""A run as an aligned table for the terminal, and as Markdown: both from the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from longwave.bench.cases import Case
from longwave.bench.contestants import FLOOR, LONGWAVE, RIVAL
from longwave.bench.record import CaseResult, Entry, Run
from longwave.bench.timer import Spread, ratio

NOTHING = "–"
LEGEND = (
    "ms: median of rounds in turns, ± half the interquartile range; filter transform and result allocation inside.",
    "× rival: median over rounds of the fastest rival's time over ours. copies: our time over empty_like(u).copy_(u).",
    "GB/s: arguments read once and results written once, over our time. MiB: peak extra memory of a call, results too.",
    "error: the largest relative L2 of the results against float64; a result above its bound is FAILED and not timed.",
    "Of more than 2^25 samples some channels are compared. CUDA: times by its events; a cached filter's spectrum is not timed.",
)


class Table:
    """Rows of text for runs with these contestants: one row for each case and each of longwave's backends."""

    def __init__(self, ours: Sequence[str], rivals: Sequence[str], floors: Sequence[str], cases: Iterable[Case]) -> None:
        self.ours, self.rivals, self.floors = list(ours), list(rivals), list(floors)
        self.header = [
            "case",
            "backend",
            "ms",
            "±",
            *(f"{name} ms" for name in (*self.rivals, *self.floors)),
            "× rival",
            "copies",
            "GB/s",
            "MiB",
            "rival MiB",
            "error",
        ]
        widest = max((len(case.name) for case in cases), default=4)
        self.widths = [
            widest,
            max(len(name) for name in ("backend", *ours)),
            *(max(8, len(h)) for h in self.header[2:]),
        ]

    @classmethod
    def of(cls, run: Run) -> Table:
        cases = [result.case for result in run.results]
        return cls(run.names(LONGWAVE), run.names(RIVAL), run.names(FLOOR), cases)

    def rows(self, result: CaseResult) -> list[list[str]]:
        return [self._row(result, entry) for entry in result.of_kind(LONGWAVE)]

    def _row(self, result: CaseResult, ours: Entry) -> list[str]:
        by_name = {entry.name: entry for entry in result.entries}
        others = [_ms(by_name[name]) if name in by_name else NOTHING for name in (*self.rivals, *self.floors)]
        rival = fastest(result.of_kind(RIVAL))
        return [
            result.case.name,
            ours.name.removeprefix("longwave:"),
            _ms(ours),
            _number(Spread.of(ours.seconds).iqr / 2 * 1e3) if ours.seconds else NOTHING,
            *others,
            f"{ratio(ours.seconds, rival.seconds):.2f}" if ours.seconds and rival else NOTHING,
            _copies(ours, by_name.get("copy")),
            _number(result.case.bytes_moved / Spread.of(ours.seconds).median / 1e9) if ours.seconds else NOTHING,
            _mib(ours.extra_bytes),
            _mib(rival.extra_bytes if rival else None),
            f"{max(ours.errors.values()):.1e}" if ours.errors else NOTHING,
        ]

    def line(self, cells: Sequence[str]) -> str:
        text = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, self.widths, strict=True))
        ]
        return "  ".join(text).rstrip()


def fastest(entries: Iterable[Entry]) -> Entry | None:
    """The entry with the smallest median time, or None where nobody was timed."""
    timed = [entry for entry in entries if entry.seconds]
    return min(timed, key=lambda entry: Spread.of(entry.seconds).median, default=None)


def failures(result: CaseResult) -> list[str]:
    """One line for each contestant that has no time, saying why."""
    return [
        f"  {entry.name} {'refuses' if entry.refused else 'FAILED'}: {entry.failure}"
        for entry in result.entries
        if entry.failure
    ]


def as_text(run: Run) -> str:
    """The whole run for a terminal: stamp, table, failures, legend."""
    table = Table.of(run)
    lines = [*heading(run), "", table.line(table.header)]
    for result in run.results:
        lines += [table.line(row) for row in table.rows(result)] + failures(result)
    return "\n".join([*lines, "", *LEGEND])


def heading(run: Run) -> list[str]:
    """The stamp, who is absent, and a warning where the machine was busy."""
    return [*run.stamp.lines, *_remarks(run)]


def _remarks(run: Run) -> list[str]:
    remarks = [f"{name}: {reason}" for name, reason in run.absent.items()]
    if run.stamp.busy:
        remarks.append(f"the machine was busy (load {run.stamp.load:.1f} on {run.stamp.cores} cores): do not trust these times")
    return remarks


def as_markdown(run: Run) -> str:
    """The whole run as a Markdown table with its stamp below."""
    table = Table.of(run)
    lines = ["| " + " | ".join(table.header) + " |", "|" + "---|" * 2 + "---:|" * (len(table.header) - 2)]
    for result in run.results:
        lines += ["| " + " | ".join(row) + " |" for row in table.rows(result)]
    failed = [f"- {line.strip()}" for result in run.results for line in failures(result)]
    machine, software, command = run.stamp.lines
    stamp = [f"`{command}`", "", ". ".join([machine, software, *_remarks(run)]) + "."]
    return "\n".join([*lines, "", *failed, *[""] * bool(failed), *stamp, "", " ".join(LEGEND)])


def _ms(entry: Entry) -> str:
    if entry.seconds:
        return _number(Spread.of(entry.seconds).median * 1e3)
    return "refuses" if entry.refused else "FAILED"


def _copies(ours: Entry, copy: Entry | None) -> str:
    if copy is None or not copy.seconds or not ours.seconds:
        return NOTHING
    return _number(1 / ratio(ours.seconds, copy.seconds))


def _mib(extra_bytes: int | None) -> str:
    return "n/a" if extra_bytes is None else f"{extra_bytes / 2**20:.1f}"


def _number(value: float) -> str:
    """Three significant digits, never an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    digits = 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 4
    return f"{value:.{digits}f}"
