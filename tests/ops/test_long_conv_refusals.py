"""Wrong calls get one sentence: what was asked, what was given, what is allowed, what to do."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from devices import here, ones, randn

import longwave
from longwave import backends
from longwave.errors import ArgumentError, LongwaveError, UnsupportedError

B, H, L, K = 2, 4, 8, 5


def _call(**changed: Any) -> torch.Tensor:
    kwargs = {"u": randn(B, H, L), "k": randn(H, K)}
    return longwave.long_conv(**{**kwargs, **changed})


r = randn
CASES: list[tuple[dict[str, Any], str]] = [
    ({"u": [1.0, 2.0]}, r"u is of type list; give a torch.Tensor"),
    ({"u": None}, r"u is of type NoneType; give a torch.Tensor"),
    ({"u": ones(B, H, L, dtype=torch.int64)}, r"u has dtype int64; allowed are float64 or float32 or bfloat16"),
    ({"u": ones(B, H, L, dtype=torch.bool)}, r"u has dtype bool; allowed are"),
    ({"u": r(L)}, r"u has shape \(8,\); layout='BHL' takes \(B, H, L\), or \(H, L\) without a batch"),
    ({"u": r(1, 1, 1, 1), "layout": "BLH"}, r"layout='BLH' takes \(B, L, H\), or \(L, H\)"),
    ({"u": r(0, H, L)}, r"u is empty, shape \(0, 4, 8\); every dimension must be at least 1"),
    ({"u": r(B, H, 0)}, r"u is empty, shape \(2, 4, 0\)"),
    ({"k": 3.0}, r"k is of type float; give a torch.Tensor"),
    ({"k": r(H, 0)}, r"k has no taps, shape \(4, 0\); give at least one"),
    ({"k": r(K)}, r"k has shape \(5,\); allowed are \(H, K\), \(1, K\), \(G, K\) with G dividing H, and \(B, H, K\)"),
    ({"k": r(3, K)}, r"k has 3 rows, shape \(3, 5\); their number must divide the 4 channels of u"),
    ({"k": r(0, K)}, r"k has 0 rows"),
    ({"k": r(8, K)}, r"k has 8 rows, shape \(8, 5\); their number must divide the 4 channels"),
    ({"k": r(3, H, K)}, r"k has shape \(3, 4, 5\); one filter a sample is \(B, H, K\) with B=2 and H=4"),
    ({"u": r(H, L), "k": r(1, H, K)}, r"one filter a sample.*but u has no batch"),
    ({"k": r(H, K, dtype=torch.float64)}, r"k has dtype float64; with u of float32 it must be float32; convert it with .to"),
    ({"k": r(H, K).bfloat16()}, r"k has dtype bfloat16; with u of float32 it must be float32"),
    ({"u": r(B, H, L).half(), "k": r(H, K).bfloat16()}, r"with u of float16 it must be float32 or float16"),
    ({"k": torch.randn(H, K, device="meta")}, r"k is on meta and u on \S+; move one of them with .to"),
    ({"D": r(1)}, r"D has shape \(1,\); give one value a channel, shape \(4,\)"),
    ({"D": r(H, dtype=torch.float64)}, r"D has dtype float64"),
    ({"D": 1.0}, r"D is of type float; give a torch.Tensor"),
    ({"pregate": r(B, L, H)}, r"pregate has shape \(2, 8, 4\); with u \(2, 4, 8\), layout='BHL'.* it must be \(2, 4, 8\)"),
    ({"postgate": r(B, H, L), "mode": "full"}, r"postgate has shape \(2, 4, 8\); .*mode='full' it must be \(2, 4, 12\)"),
    ({"pregate": r(B, H, L).half()}, r"pregate has dtype float16; with u of float32 it must be float32"),
    ({"mode": "valid"}, r"mode='valid' is unknown; choose one of 'causal', 'circular', 'same', 'full'"),
    ({"mode": None}, r"mode=None is unknown"),
    ({"mode": ["causal"]}, r"mode=\['causal'\] is unknown"),
    ({"layout": {}}, r"layout=\{\} is unknown"),
    ({"precision": []}, r"precision=\[\] is unknown"),
    ({"backend": ["plain"]}, r"backend=\['plain'\] is unknown"),
    ({"u": here(torch.eye(4)).to_sparse()}, r"u is a torch.sparse_coo tensor; give a dense one"),
    ({"k": here(torch.eye(4)).to_sparse()}, r"k is a torch.sparse_coo tensor; give a dense one"),
    ({"cu_seqlens": torch.zeros(2, dtype=torch.int32, device="meta"), "u": r(1, H, L)}, r"cu_seqlens is on the meta device"),
    ({"layout": "BCL"}, r"layout='BCL' is unknown; choose one of 'BHL', 'BLH'"),
    ({"precision": "low"}, r"precision='low' is unknown; choose one of None, 'high'"),
    ({"backend": "cuda"}, r"backend='cuda' is unknown; choose 'auto' or one of ('cpu', )?'plain'"),
    ({"backend": 3}, r"backend=3 is unknown"),
    ({"k_rev": r(H, K), "mode": "same"}, r"k_rev does not go with mode='same'; drop it or use mode 'causal', 'circular'"),
    ({"k_rev": r(H, K), "mode": "full"}, r"k_rev does not go with mode='full'"),
    ({"k_rev": r(H, 0)}, r"k_rev has no taps"),
    ({"k_rev": r(3, K)}, r"k_rev has 3 rows"),
    ({"history": r(B, H, 3), "mode": "circular"}, r"history does not go with mode='circular'; .* use mode 'causal'"),
    ({"history": r(B, 3, H)}, r"history has shape \(2, 3, 4\); it holds the P >= 1 samples before u.*\(2, 4, P\)"),
    ({"history": r(B, H, 0)}, r"history has shape \(2, 4, 0\)"),
    ({"history": r(H, 3)}, r"history has shape \(4, 3\)"),
    ({"history": r(B, H, 3).half()}, r"history has dtype float16"),
    ({"cu_seqlens": [0, 8]}, r"cu_seqlens is list; give an int32 tensor of shape \(S \+ 1,\)"),
    ({"cu_seqlens": here(torch.tensor([0, 8]))}, r"cu_seqlens is int64 of shape \(2,\); give an int32 tensor"),
    ({"cu_seqlens": torch.tensor([0, 8], dtype=torch.int32)}, r"u has a batch of 2; pack them into shape \(1, H, total\)"),
    ({"u": r(1, H, L), "cu_seqlens": torch.tensor([0], dtype=torch.int32)}, r"has 1 entries; S documents have S \+ 1 >= 2"),
    ({"u": r(1, H, L), "cu_seqlens": torch.tensor([0, 9], dtype=torch.int32)}, r"runs from 0 to 9; it must start at 0 and end"),
    ({"u": r(1, H, L), "cu_seqlens": torch.tensor([1, 8], dtype=torch.int32)}, r"runs from 1 to 8"),
    ({"u": r(1, H, L), "cu_seqlens": torch.tensor([0, 5, 3, 8], dtype=torch.int32)}, r"falls from 5 to 3 at document 1"),
    ({"cu_seqlens": torch.tensor([0, 8], dtype=torch.int32), "mode": "full"}, r"cu_seqlens does not go with mode='full'"),
]


@pytest.mark.parametrize(("changed", "sentence"), CASES, ids=[re.sub(r"\W+", "_", s)[:50] for _, s in CASES])
def test_a_wrong_call_gets_one_sentence(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence) as caught:
        _call(**changed)
    message = str(caught.value)
    assert "\n" not in message
    assert isinstance(caught.value, ValueError)


def test_the_right_call_beside_them_runs() -> None:
    """The control: the arguments that the cases above change are accepted."""
    assert _call().shape == (B, H, L)


def test_a_named_backend_is_refused_rather_than_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in backends.names():
        monkeypatch.setattr(backends.load(name), "refuses", lambda problem: "it takes no float32")
    backends._chosen.cache_clear()
    with pytest.raises(
        UnsupportedError, match=r"backend='plain' cannot run this call: it takes no float32; use backend='auto'"
    ):
        _call(backend="plain")
    with pytest.raises(UnsupportedError, match=r"no backend takes this call: .*not plain: it takes no float32"):
        _call()
    backends._chosen.cache_clear()


PLANS: list[tuple[dict[str, Any], str]] = [
    ({"u_shape": (2, 4, -1)}, r"u_shape is -1; give a whole number that is not negative"),
    ({"u_shape": (2, 4.5, 8)}, r"u_shape is 4.5; give a whole number"),
    ({"u_shape": (2, 4, 0)}, r"u is empty"),
    ({"u_shape": ()}, r"u has shape \(\)"),
    ({"k_shape": (3, 8)}, r"k has 3 rows"),
    ({"k_shape": ()}, r"k has shape \(\)"),
    ({"history": -1}, r"history is -1; give a whole number that is not negative"),
    ({"history": 4, "mode": "same"}, r"history does not go with"),
    ({"mode": "valid"}, r"mode='valid' is unknown"),
    ({"layout": "LBH"}, r"layout='LBH' is unknown"),
    ({"u_shape": 5}, r"u_shape is 5; give a sequence of whole numbers"),
    ({"u_shape": None}, r"u_shape is None"),
    ({"u_shape": (True, 4, 8)}, r"u_shape is True"),
    (
        {"u_shape": (1, 4, 2**41), "k_shape": (4, 2**41)},
        r"a transform of [0-9,]+ samples was asked for; the longest is 1,099,511,627,776",
    ),
    ({"history": "3"}, r"history is '3'; give a whole number"),
    ({"history": 1.5}, r"history is 1.5"),
    ({"dtype": "float32"}, r"dtype is 'float32'; give a torch.dtype"),
    ({"mode": ["x"]}, r"mode=\['x'\] is unknown"),
    ({"cu_seqlens": 5}, r"cu_seqlens is 5; give a sequence"),
    ({"cu_seqlens": (0, "a")}, r"cu_seqlens is 'a'; give a whole number"),
    ({"cu_seqlens": (0, 3.7, 8)}, r"cu_seqlens is 3.7"),
    ({"cu_seqlens": (0, 2**33)}, r"cu_seqlens holds 8589934592; boundaries are int32"),
    ({"device": "abacus"}, r"device='abacus' is unknown"),
    ({"backend": "fast"}, r"backend='fast' is unknown"),
    ({"cu_seqlens": (0, 4)}, r"cu_seqlens goes with documents packed into one row"),
    ({"u_shape": (1, 4, 8), "cu_seqlens": (0, 4)}, r"cu_seqlens runs from 0 to 4"),
]


@pytest.mark.parametrize(("changed", "sentence"), PLANS, ids=[re.sub(r"\W+", "_", s)[:50] for _, s in PLANS])
def test_a_wrong_plan_gets_one_sentence(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LongwaveError, match=sentence):
        longwave.plan(**{"u_shape": (2, 4, 8), "k_shape": (4, 8), **changed})
