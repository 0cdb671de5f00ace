"""What `longwave sparsify` measures: a causal model whose long filters keep some frequencies, with and without the leak."""

from __future__ import annotations

import copy
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longwave.bench.leak import negative_energy
from longwave.errors import ArgumentError, DataError
from longwave.masked import effective_filter
from longwave.masks import FrequencyMask
from longwave.nn.hyena import HyenaOperator
from longwave.ops.long_conv import long_conv
from longwave.train import checkpoint, evaluate, tasks
from longwave.train.heads import Trained, body_of
from longwave.train.optim import parameter_groups, set_rate
from longwave.train.options import choose_device
from longwave.train.score import loss_nats, on_device, score
from longwave.train.task import Batch, Score

KINDS = ("lowpass", "energy")
FORWARDS = 5
POSITIONS_A_STEP = 4_096  # of training through masks
TUNING_RATE = 1e-3


@dataclass(frozen=True)
class Row:
    """A model with masks that keep the fraction `keep` of the frequencies of its filters (None: without masks).

    - `leaking`: the score (of DNA: bits per base), masked as FlashFFTConv does. `cut`: the same with the effective filters'
      negative lags set to zero, so that the model is causal again. `negative_energy`: the share of their energy there.
    - `tuned_leaking`, `tuned_cut`: the same two after some steps of training through the leaking masks.
    - `forward_ms`: median of one window's forward with the leaking filters.
    """

    keep: float | None
    targets: int
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
    fasta: str | None,
    backend: str,
    device: str,
) -> Iterator[Row]:
    """The model without masks, and then with masks that keep each of the fractions.

    Args:
        path: folder of a run of `longwave train`, or weights, of a model with Hyena operators.
        keeps: fractions, above 0 and at most 1.
        kind: "lowpass", or "energy": the frequencies that hold most of the energy of each layer's filters.
        tune: steps that a copy of the model is trained on through the masks, on the data it was trained on.
        fasta: DNA to score, all records; None for the task's held-out test data (of DNA: E. coli's).
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
    config = body_of(model).config
    example = torch.zeros(1, description.context, dtype=torch.int64, device=where)
    if not config.vocabulary:
        example = torch.zeros(1, description.context, config.values, device=where)
    context, metric = description.context, tasks.find(description.task).METRIC
    if not _mixers(model):
        raise DataError(
            f"{path} holds the model {description.model!r} without Hyena operators; give a checkpoint that has some"
        )
    if tune:
        setting = evaluate.setting(description, batch=max(1, POSITIONS_A_STEP // context))
        batch = tasks.find(description.task).make(setting).batches

    def cost(model: Trained) -> Score:
        parts = evaluate.held_out(description, fasta=fasta)
        return sum((score(model, batches, device=where) for _, batches in parts), Score(0, 0.0))

    def both(model: Trained) -> tuple[float, float]:
        leaking = cost(model)
        for mixer in _mixers(model):
            mixer.conv = without_leak
        cut = cost(model)
        for mixer in _mixers(model):
            mixer.conv = long_conv
        return metric.of(leaking), metric.of(cut)

    with torch.no_grad():
        filters = [mixer.filter(min(context, mixer.filter.max_length)) for mixer in _mixers(model)]
    whole = cost(model)
    forward_ms = functools.partial(_forward_ms, model, example, where)
    yield Row(None, whole.targets, metric.of(whole), metric.of(whole), 0.0, forward_ms())
    for keep in keeps:
        masks = [_mask(kind, k, keep) for k in filters]
        effective = torch.cat([effective_filter(k, context, mask) for k, mask in zip(filters, masks, strict=True)])
        for mixer, mask in zip(_mixers(model), masks, strict=True):
            mixer.frequency_mask = mask
        leaking, cut = both(model)
        tuned: tuple[float | None, float | None] = (None, None)
        if tune:
            trained_on = copy.deepcopy(model)
            _tune(trained_on, batch, tune, where)
            tuned = both(trained_on)
        yield Row(keep, whole.targets, leaking, cut, negative_energy(effective), forward_ms(), *tuned)


def _mixers(model: Trained) -> list[HyenaOperator]:
    return [module for module in model.modules() if isinstance(module, HyenaOperator)]


def _tune(model: Trained, batch: Callable[[int], Batch], steps: int, device: torch.device) -> None:
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=TUNING_RATE)
    set_rate(optimizer, TUNING_RATE)
    model.train()
    for step in range(steps):
        nats, count, _ = loss_nats(model, on_device(batch(step), device), autocast=False)
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
def _forward_ms(model: Trained, window: Tensor, device: torch.device) -> float:
    times = []
    for _ in range(FORWARDS + 1):
        start = time.perf_counter()
        model(window)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:])
