"""What `longwave sparsify` measures: a causal model whose long filters keep some frequencies, with and without the leak."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longwave.bench.leak import negative_energy
from longwave.data import dna, fasta, genome
from longwave.errors import ArgumentError, DataError
from longwave.masked import effective_filter
from longwave.masks import FrequencyMask
from longwave.models import SequenceModel
from longwave.nn.hyena import HyenaOperator
from longwave.ops.long_conv import long_conv
from longwave.train import checkpoint
from longwave.train.optim import parameter_groups
from longwave.train.options import choose_device
from longwave.train.score import Score, loss_nats, score

KINDS = ("lowpass", "energy")
FORWARDS = 5
BASES_A_STEP = 4_096  # of training through masks
TUNING_RATE = 1e-3


@dataclass(frozen=True)
class Row:
    """A model with masks that keep the fraction `keep` of the frequencies of its filters (None: without masks).

    - `leaking`: bits per base, masked as FlashFFTConv does. `cut`: the same with the effective filters' negative lags set to
      zero, so that the model is causal again. `negative_energy`: the share of the effective filters' energy there.
    - `tuned_leaking`, `tuned_cut`: the same two after some steps of training through the leaking masks.
    - `forward_ms`: median of one window's forward with the leaking filters.
    """

    keep: float | None
    bases: int
    leaking: float
    cut: float
    negative_energy: float
    forward_ms: float
    tuned_leaking: float | None = None
    tuned_cut: float | None = None


def without_leak(u: Tensor, k: Tensor, *rest: Tensor, frequency_mask: FrequencyMask | None = None, **options: Any) -> Tensor:
    """`long_conv` in mode "causal" with the effective filter's lags from 0 on: masked, and causal all the same."""
    if frequency_mask is not None:
        L = u.shape[-1] if options.get("layout", "BHL") == "BHL" else u.shape[-2]
        k = effective_filter(k, L, frequency_mask)[..., L - 1 :]
    return long_conv(u, k, *rest, **options)


def rows(
    path: Path,
    keeps: Sequence[float],
    *,
    kind: str = "lowpass",
    tune: int = 0,
    fasta_path: str | None,
    backend: str,
    device: str,
) -> Iterator[Row]:
    """The model without masks, and then with masks that keep each of the fractions.

    Args:
        path: folder of a run of `longwave train dna`, or weights.
        keeps: fractions, above 0 and at most 1.
        kind: "lowpass", or "energy": the frequencies that hold most of the energy of each layer's filters.
        tune: steps that a copy of the model is trained on through the masks, on E. coli's training bases.
        fasta_path: what is scored, all records; None for the held-out test bases of the embedded genome.
        backend, device: as in training.

    Raises:
        ArgumentError: an option is out of range.
        DataError: the checkpoint or the file cannot be used, or its model has no long filters of Hyena.
    """
    if kind not in KINDS:
        raise ArgumentError(f"--mask must be one of {', '.join(KINDS)}, but {kind!r} was given")
    if tune < 0:
        raise ArgumentError(f"--tune must be at least 0 steps, but {tune} was given")
    for keep in keeps:
        FrequencyMask.lowpass(keep)  # refuses a fraction that is none
    where = choose_device(device)
    model, description = checkpoint.load_model(path, backend=backend, device=where)
    context = description.context
    if not _mixers(model):
        raise DataError(
            f"{path} holds the model {description.model!r} without Hyena operators; give a checkpoint that has some"
        )
    split = dna.split([genome.ecoli()], context)
    records = [record.codes for record in fasta.read_fasta(fasta_path)] if fasta_path else [split.test]
    windows = dna.Windows(split.train, context, max(1, BASES_A_STEP // context), seed=0)

    def bits(model: SequenceModel) -> Score:
        costs = [score(model, codes, context, overlap=context // 2, device=where) for codes in records]
        return sum(costs[1:], costs[0])

    with torch.no_grad():
        filters = [mixer.filter(min(context, mixer.filter.max_length)) for mixer in _mixers(model)]
    whole = bits(model)
    yield Row(None, whole.bases, whole.bits_per_base, whole.bits_per_base, 0.0, _forward_ms(model, context, where))
    for keep in keeps:
        masks = [_mask(kind, k, keep) for k in filters]
        effective = torch.cat([effective_filter(k, context, mask) for k, mask in zip(filters, masks, strict=True)])
        for mixer, mask in zip(_mixers(model), masks, strict=True):
            mixer.frequency_mask = mask
        leaking, cut = _both(model, bits)
        tuned: tuple[float | None, float | None] = (None, None)
        if tune:
            trained_on = copy.deepcopy(model)
            _tune(trained_on, windows, tune, where)
            tuned = _both(trained_on, bits)
        yield Row(keep, whole.bases, leaking, cut, negative_energy(effective), _forward_ms(model, context, where), *tuned)


def _mixers(model: SequenceModel) -> list[HyenaOperator]:
    return [module for module in model.modules() if isinstance(module, HyenaOperator)]


def _both(model: SequenceModel, bits: Callable[[SequenceModel], Score]) -> tuple[float, float]:
    """Bits per base with the leak and without it."""
    leaking = bits(model)
    for mixer in _mixers(model):
        mixer.conv = without_leak
    cut = bits(model)
    for mixer in _mixers(model):
        mixer.conv = long_conv
    return leaking.bits_per_base, cut.bits_per_base


def _tune(model: SequenceModel, windows: dna.Windows, steps: int, device: torch.device) -> None:
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=TUNING_RATE)
    model.train()
    for step in range(steps):
        tokens = windows.batch(step).to(device)
        nats, count = loss_nats(model, tokens[:, :-1], tokens[:, 1:], autocast=False)
        optimizer.zero_grad(set_to_none=True)
        (nats / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


def _mask(kind: str, k: Tensor, keep: float) -> FrequencyMask:
    if kind == "energy":
        return FrequencyMask.from_energy(k, keep, leaks_future=True)
    return FrequencyMask.lowpass(keep, leaks_future=True)


@torch.no_grad()
def _forward_ms(model: SequenceModel, context: int, device: torch.device) -> float:
    tokens = torch.randint(0, 4, (1, context), device=device)
    times = []
    for _ in range(FORWARDS + 1):
        start = time.perf_counter()
        model(tokens)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:])
