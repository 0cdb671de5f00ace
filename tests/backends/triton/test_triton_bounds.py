"""The tests' own eye on memory: what an interpreted kernel reads or writes beside its tensors is seen."""

from __future__ import annotations

import pytest
import torch

from longwave.backends.triton import fused

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU compute-sanitizer sees to it")


@pytest.mark.parametrize(("read", "written"), [(9, 10), (10, 9)])
def test_an_address_beside_the_tensors_is_seen(read: int, written: int) -> None:
    def add_up(read: int, written: int) -> torch.Tensor:
        total = torch.empty(written)
        fused.add_up[(1,)](torch.ones(read), total, 10, 1, 1, TILE=64)
        return total

    assert add_up(10, 10).tolist() == [1.0] * 10
    with pytest.raises(Exception, match=r"1 of 10 addresses that are (read from|written to) are no tensor"):
        add_up(read, written)
