"""One case at a time: operands, truth, the gate for every contestant, then timing in turns, then memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from longwave.bench.cases import Case
from longwave.bench.contestants import FLOOR, Call, Contestant
from longwave.bench.formula import Arrays
from longwave.bench.gate import judge
from longwave.bench.memory import peak_extra_bytes
from longwave.bench.record import CaseResult, Entry
from longwave.bench.timer import MIN_ROUNDS, Timer, alternate
from longwave.bench.truth import checked_channels, exact, make_arrays, of_channels
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

    Returns a CaseResult; an entry that failed the gate, or broke, has no times. Raises ArithmeticError when the truth is wrong.
    """
    operands = make_arrays(case, device=device)
    channels = checked_channels(case)
    part = case if channels is None else replace(case, H=len(channels))
    given = {name: x for name, x in operands._asdict().items() if x is not None}
    chosen = Arrays(**dict.fromkeys(Arrays._fields) | of_channels(case, given, channels))
    truth = exact(part, chosen)
    entries: dict[str, Entry] = {}
    calls: dict[str, Call] = {}
    for contestant in field:
        entry = Entry(contestant.name, contestant.kind)
        try:
            call = contestant.bind(case, operands)
            results = of_channels(case, call(), channels)
            if contestant.kind != FLOOR:
                verdict = judge(part, results, truth, contestant.backend)
                entry = replace(entry, errors=verdict.errors, bounds=verdict.bounds, failure=verdict.failure)
            if not entry.failure:
                calls[contestant.name] = call
        except UnsupportedError as error:
            entry = replace(entry, failure=str(error), refused=True)
        except torch.OutOfMemoryError:
            entry = replace(entry, failure=f"needs more memory than {device} has at this shape", refused=True)
        except Exception as error:  # whatever a contestant breaks on, the others have their times
            entry = replace(entry, failure=f"breaks: {type(error).__name__}: {' '.join(str(error).split())[:400]}")
        entries[contestant.name] = entry
    del truth  # hundreds of megabytes that the peak of memory would otherwise be measured on top of
    for name, readings in alternate(calls, timer, rounds=rounds, seconds=seconds).items():
        entries[name] = replace(entries[name], seconds=readings)
    for name, call in calls.items():
        entries[name] = replace(entries[name], extra_bytes=peak_extra_bytes(call, device))
    return CaseResult(case, list(entries.values()))
