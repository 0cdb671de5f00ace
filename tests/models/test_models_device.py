"""Models on the device of `pytest --device`: what they make there is what they make on the CPU."""

from __future__ import annotations

from typing import Any

import devices
import pytest
from micro import MICRO, drawn, made


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "config"), [(name, config) for name, configs in MICRO.items() for config in configs])
def test_a_model_and_its_gradients_are_those_of_the_cpu(name: str, config: Any) -> None:
    model, inputs = made(name, config).eval(), drawn(config, 48)
    found = []
    for device in ("cpu", devices.DEVICE):
        model.to(device).zero_grad()
        y = model(inputs.to(device))
        y.square().mean().backward()
        found.append({"y": y.detach().cpu()} | {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None})
    want, got = found
    assert want.keys() == got.keys()
    largest = max(x.norm() for x in want.values())
    for part, x in want.items():
        assert (got[part] - x).norm() <= 1e-9 * x.norm() + 1e-13 * largest, part
