"""S4D both ways: what the suite, which takes models as they are by default, does not see."""

from __future__ import annotations

import pytest
import torch

from longwave.errors import ArgumentError
from longwave.models.s4d import PRESETS, S4DConfig, S4DModel


def test_a_two_sided_model_sees_both_sides_and_is_not_streamed() -> None:
    config = S4DConfig(d_model=8, layers=2, filter_length=48, vocabulary=0, predicted=0, values=2, state=4, two_sided=True)
    model = S4DModel(config).double()
    u = torch.randn(1, 40, 2, dtype=torch.float64)
    changed = u.clone()
    changed[:, 20] += 1
    difference = (model(changed) - model(u)).abs().amax(dim=(0, 2))
    assert (difference > 1e-9).all()
    assert not model.causal
    cu_seqlens = torch.tensor([0, 21, 40], dtype=torch.int32)
    apart = (model(changed, cu_seqlens=cu_seqlens) - model(u, cu_seqlens=cu_seqlens)).abs().amax(dim=(0, 2))
    assert not apart[21:].any()
    with pytest.raises(ArgumentError, match="both ways"):
        model.stream(1)


def test_presets_have_the_published_sizes() -> None:
    sizes = {name: (config.d_model, config.layers, config.state, config.dt_min) for name, config in PRESETS.items()}
    assert sizes["s4d-lra-image"] == (512, 6, 64, 1e-3)
    assert sizes["s4d-lra-pathfinder"] == (256, 6, 64, 1e-3)
    assert sizes["s4d-lra-pathx"] == (256, 6, 64, 1e-4)
    assert all(PRESETS[name].two_sided for name in sizes if "lra" in name)
