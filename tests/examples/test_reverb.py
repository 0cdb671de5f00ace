"""`examples/reverb.py` writes what `scipy.signal.oaconvolve` gives, whatever the rates and channels of its files."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

np = pytest.importorskip("numpy")
signal = pytest.importorskip("scipy.signal")
wavfile = pytest.importorskip("scipy.io.wavfile")

EXAMPLE = Path(__file__).parents[2] / "examples" / "reverb.py"


@pytest.mark.parametrize("block", [128, 100])
def test_the_wet_signal_is_that_of_oaconvolve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], block: int
) -> None:
    noise = np.random.default_rng(0)
    hall = noise.standard_normal((9_000, 2)) * np.exp(-np.arange(9_000) / 2_000)[:, None]
    voice = np.sin(np.arange(4_000) ** 1.3 / 50) * 0.2
    wavfile.write(tmp_path / "hall.wav", 48_000, hall.astype(np.float32))
    wavfile.write(tmp_path / "voice.wav", 16_000, (voice * 32767).astype(np.int16))
    threads = torch.get_num_threads()
    files = {
        f"--{name}": str(tmp_path / f"{file}.wav")
        for name, file in (("recording", "voice"), ("response", "hall"), ("out", "wet"))
    }
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), "--block", str(block), *(word for pair in files.items() for word in pair)])
    try:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    assert "of one core" in capsys.readouterr().out
    rate, wet = wavfile.read(tmp_path / "wet.wav")
    dry = signal.resample_poly(wavfile.read(tmp_path / "voice.wav")[1] / 32768, 3, 1)
    truth = np.stack([signal.oaconvolve(dry, 0.5 * k / np.sqrt((k**2).sum()))[: len(dry)] + dry for k in hall.T], axis=1)
    truth /= max(1.0, np.abs(truth).max())
    assert (rate, wet.shape) == (48_000, truth.shape)
    assert np.abs(wet / 32767 - truth).max() < 3e-5  # the step of 16 bits
    assert np.abs(truth - dry[:, None]).max() > 0.05  # the control: the hall is heard
