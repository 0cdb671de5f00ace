"""Convolutions over a sequence that is split across processes: `torch.distributed`, and nothing home-made below it.

The ranks of one mesh dimension own contiguous spans of the sequence, in order; lengths may differ, and a span may be empty.
`context_parallel_conv` and `context_parallel_short_conv` keep the signatures of `longwave.long_conv` and `longwave.short_conv`,
with the mesh dimension beside them; `operators` are what a model is handed; `plan` says what would be done. `mesh_of` makes a
mesh whose collectives give up in time; any other one-dimensional `DeviceMesh` serves as well.
"""

from longwave.distributed.explain import plan
from longwave.distributed.long_conv import context_parallel_conv
from longwave.distributed.mesh import mesh_of
from longwave.distributed.operators import operators
from longwave.distributed.short_conv import context_parallel_short_conv

__all__ = ["context_parallel_conv", "context_parallel_short_conv", "mesh_of", "operators", "plan"]
