"""What `longwave generate` does: a prompt is read once, then tokens are drawn one by one from what the model predicts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave.data import fasta
from longwave.errors import ArgumentError
from longwave.models import SequenceModel
from longwave.train import checkpoint, tasks
from longwave.train.evaluate import setting
from longwave.train.heads import body_of
from longwave.train.optional import need
from longwave.train.options import choose_device


def letters(
    path: Path, *, prompt: str | None, fasta_path: str | None, length: int, temperature: float, top_k: int | None, seed: int,
    backend: str, device: str,
) -> Iterator[str]:  # fmt: skip
    """The text of `length` tokens after the prompt, one at a time.

    Args:
        path: folder of a run, or weights.
        prompt, fasta_path: text, or a file whose first record of DNA is the prompt; one of them.
        temperature: what logits are divided by; 0 takes the likeliest token.
        top_k: draw among so many of the likeliest tokens; None for all.
        seed: of the generator: equal seeds give equal text.
        backend, device: as in training.

    Raises:
        ArgumentError: an option is out of range, or the checkpoint's task has no text to go on with.
        DataError: the checkpoint or the file cannot be used.
    """
    if length < 1:
        raise ArgumentError(f"--length {length} is too short; give at least 1")
    if not 0 <= temperature < float("inf"):
        raise ArgumentError(f"--temperature {temperature:g} is none; give 0 (the likeliest token) or more")
    if top_k is not None and top_k < 1:
        raise ArgumentError(f"--top-k {top_k} leaves nothing to draw from; give at least 1")
    if (prompt is None) == (fasta_path is None):
        raise ArgumentError("generation continues a prompt; give one of --prompt TEXT and --fasta FILE")
    where = choose_device(device)
    model, description = checkpoint.load_model(path, device=where)
    known = setting(description)
    codec = tasks.offered(description.task, "codec", "this command")(known)
    if not known.causal:
        raise ArgumentError(f"the model {description.model} sees both sides and predicts no next token; give a causal one")
    if fasta_path is not None:
        tasks.offered(description.task, "held_out", "--fasta")
        tokens = torch.from_numpy(next(iter(fasta.read_fasta(fasta_path))).codes)
    else:
        tokens = codec.encode(str(prompt))
    if not len(tokens):
        raise ArgumentError("the prompt is empty; give at least one letter")
    for token in drawn(body_of(model), tokens, length, temperature=temperature, top_k=top_k, seed=seed, backend=backend):
        yield codec.decode(token)


@torch.no_grad()
def drawn(
    model: SequenceModel,
    prompt: Tensor,
    length: int,
    *,
    temperature: float,
    top_k: int | None,
    seed: int,
    backend: str = "auto",
) -> Iterator[int]:
    """`length` tokens after the prompt (n,), n >= 1."""
    weight = model.head_weight()
    stream = model.stream(1, max_length=len(prompt) + length, backend=backend)
    hidden = stream.prefill(prompt.to(weight.device, torch.int64).unsqueeze(0))[:, -1]
    generator = torch.Generator().manual_seed(seed)
    for i in range(length):
        token = choose(F.linear(hidden, weight)[0].float().cpu(), temperature, top_k, generator)
        yield token
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
    """The same, and a bar on stderr where that is a terminal and stdout is none (there the text itself shows it)."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield from letters
        return
    with need("tqdm").tqdm(total=length, desc="generating", unit=" tokens", dynamic_ncols=True) as bar:
        for letter in letters:
            yield letter
            bar.update(1)
