"""Offsets that 32 bits do not hold: samples far apart in memory, and more than 2^31 of them."""

from __future__ import annotations

from pathlib import Path

import devices
import pytest
import torch
from arguments import Case, backends_here, compare, long_conv_ref
from devices import randn
from test_long_conv_values import EVERYTHING
from torch import Tensor

import longwave
from longwave.bench.tolerances import bound, relative_l2


@pytest.mark.cpu_only("every tensor would take 8 GiB of the device; test_triton_gpu.py has them in one piece of memory")
@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("L", "K"), [(40, 3), (60, 60), (90, 90)])
def test_samples_far_apart(L: int, K: int, dtype: torch.dtype, layout: str, backend: str) -> None:
    """More than 2^31 samples between the ends of an axis of every tensor, another one in each."""
    for seed in range(3):
        compare(Case(B=2, H=3, L=L, K=K, P=7, layout=layout, dtype=dtype, strides="far", seed=seed, **EVERYTHING), backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", backends_here())
def test_more_than_2_31_samples(backend: str) -> None:
    """Every row of the result and of the gradient: they are all the same one, which stands in memory once."""
    H, L, K = 2**15 + 3, 2**16, 100
    needed = 2 * (2 * H * L) + 2**31
    if _free_bytes() < needed:
        pytest.skip(f"the result and the gradient need {needed / 2**30:.0f} GiB of free memory")
    row, k = randn(1, 1, L).bfloat16(), randn(1, K) * K**-0.5
    u = row.expand(1, H, L).requires_grad_()
    y = longwave.long_conv(u, k, backend=backend)
    assert y.numel() > 2**31
    exact = row.double().requires_grad_()
    truth = long_conv_ref(exact, k)
    _all_rows_equal(y.detach(), truth.detach(), backend)
    dy = randn(1, 1, L).bfloat16()
    (du,) = torch.autograd.grad(y, u, dy.expand(1, H, L))
    _all_rows_equal(du, torch.autograd.grad(truth, exact, dy.double())[0], backend)


def _all_rows_equal(x: Tensor, truth: Tensor, backend: str) -> None:
    assert relative_l2(x[:, :1], truth) <= bound(x.dtype, truth.shape[-1], backend, truth=truth)
    for rows in x.split(2**8, dim=1):
        assert torch.equal(rows, x[:, :1].expand_as(rows))


def _free_bytes() -> int:
    """Of the tests' device; 0 where the system does not say."""
    if devices.DEVICE != "cpu":
        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
