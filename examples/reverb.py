"""A recording in a hall: a stereo response of more than 100,000 samples, block by block, as a sound card would ask for them.

    python examples/reverb.py                            # a piece of music in a great hall, from two Debian packages
    python examples/reverb.py --recording voice.wav --response hall.wav --out wet.wav

Without --recording and --response their files come from the packages `asterisk-moh-opsound-wav` (CC-BY-SA) and
`guitarix-common`, which `apt-get download` brings into a cache. The recording is brought to the response's rate. It needs
SciPy: pip install 'longwave[bench]'.
"""

from __future__ import annotations

import argparse
import math
import struct
import time
from pathlib import Path

import torch
from scipy.io import wavfile
from scipy.signal import resample_poly
from torch import Tensor

import longwave
from longwave.data.packages import fetched
from longwave.errors import DataError

# The kinds of samples in a WAV file.
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
INSTEAD = "give --recording and --response files"
# Package, file inside it, SHA-256 of the file.
RECORDING = (
    "asterisk-moh-opsound-wav",
    "usr/share/asterisk/moh/manolo_camp-morning_coffee.wav",
    "43540271262ebb37f5a760dea62686cc30dc379d85757a83f79b8bc0dce8bedb",
)
RESPONSE = (
    "guitarix-common",
    "usr/share/gx_head/sounds/greathall.wav",
    "2124c0591dfc7c4c54e047feff2752126e29b84389bea42c990599fb0ed5e757",
)


def read(path: Path) -> tuple[int, Tensor]:
    """The rate and the samples (channels, frames) of a WAV file of 16, 24 or 32 bits, float32 within ±1 for integers."""
    with path.open("rb") as file:
        riff = file.read(12)
        chunks = {}
        while riff[:4] == b"RIFF" and len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            chunks[name] = file.read(size + size % 2)[:size]
    if not {b"fmt ", b"data"} <= chunks.keys():
        raise SystemExit(f"{path} is no WAV file; give another")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunks[b"fmt "][:16])
    if kind == EXTENSIBLE:
        (kind,) = struct.unpack("<H", chunks[b"fmt "][24:26])
    data = torch.frombuffer(bytearray(chunks[b"data"]), dtype=torch.uint8)
    if (kind, bits) == (FLOAT, 32):
        x = data[: len(data) // 4 * 4].view(torch.float32)
    elif kind == PCM and bits in (16, 24, 32):
        of_sample = data[: len(data) // (bits // 8) * (bits // 8)].view(-1, bits // 8)
        high = torch.zeros(len(of_sample), 4, dtype=torch.uint8)
        high[:, 4 - bits // 8 :] = of_sample  # the sample's bits as the highest of 32
        x = high.view(torch.int32).squeeze(1).double().div(2.0**31).float()
    else:
        raise SystemExit(f"{path} has samples of kind {kind} with {bits} bits; convert it to 16-bit PCM")
    return rate, x[: len(x) // channels * channels].view(-1, channels).T.contiguous()


def resampled(x: Tensor, rate: int, wanted: int) -> Tensor:
    """x (channels, frames) at another rate."""
    common = math.gcd(rate, wanted)
    return x if rate == wanted else torch.from_numpy(resample_poly(x.numpy(), wanted // common, rate // common, axis=1)).float()


def play(u: Tensor, k: Tensor, wet: float, block: int) -> tuple[Tensor, list[float]]:
    """The recording (2, frames) and `wet` times its reverberation, with the seconds that each block took."""
    stream = longwave.Stream(wet * k, torch.ones(2), batch_size=1, max_length=max(u.shape[1], 4 * block))
    silence = stream.snapshot()
    stream.extend(torch.zeros(1, 2, 4 * block))  # the engine is compiled before the music begins
    stream.restore(silence)
    out, times = [], []
    for x in u.unsqueeze(0).split(block, dim=-1):
        began = time.perf_counter()
        out.append(stream.extend(x))
        times.append(time.perf_counter() - began)
    return torch.cat(out, dim=-1)[0], times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recording", type=Path, metavar="FILE.wav")
    parser.add_argument("--response", type=Path, metavar="FILE.wav")
    parser.add_argument("--out", type=Path, default=Path("reverb.wav"), metavar="FILE.wav")
    parser.add_argument("--block", type=int, default=128, help="samples at a time (128)")
    parser.add_argument("--wet", type=float, default=0.5, help="energy of the reverberation beside the recording's (0.5)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the recording at most (60)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    try:
        rate, k = read(args.response or fetched(*RESPONSE, instead=INSTEAD))
        own_rate, dry = read(args.recording or fetched(*RECORDING, instead=INSTEAD))
    except DataError as error:
        raise SystemExit(str(error)) from None
    dry = resampled(dry[:, : int(args.seconds * own_rate)], own_rate, rate)
    u, k = (x.expand(2, -1) if x.shape[0] == 1 else x[:2] for x in (dry, k))
    k = k / k.square().sum(dim=1, keepdim=True).sqrt()
    wet, times = play(u.contiguous(), k, args.wet, args.block)
    loudest = wet.abs().max().clamp_min(1e-9).item()
    wavfile.write(args.out, rate, (wet / max(1.0, loudest) * 32767).round().to(torch.int16).T.contiguous().numpy())

    allowed = args.block / rate
    print(
        f"{u.shape[1] / rate:.1f} s of stereo at {rate / 1000:g} kHz under {k.shape[1]:,} taps in blocks of {args.block}: "
        f"{sum(times) / len(times) / allowed:.1%} of one core, the slowest block {max(times) / allowed:.0%} of its time; "
        f"{args.out}"
    )


if __name__ == "__main__":
    main()
