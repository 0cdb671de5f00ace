"""What a run was asked for: one frozen value that TOML keeps and that a resumed run takes back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from longwave.errors import ArgumentError

AUTOCAST = ("auto", "off", "bf16")
SWITCH = ("auto", "on", "off")
# Above this many values in the residual streams of a step, keeping the inside of every block (some twenty times as
# much) costs more than computing it again: 2^26 values are about 5 GB.
CHECKPOINT_ABOVE = 2**26


@dataclass(frozen=True)
class Options:
    """Options of a training run, all resolved: no field means "default".

    Lengths are in bases, rates a step; `weight_decay` applies to matrices alone; `eval_bases` bounds what a validation
    during training scores. `backend`, `device`, `autocast` and `activation_checkpointing` are kept as they were given.
    """

    preset: str
    context: int
    batch: int
    steps: int
    seed: int
    lr: float
    warmup: int
    weight_decay: float
    clip: float
    eval_every: int
    eval_bases: int
    checkpoint_every: int
    fasta: str
    backend: str
    device: str
    autocast: str
    activation_checkpointing: str

    def __post_init__(self) -> None:
        at_least = {"context": 2, "batch": 1, "steps": 1, "seed": 0, "warmup": 0, "eval_every": 1, "eval_bases": 1}
        for name, least in {**at_least, "checkpoint_every": 1}.items():
            if getattr(self, name) < least:
                raise ArgumentError(f"--{_dashed(name)} must be at least {least}, but {getattr(self, name)} was given")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ArgumentError(f"--{name} must be greater than 0 and finite, but {getattr(self, name)} was given")
        if not 0 <= self.weight_decay < float("inf"):
            raise ArgumentError(f"--weight-decay must be at least 0 and finite, but {self.weight_decay} was given")
        if self.seed >= 2**63:
            raise ArgumentError(f"--seed must be less than 2^63, but {self.seed} was given")
        if self.warmup > self.steps:
            raise ArgumentError(f"--warmup must not exceed the {self.steps} steps, but {self.warmup} was given")
        for name, allowed in (("autocast", AUTOCAST), ("activation_checkpointing", SWITCH)):
            if getattr(self, name) not in allowed:
                raise ArgumentError(
                    f"--{_dashed(name)} must be one of {', '.join(allowed)}, but {getattr(self, name)!r} was given"
                )


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def given(namespace: Any) -> dict[str, Any]:
    """The options of a parsed command line that the user wrote: those that are not None."""
    names = [field.name for field in dataclasses.fields(Options)]
    return {name: value for name in names if (value := getattr(namespace, name, None)) is not None}


def resume_options(stored: dict[str, Any], asked: dict[str, Any], folder: str) -> Options:
    """The options of the run in `folder`, with nothing asked for that differs from them.

    Raises:
        ArgumentError: an option was asked for with another value than the run has, or the stored ones are not options.
    """
    try:
        options = Options(**stored)
    except TypeError as error:
        raise ArgumentError(f"{folder}/config.toml does not hold the options of a run of this version ({error})") from error
    for name, value in asked.items():
        if value != getattr(options, name):
            raise ArgumentError(
                f"--resume continues {folder} with its own --{_dashed(name)} {getattr(options, name)}, but {value} "
                "was given; leave the option out, or start a new run in another --out"
            )
    return options


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where there is one.

    Raises:
        ArgumentError: the name is not a device's, or the device is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(f"--device {name} cannot be used here ({reason}); use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ArgumentError(f"--device takes auto, cpu or cuda, but {name} was given")
    return device


def choose_autocast(name: str, device: torch.device) -> bool:
    """Whether the model runs in bfloat16 on `device`; `auto` says yes where the hardware has that type.

    Raises:
        ArgumentError: `name` is not one of `AUTOCAST`.
    """
    if name not in AUTOCAST:
        raise ArgumentError(f"--autocast must be one of {', '.join(AUTOCAST)}, but {name!r} was given")
    if name != "auto":
        return name == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Newer than the oldest PyTorch supported; without it the answer is float32, which is always right.
    features: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(features.get(kind, False) for kind in ("avx512_bf16", "amx_bf16", "bf16"))


def choose_checkpointing(name: str, positions: int, d_model: int, layers: int) -> bool:
    """Whether blocks are computed twice: as said, or by the size of a step's residual streams."""
    return name == "on" or (name == "auto" and positions * d_model * layers > CHECKPOINT_ABOVE)
