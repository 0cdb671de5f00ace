"""DFSMN: deep feedforward sequential memory, for speech, with a latency that its sizes say.

Blocks of a hidden layer, a projection and a memory block of taps some frames apart, each beside a shortcut; then two hidden
layers and a projection.
Source: Zhang et al. 2018, Deep-FSMN for Large Vocabulary Continuous Speech Recognition (arXiv 1803.05030).

The presets `dfsmn-s`, `-m` and `-l` have the sizes of the authors' recipes for LibriSpeech (6, 6 and 10 blocks, 384 or 512
channels, hidden layers of 1,024 or 2,048, 20 taps 2 frames apart on both sides). What differs: ReLU as in the paper, where
the recipes have PReLU; a linear map before the first block (theirs: a hidden layer of its own); the last projection is
followed by a LayerNorm, and heads come from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from longwave.models import WindowedModel, check_config
from longwave.nn.fsmn import Fsmn
from longwave.nn.long_conv import LongConvOp


@dataclass(frozen=True)
class DFSMNConfig:
    """Sizes of a `DFSMN`; every field survives JSON and TOML."""

    d_model: int
    layers: int
    filter_length: int  # the context the model is made for; filters are of `back` and `ahead` taps
    hidden: int
    vocabulary: int = 0
    predicted: int = 0
    values: int = 80  # of a frame
    back: int = 20
    ahead: int = 20  # 0: causal
    stride: int = 2

    def __post_init__(self) -> None:
        check_config(self, "hidden", "back", "stride")


def _recipe(d_model: int, layers: int, hidden: int) -> DFSMNConfig:
    return DFSMNConfig(d_model=d_model, layers=layers, filter_length=1_024, hidden=hidden, values=1_020)


PRESETS: dict[str, DFSMNConfig] = {
    "dfsmn-tiny": DFSMNConfig(
        d_model=64, layers=4, filter_length=1_024, hidden=256, vocabulary=256, predicted=256, values=0, ahead=0
    ),
    "dfsmn-s": _recipe(384, 6, 1_024),
    "dfsmn-m": _recipe(512, 6, 2_048),
    "dfsmn-l": _recipe(512, 10, 2_048),
}


class _Last(nn.Module):
    """What follows the last block, position by position: two hidden layers, a projection, a norm."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(d_model, hidden), nn.Linear(hidden, hidden)
        self.project, self.norm = nn.Linear(hidden, d_model, bias=False), nn.LayerNorm(d_model)
        for linear in (self.first, self.second, self.project):
            nn.init.xavier_uniform_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(F.relu(self.second(F.relu(self.first(x)))))
        normed: Tensor = self.norm(y.to(self.norm.weight.dtype))  # no residual stream keeps it wide under autocast
        return normed


class DFSMN(WindowedModel):
    """Numbers (B, L, values), or tokens (B, L), to hidden states (B, L, d_model).

    Causal with `ahead = 0`, and then `stream` takes one position at a time; else it sees `latency` positions ahead, and
    `delayed_stream` gives its results so much later.
    """

    keep = (Fsmn, _Last)

    def mixer(self, config: DFSMNConfig, backend: str, conv: LongConvOp) -> Fsmn:
        return Fsmn(
            config.d_model,
            config.hidden,
            back=config.back,
            ahead=config.ahead,
            stride=config.stride,
            backend=backend,
            conv=conv,
        )

    def last_norm(self, config: DFSMNConfig) -> _Last:
        return _Last(config.d_model, config.hidden)


Config, Model = DFSMNConfig, DFSMN
