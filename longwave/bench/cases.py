"""What is measured, as data: frozen cases, the list of them, and how a user picks from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from longwave.errors import ArgumentError

FORWARD, BACKWARD = "forward", "forward+backward"
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}

# 256 … 4M, and lengths that are no power of two: 1,000 = 2^3·5^3, 14,113 = 11·1,283, 100,000 = 2^5·5^5.
LENGTHS = (256, 512, 1_000, 1_024, 2_048, 4_096, 14_113, 16_384, 65_536, 100_000, 262_144, 1_048_576, 4_194_304)
QUICK = (1_024, 14_113, 262_144)
SAMPLES = (22, 24)
LARGEST_BATCH = 4
# On a GPU: the published shape, 64 · 768 rows, and as many of them as its memory holds.
GPU_LENGTHS = (
    256, 512, 1_024, 2_048, 4_096, 8_192, 14_113, 16_384, 32_768, 65_536, 100_000, 131_072, 262_144, 524_288, 1_048_576,
    2_097_152, 4_194_304,
)  # fmt: skip
GPU_BATCH, GPU_CHANNELS = 64, 768
# What tensors may take of the memory: the rest is scratch.
GPU_SHARE = 0.7
GPU_QUICK = (1_024, 4_096, 65_536)
GPU_DTYPES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class Case:
    """One thing to measure: `B` batch, `H` channels, `L` samples, `K` taps; filter `(H, K)`, one for each channel.

    - `mode`: `causal`, `circular` or `full`. `dtype`: of `u`, `y` and the gates (`k` and `D`, which are parameters, are
      float64 beside float64, else float32). `layout`: `BHL` or `BLH`. `gated`: both gates. `skip`: with `D`.
    - `direction`: `forward`, or `forward+backward` (every input takes a gradient).
    - `tags`: words by which `--cases` finds it.
    """

    B: int
    H: int
    L: int
    K: int
    mode: str = "causal"
    dtype: str = "float32"
    layout: str = "BHL"
    gated: bool = False
    skip: bool = False
    direction: str = FORWARD
    tags: tuple[str, ...] = ()

    @property
    def out_length(self) -> int:
        return self.L + self.K - 1 if self.mode == "full" else self.L

    @property
    def name(self) -> str:
        options = [self.layout] * (self.layout != "BHL") + ["gated"] * self.gated + ["D"] * self.skip
        taps = f"K{self.K}-" * (self.K != self.L)
        return "-".join([f"{self.mode}-L{self.L}-{taps}B{self.B}-H{self.H}-{self.dtype}", *options, self.direction])

    @property
    def samples(self) -> int:
        return self.B * self.H * self.L

    @property
    def exponent(self) -> int:
        """The total this case stands for: about 2^exponent samples."""
        return round(math.log2(self.samples))

    @property
    def parameter_dtype(self) -> str:
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def bytes_moved(self) -> int:
        """Bytes of every argument read once and every result written once: what cannot be avoided."""
        signal = BYTES[self.dtype] * self.B * self.H
        forward = signal * (self.L + self.out_length + (self.L + self.out_length) * self.gated)
        parameters = BYTES[self.parameter_dtype] * self.H * (self.K + self.skip)
        if self.direction == FORWARD:
            return forward + parameters
        # The backward reads the inputs and dy, and writes a gradient for each input.
        gradients = signal * (self.L + (self.L + self.out_length) * self.gated)
        return forward + signal * self.out_length + gradients + 2 * parameters

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"tags": list(self.tags)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Case:
        return cls(**(data | {"tags": tuple(data["tags"])}))


def _shaped(samples: int, L: int, **options: Any) -> Case:
    """A case of about `samples` samples: B = 4, smaller where there are not four rows."""
    rows = max(1, samples // L)
    B = min(LARGEST_BATCH, rows)
    return Case(B=B, H=max(1, rows // B), L=L, **({"K": L} | options))


def case_list(samples: Sequence[int] = SAMPLES) -> list[Case]:
    """Every case: the lengths at each total of `2**samples` samples, the variants, and the small ones.

    Returns a list of Case, each once for `forward` and once for `forward+backward`, forward first.
    """
    cases: list[Case] = []
    for exponent in samples:
        total = 2**exponent
        for L in LENGTHS:
            if total >= L:
                tags = ("lengths", "pow2" if L & (L - 1) == 0 else "ugly") + (("quick",) if L in QUICK else ())
                cases.append(_shaped(total, L, tags=tags))
        variants = [
            _shaped(total, 1_024, gated=True, skip=True, tags=("gated",)),
            _shaped(total, 16_384, gated=True, skip=True, tags=("gated",)),
            _shaped(total, 4_096, dtype="bfloat16", tags=("bf16", "quick")),
            _shaped(total, 65_536, dtype="bfloat16", tags=("bf16",)),
            _shaped(total, 4_096, dtype="bfloat16", gated=True, skip=True, tags=("bf16", "gated")),
            _shaped(total, 4_096, layout="BLH", tags=("BLH",)),
            _shaped(total, 65_536, layout="BLH", tags=("BLH",)),
            Case(B=1, H=max(1, total // 2**20), L=2**20, K=2**20, layout="BLH", tags=("BLH",)),
            _shaped(total, 4_096, mode="circular", tags=("circular",)),
            _shaped(total, 4_096, mode="full", tags=("full",)),
            _shaped(total, 1_048_576, K=1_024, tags=("short-filter",)),
        ]
        cases += [case for case in variants if case.samples <= total]
    for H, L in ((1, 256), (1, 4_096), (1, 65_536), (1, 1_048_576), (16, 4_096), (16, 65_536)):
        cases.append(Case(B=1, H=H, L=L, K=L, tags=("small",)))
    return cases + [replace(case, direction=BACKWARD) for case in cases]


def gpu_case_list(memory_bytes: int, *, batch: int = GPU_BATCH, channels: int = GPU_CHANNELS) -> list[Case]:
    """Every case for a GPU: lengths, dtypes, plain and gated, forward and forward+backward.

    - `memory_bytes`: of the device. A case whose tensors do not fit has a smaller batch, and its name says so: figures are
      never scaled.

    Returns a list of Case, forward first; lengths of which not even a batch of one fits are left out.
    """
    cases = []
    for direction in (FORWARD, BACKWARD):
        for L in GPU_LENGTHS:
            for dtype in GPU_DTYPES:
                for gated in (False, True):
                    tags = ("gpu", "pow2" if L & (L - 1) == 0 else "ugly") + ("gated",) * gated
                    tags += ("quick",) * (L in GPU_QUICK and dtype == "bfloat16")
                    case = Case(batch, channels, L, L, dtype=dtype, gated=gated, direction=direction, tags=tags)
                    while case.B > 1 and _held_bytes(case) > GPU_SHARE * memory_bytes:
                        case = replace(case, B=case.B // 2)
                    if _held_bytes(case) <= GPU_SHARE * memory_bytes:
                        cases.append(case)
    return cases


def _held_bytes(case: Case) -> int:
    """What a call and its operands hold: signals, their gradients, and one of them while it is drawn in float32."""
    signals = 2 + 2 * case.gated
    if case.direction == BACKWARD:
        signals = 2 * signals
    parameters = 4 * case.H * case.K * 4
    return case.samples * (signals * BYTES[case.dtype] + 4) + parameters


def select(cases: Iterable[Case], *, words: Sequence[str] = (), directions: Sequence[str] = ()) -> list[Case]:
    """The cases with one of `words` as a tag or inside their name, and one of `directions`; nothing given means all.

    Returns a list of Case, never empty. Raises ArgumentError for a word that finds nothing.
    """
    pool = [case for case in cases if not directions or case.direction in directions]
    for word in words:
        if not any(_matches(case, word) for case in pool):
            tags = sorted({tag for case in pool for tag in case.tags})
            raise ArgumentError(
                f"no case has {word!r} as a tag or in its name; the tags are {', '.join(tags)}; see `longwave bench --list`"
            )
    chosen = [case for case in pool if not words or any(_matches(case, word) for word in words)]
    if not chosen:
        raise ArgumentError("no case is left to measure; widen --cases, --samples or --direction")
    return chosen


def _matches(case: Case, word: str) -> bool:
    return word in case.tags or word in case.name
