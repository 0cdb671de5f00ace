"""What `longwave generate` does: a prompt is read once, then bases are drawn one by one from what the model predicts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave.data import fasta
from longwave.data.codes import ALPHABET, Codes, encode
from longwave.errors import ArgumentError
from longwave.models import SequenceModel
from longwave.train import checkpoint
from longwave.train.optional import need
from longwave.train.options import choose_device


def bases(
    path: Path, *, prompt: str | None, fasta_path: str | None, length: int, temperature: float, top_k: int | None, seed: int,
    backend: str, device: str,
) -> Iterator[str]:  # fmt: skip
    """`length` bases after the prompt, one at a time.

    Args:
        path: folder of a run, or weights.
        prompt, fasta_path: letters of DNA, or a file whose first record is the prompt; one of them.
        temperature: what logits are divided by; 0 takes the likeliest base.
        top_k: draw among so many of the likeliest bases; None for all.
        seed: of the generator: equal seeds give equal bases.
        backend, device: as in training.

    Raises:
        ArgumentError: an option is out of range.
        DataError: the checkpoint or the file cannot be used.
    """
    if length < 1:
        raise ArgumentError(f"--length {length} is no number of bases; give at least 1")
    if not 0 <= temperature < float("inf"):
        raise ArgumentError(f"--temperature {temperature:g} is none; give 0 (the likeliest base) or more")
    if top_k is not None and top_k < 1:
        raise ArgumentError(f"--top-k {top_k} leaves nothing to draw from; give at least 1")
    if (prompt is None) == (fasta_path is None):
        raise ArgumentError("generation continues a prompt; give one of --prompt ACGT… and --fasta FILE")
    codes = encode(prompt) if prompt is not None else next(iter(fasta.read_fasta(str(fasta_path)))).codes
    if not len(codes):
        raise ArgumentError("the prompt is empty; give at least one base")
    where = choose_device(device)
    model, _ = checkpoint.load_model(path, device=where)
    yield from drawn(model, codes, length, temperature=temperature, top_k=top_k, seed=seed, backend=backend)


@torch.no_grad()
def drawn(
    model: SequenceModel, codes: Codes, length: int, *, temperature: float, top_k: int | None, seed: int, backend: str = "auto"
) -> Iterator[str]:
    """`bases`, of a model and a prompt that are at hand."""
    weight = model.head_weight()
    stream = model.stream(1, max_length=len(codes) + length, backend=backend)
    prompt = torch.from_numpy(codes).to(weight.device, torch.int64).unsqueeze(0)
    hidden = stream.prefill(prompt)[:, -1]
    generator = torch.Generator().manual_seed(seed)
    for i in range(length):
        token = choose(F.linear(hidden, weight)[0].float().cpu(), temperature, top_k, generator)
        yield ALPHABET[token]
        if i < length - 1:
            hidden = stream.step(torch.tensor([token], device=weight.device))


def choose(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    """One of the tokens that the logits (V,) speak of."""
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    return int(torch.multinomial(torch.softmax(logits / temperature, dim=0), 1, generator=generator))


def with_progress(letters: Iterator[str], length: int) -> Iterator[str]:
    """The same, and a bar on stderr where that is a terminal and stdout is none (there the bases themselves show it)."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield from letters
        return
    with need("tqdm").tqdm(total=length, desc="generating", unit=" bases", dynamic_ncols=True) as bar:
        for letter in letters:
            yield letter
            bar.update(1)
