"""Layers: parameters and one operator call each. Parallelism and losses' reductions come from outside."""

from __future__ import annotations

from longwave.nn.butterfly import Butterfly, ButterflyConv1d
from longwave.nn.conv_glu import ConvGLU, FilterConv1d
from longwave.nn.conv_ssm import ConvSSM
from longwave.nn.decode import LayerStream, SequenceStream
from longwave.nn.explicit_filters import MultiScaleFilter, SquashedFilter
from longwave.nn.filters import HyenaFilter, Sine
from longwave.nn.fsmn import Fsmn, GatedFsmn, MemoryConv1d, WindowStream
from longwave.nn.h3 import H3
from longwave.nn.hyena import HyenaOperator, HyenaStream
from longwave.nn.hyper_zzw import CoordinateNetwork, HyperZZW
from longwave.nn.inputs import Inputs
from longwave.nn.long_conv import LongConv1d
from longwave.nn.loss import chunked_cross_entropy
from longwave.nn.monarch import MonarchLinear
from longwave.nn.monarch_mixer import MonarchMixer
from longwave.nn.residual import ResidualBlock
from longwave.nn.s4d import S4D
from longwave.nn.s5 import S5
from longwave.nn.short_conv import ShortConv1d
from longwave.nn.state_space import StateSpaceConv1d, StateSpaceFilter
from longwave.nn.toeplitz_attention import ToeplitzAttention

__all__ = [
    "H3",
    "S4D",
    "S5",
    "Butterfly",
    "ButterflyConv1d",
    "ConvGLU",
    "ConvSSM",
    "CoordinateNetwork",
    "FilterConv1d",
    "Fsmn",
    "GatedFsmn",
    "HyenaFilter",
    "HyenaOperator",
    "HyenaStream",
    "HyperZZW",
    "Inputs",
    "LayerStream",
    "LongConv1d",
    "MemoryConv1d",
    "MonarchLinear",
    "MonarchMixer",
    "MultiScaleFilter",
    "ResidualBlock",
    "SequenceStream",
    "ShortConv1d",
    "Sine",
    "SquashedFilter",
    "StateSpaceConv1d",
    "StateSpaceFilter",
    "ToeplitzAttention",
    "WindowStream",
    "chunked_cross_entropy",
]
