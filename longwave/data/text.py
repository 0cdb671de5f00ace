"""Characters of a text: the next one, or those under a mask. The text is the Jargon File, 4.4.7, 1.6 million characters.

The 126 most frequent characters of the training part are the tokens 0 … 125, the most frequent one first; all others are
`OTHER`. The first 90 % of the text train, the next 5 % validate, the last 5 % test.

Source: the Jargon File, version 4.4.7 (http://www.catb.org/jargon/), in the public domain; `SOURCES.md` says more.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from longwave.data import streams
from longwave.data.examples import Split
from longwave.data.packages import fetched
from longwave.errors import DataError

VOCABULARY = 128
OTHER, MASK = 126, 127

_JARGON = (
    "jargon-text",
    "usr/share/doc/jargon-text/jargon.txt.gz",
    "fcaa76e4c2ebdf90c6557524b9430373dc49d1a26462ef30f43c0ace70a25a3a",
)


@dataclass(frozen=True)
class Alphabet:
    """Characters as tokens.

    Attributes:
        characters: at most 126; the first is token 0.
    """

    characters: str

    def encode(self, text: str) -> streams.Tokens:
        """(n,) uint8: every character's place, or `OTHER`."""
        table = {ord(character): place for place, character in enumerate(self.characters)}
        return np.frombuffer(bytes(table.get(ord(character), OTHER) for character in text), dtype=np.uint8)

    def decode(self, tokens: streams.Tokens) -> str:
        """The characters of (n,) tokens; U+FFFD for `OTHER` and `MASK`."""
        table = self.characters.ljust(VOCABULARY, "\N{REPLACEMENT CHARACTER}")
        return "".join(table[token] for token in tokens.tolist())


def load(length: int, *, masked: bool = False, path: str | os.PathLike[str] | None = None) -> Split:
    """Windows of a text.

    Args:
        length: characters in a window, ≥ 1.
        masked: ask for 15 % of the characters, as BERT does, instead of for every next one.
        path: a text in UTF-8, plain or gzip; without it the Jargon File.

    Returns:
        inputs (n, length) uint8 and labels (n, length): the next characters, or those that were asked and `IGNORE`.

    Raises:
        ArgumentError: a length below 1.
        DataError: the text cannot be had or read, or is too short.
    """
    text = read(path)
    alphabet = alphabet_of(text)
    train, validation, test = streams.split_in_time([alphabet.encode(text)])
    ask = streams.masked(MASK, len(alphabet.characters)) if masked else streams.following
    return Split(
        streams.TokenWindows(train, length, ask),
        streams.HeldOutPieces(validation, length, "validation", ask),
        streams.HeldOutPieces(test, length, "test", ask),
        classes=VOCABULARY,
        vocabulary=VOCABULARY,
        source=f"{len(text):,} characters of {Path(path).name if path else 'the Jargon File 4.4.7'}",
    )


def read(path: str | os.PathLike[str] | None = None) -> str:
    """The text of a file in UTF-8, plain or gzip, or of the Jargon File.

    Raises:
        DataError: it cannot be had or read, or is empty.
    """
    path = path or fetched(*_JARGON, instead="give a text file of your own")
    try:
        data = Path(path).read_bytes()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error}); give a text in UTF-8, plain or gzip") from error
    if not text:
        raise DataError(f"{path} is empty; give a text with at least one character")
    return text


def alphabet_of(text: str) -> Alphabet:
    """The characters of a text's training part that are tokens, the most frequent first."""
    counts = Counter(text[: len(text) - 2 * (len(text) // streams.HELD_OUT_SHARE)])
    return Alphabet("".join(sorted(counts, key=lambda character: (-counts[character], character))[:OTHER]))
