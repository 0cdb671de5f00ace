"""The recurrent half of MossFormer2: gated memory blocks, for speech, with a latency that its sizes say.

Blocks of a `GatedFsmn`, each beside a shortcut, and a final norm.
Source: Zhao et al. 2023, MossFormer2 (arXiv 2312.11825), section 2.3.

The preset `mossformer2-fsmn` has the published sizes of these blocks (24 of them, 512 channels, a bottleneck of 256, 19 taps
on both sides, two dilated convolutions). What differs: in MossFormer2 a block of gated attention stands before each of them,
and encoder, masks and decoder around them; here there is no attention, and inputs and heads come from outside. Norms are over
channels, as `GatedFsmn` says.
"""

from __future__ import annotations

from dataclasses import dataclass

from longwave.models import WindowedModel, check_config
from longwave.nn.fsmn import GatedFsmn
from longwave.nn.long_conv import LongConvOp


@dataclass(frozen=True)
class GatedFsmnConfig:
    """Sizes of a `GatedFsmnModel`; every field survives JSON and TOML."""

    d_model: int
    layers: int
    filter_length: int  # the context the model is made for; filters are of `back` and `ahead` taps
    vocabulary: int = 0
    predicted: int = 0
    values: int = 512  # of a frame
    inner: int = 256
    back: int = 19
    ahead: int = 19  # 0: causal
    depth: int = 2

    def __post_init__(self) -> None:
        check_config(self, "inner", "back", "depth")


PRESETS: dict[str, GatedFsmnConfig] = {
    "gated-fsmn-tiny": GatedFsmnConfig(
        d_model=64, layers=3, filter_length=1_024, vocabulary=256, predicted=256, values=0, inner=48, ahead=0, depth=3
    ),
    "mossformer2-fsmn": GatedFsmnConfig(d_model=512, layers=24, filter_length=4_000),
}


class GatedFsmnModel(WindowedModel):
    """Numbers (B, L, values), or tokens (B, L), to hidden states (B, L, d_model).

    Causal with `ahead = 0`, and then `stream` takes one position at a time; else it sees `latency` positions ahead, and
    `delayed_stream` gives its results so much later.
    """

    keep = (GatedFsmn,)

    def mixer(self, config: GatedFsmnConfig, backend: str, conv: LongConvOp) -> GatedFsmn:
        return GatedFsmn(
            config.d_model,
            config.inner,
            back=config.back,
            ahead=config.ahead,
            depth=config.depth,
            backend=backend,
            conv=conv,
        )


Config, Model = GatedFsmnConfig, GatedFsmnModel
