"""The next sample of music: 8-bit mu-law at 8 kHz, five pieces of two to five and a half minutes.

The first 90 % of every piece train, the next 5 % validate, the last 5 % test. A sample x in [-1, 1] is the token
round(255 · (1 + sign(x) · ln(1 + 255 |x|) / ln 256) / 2), so that silence is 128.

Source: the companding of ITU-T G.711's mu-law without its segments, as in WaveNet (van den Oord et al. 2016, arXiv
1609.03499, section 2.2) and SaShiMi (2202.09729, section 5); the music of Debian's `asterisk-moh-opsound-wav`, CC BY-SA 3.0,
its authors in `SOURCES.md`.
"""

from __future__ import annotations

import os
import wave
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from longwave.data import streams
from longwave.data.examples import Split
from longwave.data.packages import fetched
from longwave.errors import DataError

LEVELS = 256

_PACKAGE = "asterisk-moh-opsound-wav"
_FOLDER = "usr/share/asterisk/moh/"
_PIECES = {
    "macroform-cold_day.wav": "716048b9913498c5416ed2df0d28b562b5c8017c07a030e19bb119b96d905b92",
    "macroform-robot_dity.wav": "018064be59d8830d495c948231aefa286369eaff9a289a112af09acf94b57445",
    "macroform-the_simplicity.wav": "ce642e2f083a9d2df94b252476f6a339c93a59882838fce5d4dd6afbdcf2cef9",
    "manolo_camp-morning_coffee.wav": "43540271262ebb37f5a760dea62686cc30dc379d85757a83f79b8bc0dce8bedb",
    "reno_project-system.wav": "6eab497384d54844e064125625ae6e147973de6a4b1e58fad87cf5aa095fbf92",
}


def load(length: int, paths: Sequence[str | os.PathLike[str]] | None = None) -> Split:
    """Windows of music.

    Args:
        length: samples in a window, ≥ 1.
        paths: WAV files with 16 bits a sample, several channels are averaged; without them the five pieces.

    Returns:
        inputs (n, length) uint8 and labels (n, length), the samples after them; silence is 128.

    Raises:
        ArgumentError: a length below 1.
        DataError: a file cannot be had or read, or all are too short.
    """
    instead = "give WAV files of your own"
    files = paths or [fetched(_PACKAGE, _FOLDER + name, sha256, instead=instead) for name, sha256 in _PIECES.items()]
    pieces = [encode(read(path)) for path in files]
    train, validation, test = streams.split_in_time(pieces)
    return Split(
        streams.TokenWindows(train, length),
        streams.HeldOutPieces(validation, length, "validation"),
        streams.HeldOutPieces(test, length, "test"),
        classes=LEVELS,
        vocabulary=LEVELS,
        source=f"{sum(piece.size for piece in pieces):,} samples of {len(pieces)} recordings, 8-bit mu-law",
    )


def encode(samples: npt.NDArray[np.floating]) -> streams.Tokens:
    """Tokens (n,) uint8 of samples (n,) in [-1, 1]; what is louder is clipped."""
    clipped = np.clip(samples.astype(np.float64), -1, 1)
    loudness = np.sign(clipped) * np.log1p((LEVELS - 1) * np.abs(clipped)) / np.log(LEVELS)
    return np.floor((LEVELS - 1) * (1 + loudness) / 2 + 0.5).astype(np.uint8)


def decode(tokens: streams.Tokens) -> npt.NDArray[np.float32]:
    """Samples (n,) in [-1, 1] of tokens (n,): the inverse of `encode` up to half a step."""
    loudness = 2 * tokens.astype(np.float64) / (LEVELS - 1) - 1
    return (np.sign(loudness) * np.expm1(np.abs(loudness) * np.log(LEVELS)) / (LEVELS - 1)).astype(np.float32)


def read(path: str | os.PathLike[str]) -> npt.NDArray[np.float32]:
    """The samples (n,) of a WAV file with 16 bits a sample, in [-1, 1), channels averaged.

    Raises:
        DataError: it cannot be read, or has other samples.
    """
    try:
        with wave.open(os.fspath(path), "rb") as file:
            channels, width = file.getnchannels(), file.getsampwidth()
            frames = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise DataError(f"cannot read {path} ({error}); give a WAV file of 16-bit samples") from error
    if width != 2:
        raise DataError(f"{path} has {8 * width} bits a sample; convert it to 16-bit PCM")
    samples = np.frombuffer(frames[: len(frames) // (2 * channels) * 2 * channels], dtype="<i2")
    return samples.reshape(-1, channels).mean(axis=1, dtype=np.float32) / np.float32(2**15)
