"""The reference itself, against values worked out by hand and against NumPy's own direct convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from longwave.reference import long_conv_ref, short_conv_ref

pytestmark = pytest.mark.cpu_only("references are computed on the CPU")

U = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
K = torch.tensor([[10.0, 1.0, 0.5]])


@pytest.mark.parametrize(
    ("kwargs", "want"),
    [
        ({}, [10, 21, 32.5, 44]),
        ({"mode": "full"}, [10, 21, 32.5, 44, 5.5, 2]),
        ({"mode": "same"}, [21, 32.5, 44, 5.5]),
        ({"mode": "circular"}, [10 + 4 + 1.5, 21 + 2, 32.5, 44]),
        ({"k_rev": torch.tensor([[0.0, 100.0]])}, [210, 321, 432.5, 44]),
        ({"D": torch.tensor([2.0])}, [12, 25, 38.5, 52]),
        ({"pregate": torch.tensor([[[1.0, 0.0, 1.0, 0.0]]])}, [10, 1, 30.5, 3]),
        ({"postgate": torch.tensor([[[0.0, 1.0, 0.0, 2.0]]])}, [0, 21, 0, 88]),
        ({"history": torch.tensor([[[7.0, 8.0]]])}, [10 + 8 + 3.5, 21 + 4, 32.5, 44]),
        ({"cu_seqlens": torch.tensor([0, 1, 4], dtype=torch.int32)}, [10, 20, 32, 44]),
        (
            {"mode": "circular", "cu_seqlens": torch.tensor([0, 2, 4], dtype=torch.int32)},
            [10 + 2 + 0.5, 21 + 1, 30 + 4 + 1.5, 43 + 2],
        ),
    ],
)
def test_values_worked_by_hand(kwargs: dict, want: list[float]) -> None:
    assert long_conv_ref(U, K, **kwargs)[0, 0].tolist() == want
    assert (
        long_conv_ref(U[0], K, **{n: x[0] if n in ("pregate", "postgate", "history") else x for n, x in kwargs.items()})[
            0
        ].tolist()
        == want
    )


@pytest.mark.parametrize(("L", "K"), [(1, 1), (5, 9), (9, 5), (30, 30)])
def test_full_equals_numpy(L: int, K: int) -> None:
    u, k = torch.randn(1, 1, L, dtype=torch.float64), torch.randn(1, K, dtype=torch.float64)
    full = np.convolve(u[0, 0].numpy(), k[0].numpy())
    np.testing.assert_allclose(long_conv_ref(u, k, mode="full")[0, 0].numpy(), full, rtol=1e-12, atol=1e-12)
    start = (K - 1) // 2  # as scipy.signal: the centre of the full result, L samples
    np.testing.assert_allclose(long_conv_ref(u, k, mode="same")[0, 0].numpy(), full[start : start + L], rtol=1e-12, atol=1e-12)


def test_short_conv_worked_by_hand() -> None:
    w = torch.tensor([[0.5, 1.0, 10.0]])
    assert short_conv_ref(U, w)[0, 0].tolist() == [10, 21, 32.5, 44]
    assert short_conv_ref(U, w, torch.tensor([1.0]), state=torch.tensor([[[7.0, 8.0]]]))[0, 0].tolist() == [22.5, 26, 33.5, 45]
