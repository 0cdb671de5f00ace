"""Exact long convolutions in PyTorch: filters as long as the sequence, any length, any device, gradients everywhere."""

from longwave._version import __version__
from longwave.masks import FrequencyMask
from longwave.ops.explain import plan
from longwave.ops.long_conv import long_conv
from longwave.ops.prepared import PreparedFilter, prepare_filter
from longwave.ops.short_conv import short_conv
from longwave.ops.stream import Stream
from longwave.ops.stream_state import StreamState

__all__ = [
    "FrequencyMask",
    "PreparedFilter",
    "Stream",
    "StreamState",
    "__version__",
    "long_conv",
    "plan",
    "prepare_filter",
    "short_conv",
]
