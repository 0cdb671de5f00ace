"""Windows of tokens: the next token is the next token, every held-out one is asked once, masks follow BERT's shares."""

from __future__ import annotations

import gzip
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longwave.data import audio, streams, text
from longwave.data.examples import IGNORE
from longwave.errors import ArgumentError, DataError


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=4), length=st.integers(1, 20))
def test_held_out_windows_ask_every_token_once(sizes: list[int], length: int) -> None:
    # Tokens are numbered through, so that a window says where it stands.
    pieces = np.split(np.arange(sum(sizes), dtype=np.uint8), np.cumsum(sizes)[:-1])
    if max(sizes) <= length:
        with pytest.raises(DataError, match="choose a length of at most"):
            streams.HeldOutPieces(pieces, length, "test")
        return
    part = streams.HeldOutPieces(pieces, length, "test")
    (batch,) = part.batches(10_000)
    assert len(part) == len(batch)
    asked = batch.labels != IGNORE
    assert (batch.labels[asked] == batch.inputs[asked].long() + 1).all()
    expected = [token for piece in pieces if piece.size > length for token in piece[1:].tolist()]
    assert batch.labels[asked].tolist() == expected


def test_training_windows_are_uniform_and_cross_no_piece() -> None:
    pieces = [np.arange(0, 10, dtype=np.uint8), np.arange(50, 53, dtype=np.uint8), np.arange(100, 120, dtype=np.uint8)]
    windows = streams.TokenWindows(pieces, 4)
    batch = windows.batch(5, 4_000, seed=1, rank=2)
    assert (batch.labels == batch.inputs.long() + 1).all()
    starts, counts = np.unique(batch.inputs[:, 0].numpy(), return_counts=True)
    assert starts.tolist() == [*range(6), *range(100, 116)]
    assert counts.min() > 120
    assert counts.max() < 250
    assert torch.equal(batch.inputs, windows.batch(5, 4_000, seed=1, rank=2).inputs)
    for other in (windows.batch(6, 4_000, 1, 2), windows.batch(5, 4_000, 2, 2), windows.batch(5, 4_000, 1, 3)):
        assert not torch.equal(batch.inputs, other.inputs)
    with pytest.raises(ArgumentError, match="at least 1 token"):
        streams.TokenWindows(pieces, 0)


def test_masks_have_berts_shares() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 100, 60_000, dtype=np.uint8)
    batch = streams.TokenWindows([tokens], 200, streams.masked(127, 100)).batch(0, 400)
    asked = batch.labels != IGNORE
    assert asked.sum(dim=1).tolist() == [30] * 400
    assert asked.double().mean(dim=0).std() < 0.04  # every place as often
    given = batch.inputs[asked].long()
    hidden, stayed = given == 127, given == batch.labels[asked]
    assert hidden.double().mean() == pytest.approx(0.8, abs=0.01)
    assert stayed.double().mean() == pytest.approx(0.1 + 0.1 / 100, abs=0.01)
    replaced = given[~hidden & ~stayed]
    assert replaced.bincount(minlength=100).min() > 0
    assert replaced.max() < 100
    # What was not asked is what stands there, and what was asked is the truth: it continues the text.
    whole = torch.where(asked, batch.labels, batch.inputs.long()).to(torch.uint8).numpy()
    assert all(row.tobytes() in tokens.tobytes() for row in whole[:20])
    one = streams.TokenWindows([tokens], 3, streams.masked(127, 100)).batch(0, 10)
    assert (one.labels != IGNORE).sum(dim=1).tolist() == [1] * 10


def test_a_text_of_ones_own(tmp_path: Path) -> None:
    words = "the cat sat on the mat; " * 100 + "é"
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(words.encode()))
    split = text.load(16, path=path)
    alphabet = text.alphabet_of(words)
    assert set(alphabet.characters) == set(words) - {"é"}
    assert alphabet.characters[:2] == " t"
    assert alphabet.encode("é")[0] == text.OTHER
    assert alphabet.decode(alphabet.encode("a cat é")) == "a cat \N{REPLACEMENT CHARACTER}"
    batch = split.train.batch(0, 8)
    for inputs, labels in zip(batch.inputs.numpy(), batch.labels.numpy().astype(np.uint8), strict=True):
        window = alphabet.decode(inputs)
        assert window in words
        assert window[1:] + alphabet.decode(labels[-1:]) == alphabet.decode(labels)
    masked = text.load(16, masked=True, path=path)
    validation, test = masked.validation.examples, masked.test.examples
    assert (test.inputs == text.MASK).any()
    assert not torch.equal(validation.labels == IGNORE, test.labels == IGNORE)  # masks of their own
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.txt\.gz is empty; give a text"):
        text.read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"cannot read .*a\.txt\.gz .*; give a text in UTF-8, plain or gzip"):
        text.read(path)


def test_the_jargon_file(real) -> None:
    whole = real(text.read)
    split = text.load(256)
    assert len(whole) == 1_618_757
    train, validation, test = (part.pieces[0] for part in (split.train, split.validation, split.test))
    assert (len(validation), len(test)) == (80_937, 80_937)
    assert len(train) + len(validation) + len(test) == len(whole)
    for part in (train, validation, test):
        assert part.max() <= text.OTHER
        assert (part == text.OTHER).mean() < 1e-3
    assert text.alphabet_of(whole).decode(train[1_000:1_100]) == whole[1_000:1_100]


def test_mu_law_is_its_own_inverse_and_silence_is_one_token() -> None:
    tokens = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(audio.encode(audio.decode(tokens)), tokens)
    samples = np.linspace(-1, 1, 10_001)
    error = np.abs(audio.decode(audio.encode(samples)) - samples)
    assert (error <= 0.5 * 2 / 255 * np.log(256) * (1 / 255 + np.abs(samples)) * 1.02 + 1e-6).all()
    assert audio.encode(np.array([0.0, -1.0, 1.0, 3.0])).tolist() == [128, 0, 255, 255]
    # The formula by hand: (1 + ln(1 + 25.5)/ln 256)/2 of 255 is 202.85.
    assert audio.encode(np.array([0.1])).tolist() == [203]
    assert (np.diff(audio.encode(samples).astype(int)) >= 0).all()


def _write(path: Path, samples: np.ndarray, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(8_000)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def test_recordings_of_ones_own(tmp_path: Path) -> None:
    ramp = np.arange(-2_000, 2_000)[:, None]
    path = _write(tmp_path / "a.wav", np.hstack([ramp, 3 * ramp]))
    np.testing.assert_allclose(audio.read(path), 2 * ramp[:, 0] / 2**15)
    split = audio.load(50, [path, path])
    assert [sum(piece.size for piece in part.pieces) for part in (split.train, split.validation, split.test)] == [
        7_200,
        400,
        400,
    ]
    assert split.test.pieces[0][0] > split.train.pieces[0][-1] >= 128  # later is later
    with pytest.raises(DataError, match=r"cannot read .*b\.wav .*; give a WAV file"):
        audio.read(tmp_path / "b.wav")
    with pytest.raises(DataError, match="has 8 bits a sample; convert it to 16-bit PCM"):
        audio.read(_write(tmp_path / "c.wav", ramp, width=1))


def test_the_music(real) -> None:
    split = real(lambda: audio.load(4_096))
    assert [piece.size for piece in split.test.pieces] == [97_709, 75_492, 111_604, 29_238, 128_694]
    assert split.vocabulary == split.classes == 256
    batch = split.train.batch(0, 4)
    assert torch.equal(batch.inputs[:, 1:].long(), batch.labels[:, :-1])
    # Music moves little from one sample to the next: the control is another order.
    steps = np.abs(np.diff(audio.decode(batch.inputs.numpy().reshape(-1))))
    shuffled = np.abs(np.diff(np.random.default_rng(0).permutation(audio.decode(batch.inputs.numpy().reshape(-1)))))
    assert steps.mean() < 0.5 * shuffled.mean()
