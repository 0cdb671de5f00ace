"""Train on windows of 65,536 bases; read 4,194,304 bases at once with the same weights.

A Hyena model's filters have as many taps as its training context, and nothing else in it knows a position: a longer input
meets the same filters, which are then much shorter than it (a partial convolution). So FlashFFTConv (arXiv 2311.05908,
section 4.4) embeds the longest human genes, 2.3 million bases, with a model of a million.

The model trains on the first 744,616 bases of E. coli 536. The other 4,194,304, of which it has seen none, are scored four
times: in windows of 65,536, which is what a model limited to its context can do, and in 4, 16 and 64 times longer ones.
Within a window everything is seen; nothing is carried from one window into the next.

    python examples/extend_context.py            # minutes to train and minutes to score, on two cores
    python examples/extend_context.py --quick    # seconds, on less of everything: whether it runs, not what it learns
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time

import torch

from longwave.bench.memory import peak_extra_bytes
from longwave.data import dna, genome
from longwave.data.codes import UNKNOWN, Codes
from longwave.models.hyena import PRESETS, HyenaLM
from longwave.train.optim import learning_rate, make_optimizer, set_rate
from longwave.train.score import loss_nats, score
from longwave.train.stretches import consecutive, shifted
from longwave.train.task import Score

CPU = torch.device("cpu")
PEAK_RATE = 6e-3


def train(model: HyenaLM, codes: Codes, context: int, steps: int) -> None:
    """One random window a step."""
    windows = dna.Windows(codes, context, batch_size=1)
    optimizer = make_optimizer(model, lr=PEAK_RATE, weight_decay=0.1)
    began, nats, bases = time.perf_counter(), 0.0, 0
    for step in range(steps):
        set_rate(optimizer, learning_rate(step, peak=PEAK_RATE, warmup=steps // 20, steps=steps))
        loss, count, _ = loss_nats(model, shifted(windows.batch(step), unknown=UNKNOWN), autocast=False)
        optimizer.zero_grad()
        (loss / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        nats, bases = nats + loss.item(), bases + int(count)
        if (step + 1) % max(1, steps // 8) == 0:
            seconds = time.perf_counter() - began
            print(f"step {step + 1:,}/{steps:,}: {nats / bases / math.log(2):.4f} bits per base, {seconds:,.0f} s", flush=True)
            nats, bases = 0.0, 0


def table(model: HyenaLM, codes: Codes, lengths: list[int]) -> None:
    """The same bases in windows of every length, the shortest first: the others are compared with it."""
    print(f"\n{len(codes):,} held-out bases\nwindow       windows  bits per base  against the first  s a window  peak memory")
    first = math.nan
    for length in lengths:
        scores: list[Score] = []
        began = time.perf_counter()
        windows = consecutive(codes, length, start=UNKNOWN, unknown=UNKNOWN)
        peak = peak_extra_bytes(lambda: scores.append(score(model, windows, device=CPU)))  # noqa: B023
        seconds = (time.perf_counter() - began) * length / len(codes)
        bits = scores[0].mean_bits
        first = bits if length == lengths[0] else first
        memory = "unknown" if peak is None else f"{peak / 2**20:,.0f} MiB"
        print(
            f"{length:<10,d}{len(codes) // length:>10,d}{bits:>15.5f}{bits - first:>+19.5f}{seconds:>12.2f}{memory:>13}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in seconds")
    parser.add_argument("--steps", type=int, help="windows to train on (150; with --quick 3)")
    options = parser.parse_args()
    context, width, steps, held_out = (1_024, 16, 3, 2**16) if options.quick else (65_536, 64, 150, 2**22)
    steps = steps if options.steps is None else options.steps

    codes = genome.ecoli().codes
    torch.manual_seed(0)
    # The shortest filter has fallen to 1/100 after 256 bases, the longest not within the context; their networks have
    # features that vary as fast as the shortest need.
    config = dataclasses.replace(
        PRESETS["tiny"], d_model=width, d_inner=4 * width, filter_length=context, filter_features=129, filter_frequency=30.0,
        filter_fast_decay=256 / context,
    )  # fmt: skip
    model = HyenaLM(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters:,} parameters, filters of {context:,} taps, trained on {len(codes) - held_out:,} bases")
    train(model, codes[:-held_out], context, steps)
    table(model.eval(), codes[-held_out:], [context, 4 * context, 16 * context, 64 * context])


if __name__ == "__main__":
    main()
