"""What all tests share: a fixed seed, and memory that is never accidentally right."""

from __future__ import annotations

from collections.abc import Iterator

import devices
import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where the values of operators are compared: cpu, or cuda")


def pytest_configure(config: pytest.Config) -> None:
    devices.choose(config.getoption("--device"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What speaks of the CPU alone says so, with the reason."""
    for item in items:
        mark = item.get_closest_marker("cpu_only")
        if mark is not None and devices.DEVICE != "cpu":
            item.add_marker(pytest.mark.skip(reason=mark.args[0]))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20231110)


@pytest.fixture
def nan_filled_memory() -> Iterator[None]:
    """`torch.empty` gives NaN, so that a sample nobody wrote cannot pass for a result."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
