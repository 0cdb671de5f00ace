"""One case at a time: operands, truth, the gate for every contestant, then timing in turns, then memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from longwave.bench.cases import Case
from longwave.bench.contestants import FLOOR, Call, Contestant
from longwave.bench.gate import judge
from longwave.bench.memory import peak_extra_bytes
from longwave.bench.record import CaseResult, Entry
from longwave.bench.timer import MIN_ROUNDS, Timer, alternate
from longwave.bench.truth import exact, make_operands
from longwave.errors import UnsupportedError


def measure(
    case: Case,
    field: Sequence[Contestant],
    timer: Timer,
    *,
    rounds: int = MIN_ROUNDS,
    seconds: float = 0.0,
    device: str = "cpu",
) -> CaseResult:
    """Measures one case.

    - `field`: who takes part, in the order of their turns. `rounds`, `seconds`: as in `timer.alternate`.

    Returns a CaseResult; an entry that failed the gate has no times. Raises ArithmeticError when the truth is wrong.
    """
    operands = make_operands(case, device=device)
    truth = exact(case, operands)
    entries: dict[str, Entry] = {}
    calls: dict[str, Call] = {}
    for contestant in field:
        call = contestant.bind(case, operands)
        entry = Entry(contestant.name, contestant.kind)
        if contestant.kind != FLOOR:
            try:
                verdict = judge(case, call(), truth, contestant.backend)
                entry = replace(entry, errors=verdict.errors, bounds=verdict.bounds, failure=verdict.failure)
            except UnsupportedError as error:
                entry = replace(entry, failure=str(error), refused=True)
        entries[contestant.name] = entry
        if not entry.failure:
            calls[contestant.name] = call
    del truth  # hundreds of megabytes that the peak of memory would otherwise be measured on top of
    for name, readings in alternate(calls, timer, rounds=rounds, seconds=seconds).items():
        entries[name] = replace(entries[name], seconds=readings)
    for name, call in calls.items():
        entries[name] = replace(entries[name], extra_bytes=peak_extra_bytes(call, device))
    return CaseResult(case, list(entries.values()))
