"""What a run was asked for: one frozen value that TOML keeps and that a resumed run takes back."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from longwave import models
from longwave.errors import ArgumentError
from longwave.train import checkpoint, recipe, tasks
from longwave.train.task import Option, Value

AUTOCAST = ("auto", "off", "bf16")
SWITCH = ("auto", "on", "off")
# Above this many values in the residual streams of a step, keeping the inside of every block (some twenty times as
# much) costs more than computing it again: 2^26 values are about 5 GB.
CHECKPOINT_ABOVE = 2**26


@dataclass(frozen=True)
class Options:
    """Options of a training run, all resolved: no field means "default".

    Lengths are in positions, rates a step; `weight_decay` applies to matrices alone. `backend`, `device`, `autocast`,
    `activation_checkpointing` and `offload_activations` are kept as they were given. `own` holds the options of the task alone.
    """

    task: str
    preset: str
    context: int
    filter_length: int
    batch: int
    steps: int
    seed: int
    lr: float
    warmup: int
    weight_decay: float
    clip: float
    eval_every: int
    checkpoint_every: int
    backend: str
    device: str
    autocast: str
    activation_checkpointing: str
    own: dict[str, Value]
    # Of runs that were begun before there were these options:
    offload_activations: str = "off"
    init_from: str = ""

    def __post_init__(self) -> None:
        at_least = {
            "context": 2,
            "filter_length": 1,
            "batch": 1,
            "steps": 1,
            "seed": 0,
            "warmup": 0,
            "eval_every": 1,
            "checkpoint_every": 1,
        }
        for name, least in at_least.items():
            _check_least(name, getattr(self, name), least)
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ArgumentError(f"--{name} must be greater than 0 and finite, but {getattr(self, name)} was given")
        if not 0 <= self.weight_decay < float("inf"):
            raise ArgumentError(f"--weight-decay must be at least 0 and finite, but {self.weight_decay} was given")
        if self.seed >= 2**63:
            raise ArgumentError(f"--seed must be less than 2^63, but {self.seed} was given")
        if self.warmup > self.steps:
            raise ArgumentError(f"--warmup must not exceed the {self.steps} steps, but {self.warmup} was given")
        named = (("autocast", AUTOCAST), ("activation_checkpointing", SWITCH), ("offload_activations", ("on", "off")))
        for name, allowed in named:
            _check_among(name, getattr(self, name), allowed)
        for option in tasks.find(self.task).OPTIONS:
            _check_own(option, self.own[option.name])

    @property
    def flat(self) -> dict[str, Value]:
        """Every option by its name, the task's own ones among them: what TOML keeps."""
        fields = dataclasses.asdict(self)
        own = fields.pop("own")
        del fields["task"]
        return {**fields, **own}

    @property
    def words(self) -> list[str]:
        """The command line that asks for the same run, but for its folder."""
        names = [option.name for option in common(self.task) if option.name in ("preset", "context", "batch", "steps", "lr")]
        said = {name: self.flat[name] for name in names}
        for name, value in (*self.own.items(), *self.flat.items()):  # a default may follow from what is said before it
            if name != "init_from" and value != resolve(self.task, said).flat[name]:
                said[name] = value
        if self.init_from:  # last, for the file need not be there any more; its filters' length follows from it no longer
            here, said["filter_length"] = Path.cwd(), self.filter_length
            inside = Path(self.init_from).is_relative_to(here)
            said["init_from"] = str(Path(self.init_from).relative_to(here)) if inside else self.init_from
        return ["train", self.task, *(word for name, value in said.items() for word in (f"--{dashed(name)}", str(value)))]


def common(task: str) -> list[Option]:
    """The options that every task has, as this one calls them; the defaults are those that no recipe says."""
    module = tasks.find(task)
    units, counted = f"{module.UNIT}s", f"{module.METRIC.counted}s"
    length = []
    if module.CONTEXTS is not None:
        least, most = module.CONTEXTS
        help = f"{units} in a sequence, {least} to {most} (default: the recipe's)"
        length = [Option("context", 0, help, metavar=units.upper())]
    return [
        Option("preset", "", "size of the model (default: the recipe's); an unknown name lists them all"),
        *length,
        Option("filter_length", 0, "taps of the long filters (default: the context, or those of --init-from)", metavar="TAPS"),
        Option("batch", 0, "sequences in a step", metavar="SEQUENCES"),
        Option("steps", 0, "updates in all"),
        Option("seed", 0, f"of the initial weights and of the order of {counted} (default: 0)"),
        Option("lr", 0.0, "peak learning rate", metavar="RATE"),
        Option("warmup", 0, "steps of linear warm-up before the cosine (default: a twentieth)", metavar="STEPS"),
        Option("weight_decay", 0.1, "of matrices outside filters (default: 0.1)", metavar="RATE"),
        Option("clip", 1.0, "largest norm of the gradient (default: 1)", metavar="NORM"),
        Option("backend", "auto", "backend of the convolutions (default: auto)"),
        Option("device", "auto", "auto, cpu or cuda (default: auto)"),
        Option(
            "autocast", "auto", "auto, off or bf16 (default: auto, which is bf16 where the hardware has it)", metavar="MODE"
        ),
        Option(
            "activation_checkpointing", "auto", "auto, on or off (default: auto, which is by size)", metavar="MODE"
        ),
        Option(
            "offload_activations", "off", "on: keep activations of a GPU in the CPU's memory (default: off)", metavar="MODE"
        ),
        Option("eval_every", 0, "steps between validations (default: a tenth of all)", metavar="STEPS"),
        Option("checkpoint_every", 0, "steps between checkpoints (default: a fifth of all)", metavar="STEPS"),
        Option("init_from", "", "run, or file of weights, to begin with (default: drawn weights)", metavar="RUN", is_file=True),
    ]  # fmt: skip


def resolve(task: str, asked: Mapping[str, Any]) -> Options:
    """Options with every default filled in, from what was asked for, the recipe and the task.

    Args:
        task: its name.
        asked: options by name, and perhaps `model`, whose recipe then names the preset.

    Raises:
        ArgumentError: an unknown preset or model, a preset of another model, or a value out of range.
    """
    module, model = tasks.find(task), asked.get("model")
    begun = checkpoint.describe(checkpoint.find_weights(Path(asked["init_from"]))) if asked.get("init_from") else None
    preset = asked.get("preset") or (begun.preset if begun else recipe.default_preset(task, model))
    owner = models.find_preset(preset)[0]
    if begun and model not in (None, begun.model):
        raise ArgumentError(
            f"--init-from {asked['init_from']} holds the model {begun.model}, not --model {model}; leave --model out"
        )
    if model is not None and model != owner:
        raise ArgumentError(f"--preset {preset} is one of the model {owner}, not of --model {model}; leave one of them out")
    advised = recipe.defaults(task, preset)
    chosen = {**advised, **{name: value for name, value in asked.items() if name != "model"}, "preset": preset}
    fixed = {option.name: chosen.pop(option.name, option.default) for option in module.OPTIONS}
    for option in module.OPTIONS:  # before a context is made of them
        if not callable(fixed[option.name]):
            _check_own(option, fixed[option.name])
    if module.CONTEXTS is None:
        chosen["context"] = tasks.offered(task, "context", "a task without --context")(fixed)
    elif "context" not in asked:  # a preset's filters may be longer or shorter than what the task has
        chosen["context"] = min(max(advised["context"], module.CONTEXTS[0]), module.CONTEXTS[1])
    elif not module.CONTEXTS[0] <= chosen["context"] <= module.CONTEXTS[1]:
        least, most = module.CONTEXTS
        raise ArgumentError(f"--context must be from {least:,} to {most:,} {module.UNIT}s, but {chosen['context']:,} was given")
    context = chosen["context"]
    if "batch" not in asked:  # as many positions a step as the recipe has, whatever the context
        chosen["batch"] = max(1, advised["batch"] * advised["context"] // context)
    steps = chosen["steps"]
    plain = {option.name: option.default for option in common(task)}
    plain |= {
        "filter_length": context,
        "warmup": steps // 20,
        "eval_every": max(steps // 10, 1),
        "checkpoint_every": max(steps // 5, 1),
    }
    own = {name: value(context) if callable(value) else value for name, value in fixed.items()}
    if begun and tasks.zoom(task, begun.task, begun.own, own) is None:  # those of larger images are longer
        plain["filter_length"] = begun.config["filter_length"]
    return Options(**{**plain, **chosen}, task=task, own=own)


def given(task: str, namespace: Any) -> dict[str, Any]:
    """The options of a parsed command line that the user wrote: those that are not None. Files are made absolute."""
    found = {}
    for option in (*common(task), *tasks.find(task).OPTIONS, Option("model", "", "")):
        if (value := getattr(namespace, option.name, None)) is not None:
            found[option.name] = (
                os.path.abspath(value) if option.is_file else value
            )  # not resolved: /dev/stdin is a link to no path
    return found


def resume_options(task: str, stored: Mapping[str, Any], asked: Mapping[str, Any], folder: str) -> Options:
    """The options of the run in `folder`, with nothing asked for that differs from them.

    Raises:
        ArgumentError: an option was asked for with another value than the run has, or the stored ones are not options.
    """
    names = [option.name for option in tasks.find(task).OPTIONS]
    try:
        own = tasks.own_options(task, stored, stored["context"])
        options = Options(task=task, own=own, **{name: value for name, value in stored.items() if name not in names})
    except (TypeError, KeyError) as error:
        raise ArgumentError(f"{folder}/config.toml does not hold the options of a run of this version ({error})") from error
    has = {**options.flat, "model": models.find_preset(options.preset)[0]}
    for name, value in asked.items():
        if value != has[name]:
            raise ArgumentError(
                f"--resume continues {folder} with its own --{dashed(name)} {has[name]}, but {value} "
                "was given; leave the option out, or start a new run in another --out"
            )
    return options


def _check_own(option: Option, value: Any) -> None:
    if option.least is not None:
        _check_least(option.name, value, option.least)
    if option.choices:
        _check_among(option.name, value, option.choices)


def _check_least(name: str, value: Any, least: float) -> None:
    if value < least:
        raise ArgumentError(f"--{dashed(name)} must be at least {least}, but {value} was given")


def _check_among(name: str, value: Any, allowed: Sequence[Value]) -> None:
    if value not in allowed:
        raise ArgumentError(f"--{dashed(name)} must be one of {', '.join(map(str, allowed))}, but {value!r} was given")


def dashed(name: str) -> str:
    """As it is typed."""
    return name.replace("_", "-")


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


def choose_offload(name: str, device: torch.device) -> bool:
    """Whether what is kept for backward leaves `device`.

    Raises:
        ArgumentError: it was asked for, and it is on the CPU already.
    """
    if name == "on" and device.type == "cpu":
        raise ArgumentError(
            "--offload-activations on keeps a GPU's activations in the memory of the CPU, and this run is on the CPU, where "
            "they would be copied for nothing; leave it out"
        )
    return name == "on"


def choose_checkpointing(name: str, positions: int, d_model: int, layers: int) -> bool:
    """Whether blocks are computed twice: as said, or by the size of a step's residual streams."""
    return name == "on" or (name == "auto" and positions * d_model * layers > CHECKPOINT_ABOVE)
