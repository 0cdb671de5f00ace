"""`docs/numerics.md`: what is promised, what is measured, and what is not reached, from measured rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from longwave.bench.numerics import DTYPES, PLAIN_KIND, QUANTITIES, MutantRow, Row
from longwave.bench.stamp import Stamp
from longwave.bench.tolerances import CONTRACTS, LONG

_INTRODUCTION = """\
# How exact the results are

This page is written by a command; to change it, change longwave and run the command again.

    {command}

{machine}. {software}.

## What is promised

Errors are relative, ‖result − truth‖₂ / ‖truth‖₂, over the whole result; the truth is float64 (for float64 itself: the
platform's extended precision, 64 bits of significand on x86). 16-bit tensors are computed with in float32 and rounded once,
when they are stored; `k`, `D` and their gradients are float32 beside them. N is the number of samples that meet in one number.

{contracts}

Each sample of a result also has a bound of its own, |err_t| ≤ ½ulp(y_t) + c·‖v‖·‖k‖, c as in the table (2⁻²⁹ of it for
float64). With a postgate it is scaled by |postgate|. The numbers, each with where it comes from, stand in
`longwave/bench/tolerances.py`, which the tests and the gate of `longwave bench` read too.
"""

_LENGTHS = """\
## By length: operands N(0,1), the filter divided by √K

Causal, K = L, both gates and `D`, forward and backward. `torch.fft` is the formula with `rfft` under autograd in the same
run; `rounding` is the exact result rounded once, below which nothing stored can come. *of bound*: the largest of the six
errors over its own bound (above 1 the promise is broken); *point*: the same for the single samples of `y`. `dD` is one sum
of B·L terms of either sign: where they happen to cancel, its relative error grows.
"""

_KINDS = """\
## By kind of input

The same, with one thing changed: a filter that decays to e⁻⁵⁰ over its length, a `u` with a mean of 20 (and a `pregate`
of 1 ± 0.1, which keeps it), `u`, `k` and `D` scaled by 1e-2 and by 1e-3 (float16 then has results among its subnormal
numbers, where rounding itself costs more), and filters of few taps. On the `cpu` backend 16 taps are summed as they stand
(`direct`), 256 and, at a million samples, 1,024 go in `windows`; in the tables above rows to 14,113 samples are `fused`, and
from 65,536 on `six_step`. The one `dD` of 16 taps at a million samples happens to cancel nearly to nothing: no arithmetic of
the same precision holds a relative bound there, and none of the three does.
"""

_MUTANTS = """\
## What the bounds refuse

Broken operators, N(0,1) data, K = L: their error by length, and how many times the loosest backend's bound it is at the last
length. What is below 1 would pass: a bound by L2 cannot see there what the dtype cannot hold.
"""


def as_markdown(stamp: Stamp, rows: Sequence[Row], mutants: Sequence[MutantRow]) -> str:
    """The page, from the rows of `numerics.rows` and `numerics.mutant_rows`. Returns Markdown, newline at the end."""
    machine, software, command = stamp.lines
    backends = _backends(rows)
    parts = [
        _INTRODUCTION.format(command=command, machine=machine, software=software, contracts=_contracts(backends)),
        _LENGTHS,
        *_by_dtype([row for row in rows if row.kind == PLAIN_KIND], "length", lambda row: f"{row.length:,}"),
    ]
    kinds = [row for row in rows if row.kind != PLAIN_KIND]
    if kinds:
        parts += [_KINDS, *_by_dtype(kinds, "input", lambda row: f"{row.kind}, {row.length:,}")]
    parts += [_MUTANTS, _mutant_table(mutants), "## What is not reached\n", _unreached(rows, mutants)]
    return "\n".join(parts)


def _backends(rows: Iterable[Row]) -> list[str]:
    sides = dict.fromkeys(row.side for row in rows)
    return [side.removeprefix("longwave:") for side in sides if side.startswith("longwave:")]


def _contracts(backends: Sequence[str]) -> str:
    header = ["backend", "float64", f"float32, N ≤ {LONG:,}", "beyond", "16-bit: × rounding", "c"]
    body = []
    for name in backends:
        promise = CONTRACTS[name]
        body.append(
            [
                f"`{name}`",
                f"{promise.float64_per_root_log:.0e}·√log₂N",
                f"{promise.float32_short:.0e}",
                f"{promise.float32_long:.0e}",
                f"{promise.rounding_factor:g}",
                f"{promise.pointwise_float32:.0e}",
            ]
        )
    return _table(header, body)


def _by_dtype(rows: Sequence[Row], first: str, label: Callable[[Row], str]) -> list[str]:
    parts = []
    for dtype in DTYPES:
        body = [
            [
                label(row),
                row.side,
                *(f"{row.errors[name]:.1e}" for name in QUANTITIES),
                _share(row.worst),
                _share(row.worst_point),
            ]
            for row in rows
            if row.dtype == dtype
        ]
        if body:
            parts.append(f"### {dtype}\n\n{_table([first, 'side', *QUANTITIES, 'of bound', 'point'], body)}\n")
    return parts


def _mutant_table(mutants: Sequence[MutantRow]) -> str:
    lengths, dtypes = list(mutants[0].errors), list(mutants[0].misses)
    header = ["broken", "result", *(f"error at {length:,}" for length in lengths), *(f"× bound, {name}" for name in dtypes)]
    body = [
        [
            row.name,
            row.quantity,
            *(f"{row.errors[length]:.1e}" for length in lengths),
            *(f"{row.misses[name]:.2g}" if row.misses[name] < 100 else f"{row.misses[name]:.0e}" for name in dtypes),
        ]
        for row in mutants
    ]
    return _table(header, body) + "\n"


def _unreached(rows: Sequence[Row], mutants: Sequence[MutantRow]) -> str:
    lines = []
    for row in rows:
        share = max(row.worst or 0.0, row.worst_point or 0.0)
        if share > 1:
            place = f"{row.dtype}, {row.length:,} samples, {row.kind}"
            lines.append(f"- `{row.side}`, {place}: {share:.2f} times its bound.")
    lines += [
        f"- {row.name} is not seen in {dtype} at {max(row.errors):,} samples ({miss:.2f} of the bound)."
        for row in mutants
        for dtype, miss in row.misses.items()
        if miss <= 1
    ]
    return "\n".join(lines or ["Every bound above was held, and every broken operator refused."]) + "\n"


def _share(value: float | None) -> str:
    if value is None:
        return ""
    return f"**{value:.2f}**" if value > 1 else f"{value:.2f}"


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])
