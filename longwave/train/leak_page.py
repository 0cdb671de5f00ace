"""`docs/frequency_masks.md`: how much of the future a masked causal filter reads, from measured rows."""

from __future__ import annotations

from collections.abc import Sequence

from longwave.bench.leak import Leak
from longwave.bench.stamp import Stamp
from longwave.train.checkpoint import Description
from longwave.train.sparsify import Row

LENGTHS = (256, 1_024)
KEEPS = (0.75, 0.5, 0.25, 0.1)

_INTRODUCTION = """\
# Frequency masks, and what they do to causality

This page is written by a command; to change it, change longwave and run the command again.

    {command}

{machine}. {software}.

`long_conv(..., frequency_mask=mask)` keeps some frequencies of the filters and drops the others. It convolves with the
*effective filter*, the projection of the filter onto the frequencies kept ([math.md](math.md) has the derivation), and that
has **lags of both signs, whatever the filter was**: in a causal convolution every output then depends on later inputs.

For `circular` and `same` convolutions and with `k_rev` nothing is lost: they look both ways anyway. A **causal model** is
another matter. Trained through such a filter, it can read part of what it is to predict, and its score is no longer one. So
`mode="causal"` and `mode="full"` refuse a mask unless it was made with `leaks_future=True`.
"""

_NOISE = """\
## White noise

Inputs v of independent samples, of which the next cannot be predicted at all. *Best*: the correlation of y[t] with v[t+1]
under the causal filter for which a low-pass mask makes it largest, of those with moderate taps; without that limit it is
√(kept), 0.71 with one half and 0.50 with a quarter. *Energy at negative lags*: the share of the effective filter's energy
there, when the taps are N(0,1) (*random*), the same decaying to e⁻³² over the length (*decaying*), or a single tap at lag 0
(*single*). The leak stands next to lag 0: a filter that has much there leaks most.
"""

_MODEL = """\
## A trained model

The preset `{preset}` of {model}, {step:,} steps with a context of {context:,} on {source}, trained without masks:

    {train}

Every filter of it is then masked ({mask}), and {bases:,} bases are scored. *Leaking*: with the effective filters as they are,
which is how frequency-sparse convolutions are judged. *Leak cut off*: the same filters with their negative lags set to zero, a
causal model again.{tuned}
"""

_TUNED = """ *Trained on*: the same model after {steps:,} more steps through its leaking masks, which lets it use what it
sees; scored with the leak, and then without. The row of everything kept is the control."""

_READING = """\
## How to read "no loss with 75 % zeros"

FlashFFTConv (arXiv 2311.05908, its section on frequency-sparse convolutions) drops up to three quarters of the frequencies of
HyenaDNA's filters, which are causal, and reports no loss of quality. Such a score is that of a model whose filters look ahead.
A model that was trained without the mask has not learned to use what it then sees, so that its score need not be too good;
but it is not the score of a causal model either, and as soon as a model is trained or tuned through the mask, it can be better
than any causal model could be: DNA at a fraction of a bit per base is a model that reads the base it is asked for. Compare
the columns with the leak cut off. With filters that are two-sided to begin with, the question does not arise.
"""


def train_command(preset: str, context: int, step: int) -> str:
    """The command that trains such a model anew."""
    return f"longwave train dna --preset {preset} --context {context} --steps {step} --out RUN"


def as_markdown(stamp: Stamp, leaks: Sequence[Leak], about: Description, rows: Sequence[Row], *, mask: str, tune: int) -> str:
    """The page. Returns Markdown, newline at the end."""
    machine, software, command = stamp.lines
    noise = [
        [f"{x.length:,}", f"{x.keep:g}", f"{x.best:.2f}", *(f"{share:.1%}" for share in (x.random, x.decaying, x.single))]
        for x in leaks
    ]
    header = ["samples", "kept", "best: correlation with the next", "energy at negative lags: random", "decaying", "single"]
    model = _MODEL.format(
        preset=about.preset,
        model=about.model,
        step=about.step,
        context=about.context,
        source=about.data.get("source", "unknown data"),
        train=train_command(about.preset, about.context, about.step),
        mask=mask,
        bases=rows[0].targets,
        tuned=_TUNED.format(steps=tune) if tune else "",
    )
    parts = [
        _INTRODUCTION.format(command=command, machine=machine, software=software),
        _NOISE,
        _table(header, noise),
        model,
        _table(*_scores(rows)),
        _READING,
    ]
    return "\n".join(parts)


def _scores(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    tuned = any(row.tuned_cut is not None for row in rows)
    header = ["kept", "bits per base, leaking", "leak cut off", "energy at negative lags"]
    header += ["trained on, leaking", "then cut off"] * tuned
    body = [
        [
            "all, no mask" if row.keep is None else f"{row.keep:g}",
            f"{row.leaking:.4f}",
            "" if row.keep is None else f"{row.cut:.4f}",
            "" if row.keep is None else f"{row.negative_energy:.2%}",
            *(["" if bits is None else f"{bits:.4f}" for bits in (row.tuned_leaking, row.tuned_cut)] * tuned),
        ]
        for row in rows
    ]
    return header, body


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)]) + "\n"
