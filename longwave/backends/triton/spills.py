"""Kernels that are known to spill registers: bytes of a thread's stack, by the part they are compiled for.

`longwave kernels --json` with Triton 3.9.0. A few bytes cost little; what 16·16·16 spills on sm_80 and sm_89 makes it the wrong
transform there. More warps or fewer do not mend what is left here, and no GPU has timed what would.
"""

from __future__ import annotations

KNOWN: dict[str, dict[str, int]] = {
    "fused 16·16·16 fp16": {"sm_80": 408, "sm_89": 280},
    "fused 16·16·16 fp16 gated": {"sm_80": 480, "sm_89": 296},
    "filter gradient 16·16·16 fp16": {"sm_80": 10792, "sm_89": 3864, "sm_90": 24},
    "fused 64·32 fp16 gated": {"sm_90": 16},
    "fused 80·16 fp16 gated": {"sm_90": 16},
    "fused 48·16 fp16": {"sm_90": 8},
    "windows 32·16 fp16": {"sm_90": 16},
    "fused 16·16·16 bf16": {"sm_80": 440, "sm_89": 328},
    "fused 16·16·16 bf16 gated": {"sm_80": 496, "sm_89": 272},
    "filter gradient 16·16·16 bf16": {"sm_80": 10792, "sm_89": 3864, "sm_90": 24},
    "fused 64·32 bf16 gated": {"sm_90": 16},
    "filter gradient 64·32 fp32": {"sm_80": 104, "sm_89": 80, "sm_90": 96},
    "filter gradient 48·32 fp32": {"sm_80": 8, "sm_89": 16, "sm_90": 24},
    "filter gradient 48·16 fp32": {"sm_90": 88},
    "filter gradient 32·16 fp32": {"sm_80": 88, "sm_89": 72, "sm_90": 128},
    "fused 16·16 fp32": {"sm_80": 56, "sm_89": 56},
    "fused 16·16 fp32 gated": {"sm_80": 40, "sm_89": 72},
    "filter gradient 16·16 fp32": {"sm_80": 312, "sm_89": 336},
    "windows 16·16 fp32": {"sm_80": 32, "sm_89": 80},
    "windows 48·16 fp32": {"sm_80": 80, "sm_89": 88, "sm_90": 88},
    "windows 48·32 fp32": {"sm_80": 8},
    "filter gradient of split rows 48·32 fp32": {"sm_90": 8},
    "spectra 16·16·16": {"sm_80": 14016, "sm_89": 10296},
    "filters from spectra 16·16·16": {"sm_80": 8000, "sm_89": 2496},
    "filters from spectra 48·32": {"sm_80": 8},
}
