"""Layers: parameters and one operator call each. Parallelism and losses' reductions come from outside."""

from __future__ import annotations

from longwave.nn.decode import LayerStream, SequenceStream
from longwave.nn.filters import HyenaFilter, Sine
from longwave.nn.hyena import HyenaOperator, HyenaStream
from longwave.nn.inputs import Inputs
from longwave.nn.long_conv import LongConv1d
from longwave.nn.loss import chunked_cross_entropy
from longwave.nn.residual import ResidualBlock
from longwave.nn.short_conv import ShortConv1d

__all__ = [
    "HyenaFilter",
    "HyenaOperator",
    "HyenaStream",
    "Inputs",
    "LayerStream",
    "LongConv1d",
    "ResidualBlock",
    "SequenceStream",
    "ShortConv1d",
    "Sine",
    "chunked_cross_entropy",
]
