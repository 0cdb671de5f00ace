"""Kernels that are known to spill registers: bytes of a thread's stack, by the part they are compiled for.

`longwave kernels --json` with Triton 3.9.0. What is left is float32, whose products go three times, and a few bytes of 16-bit
kernels; more warps or fewer do not mend it (16 warps spill ten times as much), and no GPU has timed what it costs.
"""

from __future__ import annotations

KNOWN: dict[str, dict[str, int]] = {
    "filter gradient 16·16·16 fp16": {"sm_90": 72},
    "fused 80·16 fp16 gated": {"sm_80": 8, "sm_89": 8},
    "fused 48·16 fp16": {"sm_89": 8},
    "fused 48·32 bf16 gated": {"sm_89": 8, "sm_90": 8},
    "fused 80·16 bf16 gated": {"sm_90": 8},
    "fused 48·16 bf16": {"sm_89": 8},
    "windows 32·16 bf16": {"sm_80": 16},
    "windows 48·32 bf16": {"sm_90": 16},
    "filter gradient 16·16·16 bf16": {"sm_90": 72},
    "filter gradient 64·32 fp32": {"sm_80": 104, "sm_89": 80, "sm_90": 96},
    "filter gradient 48·32 fp32": {"sm_80": 8, "sm_89": 16, "sm_90": 24},
    "filter gradient 48·16 fp32": {"sm_90": 56},
    "filter gradient 32·16 fp32": {"sm_80": 96, "sm_89": 72, "sm_90": 128},
    "fused 16·16 fp32": {"sm_80": 32, "sm_89": 32},
    "fused 16·16 fp32 gated": {"sm_80": 40, "sm_89": 40},
    "filter gradient 16·16 fp32": {"sm_80": 312, "sm_89": 384},
    "windows 16·16 fp32": {"sm_80": 24, "sm_89": 112},
    "windows 48·16 fp32": {"sm_80": 80, "sm_89": 96, "sm_90": 88},
    "windows 48·32 fp32": {"sm_80": 24},
    "filter gradient of split rows 48·32 fp32": {"sm_90": 8},
    "filters from spectra 64·32": {"sm_89": 8},
    "filters from spectra 48·32": {"sm_80": 8},
}
