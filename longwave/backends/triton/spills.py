"""Kernels that are known to spill registers: bytes of a thread's stack, by the part they are compiled for.

`longwave kernels --json`; the compiler of another version of Triton spills a few bytes elsewhere (3.6.0 in filter gradients of
float16 on sm_90). What is left is float32, whose products go three times, and 8 to 24 bytes of 16-bit kernels; more warps or
fewer do not mend it, and no GPU has timed what it costs.
"""

from __future__ import annotations

TRITON = "3.9.0"
KNOWN: dict[str, dict[str, int]] = {
    "fused 80·16 fp16 gated": {"sm_80": 8, "sm_89": 8},
    "fused 48·16 fp16": {"sm_89": 8},
    "fused 112·32 fp16 of both planes, gated": {"sm_90": 8},
    "fused 80·16 bf16 gated": {"sm_90": 8},
    "fused 48·16 bf16": {"sm_89": 8},
    "fused 112·32 bf16 of both planes": {"sm_80": 8},
    "fused 112·32 bf16 of both planes, gated": {"sm_90": 8},
    "fused 96·32 bf16 of both planes, gated": {"sm_80": 8},
    "filter gradient of both planes 80·32 bf16": {"sm_80": 16, "sm_89": 16},
    "fused 64·32 bf16 of both planes, gated": {"sm_89": 24, "sm_90": 24},
    "filter gradient of both planes 64·32 bf16": {"sm_80": 8},
    "filter gradient 64·32 fp32": {"sm_80": 24, "sm_89": 24, "sm_90": 48},
    "filter gradient 32·16 fp32": {"sm_80": 16, "sm_89": 16, "sm_90": 64},
    "fused 16·16 fp32": {"sm_80": 32, "sm_89": 32},
    "fused 16·16 fp32 gated": {"sm_80": 40, "sm_89": 40},
    "filter gradient 16·16 fp32": {"sm_80": 160, "sm_89": 96},
    "windows 16·16 fp32": {"sm_80": 24, "sm_89": 112},
    "windows 48·32 fp32": {"sm_80": 24},
    "fused 64·32 fp32 of both planes": {"sm_80": 24, "sm_90": 40},
    "fused 64·32 fp32 of both planes, gated": {"sm_80": 32, "sm_89": 40, "sm_90": 88},
    "filter gradient of both planes 64·32 fp32": {"sm_80": 48, "sm_89": 128, "sm_90": 96},
    "fused 48·32 fp32 of both planes, gated": {"sm_80": 24},
    "filter gradient of both planes 48·32 fp32": {"sm_80": 24, "sm_89": 24, "sm_90": 72},
    "filter gradient of both planes 32·32 fp32": {"sm_80": 24, "sm_89": 24, "sm_90": 40},
    "filter gradient of both planes 32·16 fp32": {"sm_80": 32, "sm_89": 56, "sm_90": 128},
    "fused 16·16 fp32 of both planes, gated": {"sm_80": 64, "sm_89": 136},
    "filter gradient of both planes 16·16 fp32": {"sm_80": 224, "sm_89": 256},
    "filter gradient of split rows 48·32 fp32": {"sm_90": 8},
    "outer 128 fp32 of a part": {"sm_80": 8},
    "filters from spectra 64·32": {"sm_89": 8},
    "filters from spectra 48·32": {"sm_80": 8},
}
