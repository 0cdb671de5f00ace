from __future__ import annotations

from collections.abc import Iterator

import devices
import pytest
import torch


@pytest.fixture(autouse=True)
def _where_the_tests_run() -> Iterator[None]:
    """Layers and tensors that a test makes are on the device of `pytest --device`."""
    if devices.DEVICE == "cpu":
        yield
        return
    with torch.device(devices.DEVICE):
        yield
