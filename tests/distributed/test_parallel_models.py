"""A model that is handed the parallel operators trains on split sequences as one process does on whole ones."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import run, split
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from longwave import models
from longwave.distributed import operators
from longwave.errors import UnsupportedError
from longwave.models import SequenceModel
from longwave.models.hyena import HyenaConfig, HyenaLM
from longwave.nn.loss import chunked_cross_entropy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo is tested on Linux")

STEPS, CONTEXT = 50, 48
CONFIG = HyenaConfig(d_model=8, layers=2, filter_length=CONTEXT, d_inner=16, filter_features=5, filter_width=8)


def _trained(
    model: SequenceModel, span: slice, bounds: Tensor | None, mesh: DeviceMesh | None, steps: int = STEPS
) -> list[float]:
    """Losses of a few steps on this span of the same batches; sums over the ranks of a mesh."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(steps):
        tokens = torch.randint(0, 4, (1, CONTEXT + 1), generator=torch.Generator().manual_seed(step % 2))
        inputs, targets = tokens[:, :-1][:, span], tokens[:, 1:][:, span]
        optimizer.zero_grad()
        nats, count = chunked_cross_entropy(
            model(inputs, cu_seqlens=bounds if step % 2 else None), model.head_weight(), targets, ignore_index=4
        )
        (nats / CONTEXT).backward()
        total = nats.detach()
        if mesh is not None:
            for parameter in model.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad, group=mesh.get_group())
            dist.all_reduce(total, group=mesh.get_group())
        assert int(count) == targets.numel()
        optimizer.step()
        losses.append(total.item() / CONTEXT)
    return losses


def trains_alike(mesh: DeviceMesh, how: str, options: dict[str, Any]) -> None:
    rank, lengths = mesh.get_local_rank(), split(CONTEXT, mesh.size(), how)
    span = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))
    bounds = torch.tensor([0, 11, 30, CONTEXT], dtype=torch.int32)
    torch.manual_seed(0)
    alone = HyenaLM(CONFIG, **options).double()
    together = HyenaLM(CONFIG, **options, **operators(mesh)).double()
    together.load_state_dict(alone.state_dict())
    expected = _trained(alone, slice(None), bounds, None)
    assert expected[-1] < expected[0]
    assert _trained(together, span, bounds, mesh) == pytest.approx(expected, rel=1e-9)
    with torch.no_grad():
        tokens = torch.randint(0, 4, (1, CONTEXT), generator=torch.Generator().manual_seed(99))
        torch.testing.assert_close(together(tokens[:, span]), alone(tokens)[:, span], rtol=1e-7, atol=1e-9)


def test_fifty_steps_on_spans_are_those_on_whole_sequences(tmp_path: Path) -> None:
    run(2, [("uneven", trains_alike, ("uneven", {"activation_checkpointing": True}))], tmp_path)


FEW = 8
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("longconv", {"heads": 2, "smooth": 2}),
    ("longconv", {"two_sided": True}),
    ("sgconv", {}),
    ("sgconv", {"two_sided": True}),
    ("h3", {"d_inner": 32, "state": 8}),
    ("s4d", {"state": 8}),
    ("s4d", {"state": 8, "two_sided": True}),
    ("m2_bert", {"d_inner": 32}),
    ("m2_bert", {"d_inner": 32, "circular": True}),
    ("toeplitz", {"d_inner": 32, "features": 4}),
    ("toeplitz", {"d_inner": 32, "features": 4, "two_sided": True}),
]


def every_model_trains_alike(mesh: DeviceMesh, name: str, more: dict[str, Any]) -> None:
    """Losses of a few steps, and hidden states after them, are those of one process."""
    rank, lengths = mesh.get_local_rank(), split(CONTEXT, mesh.size(), "uneven")
    span = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))
    small = {"d_model": 16, "layers": 2, "filter_length": CONTEXT, "vocabulary": 5, "predicted": 4, "values": 0}
    config = dataclasses.replace(next(iter(models.find(name).PRESETS.values())), **small, **more)
    torch.manual_seed(0)
    alone = models.find(name).Model(config).double()
    together = models.find(name).Model(config, **operators(mesh)).double()
    together.load_state_dict(alone.state_dict())
    bounds = None if more.get("circular") else torch.tensor([0, 11, 30, CONTEXT], dtype=torch.int32)
    expected = _trained(alone, slice(None), bounds, None, FEW)
    assert expected[-1] < expected[0]
    assert _trained(together, span, bounds, mesh, FEW) == pytest.approx(expected, rel=1e-9)
    with torch.no_grad():
        tokens = torch.randint(0, 4, (1, CONTEXT), generator=torch.Generator().manual_seed(99))
        found, truth = together(tokens[:, span]), alone(tokens)
        torch.testing.assert_close(found, truth[:, span], rtol=1e-7, atol=1e-9)
        apart = models.find(name).Model(config).double()
        apart.load_state_dict(alone.state_dict())
        assert rank == 0 or not torch.allclose(
            apart(tokens[:, span]), found, rtol=1e-3, atol=1e-5
        )  # a span alone is not enough


def test_models_read_spans(tmp_path: Path) -> None:
    assert {name for name, module in models.available().items() if module.Model.splits} == {"hyena", *dict(MODELS)}
    run(2, [(f"{name} {more}", every_model_trains_alike, (name, more)) for name, more in MODELS], tmp_path)


def test_models_that_need_whole_sequences_refuse_spans() -> None:
    with pytest.raises(UnsupportedError, match="does not read spans of sequences; give it whole ones"):
        models.find("s5").Model(models.find("s5").PRESETS["s5-tiny"], split=True)
    with pytest.raises(UnsupportedError, match="a learned transform sees whole sequences"):
        models.find("longconv").Model(models.find("longconv").PRESETS["longconv-butterfly"], split=True)


@pytest.mark.slow
@pytest.mark.parametrize("world", [3, 4])
def test_fifty_steps_on_more_ranks(world: int, tmp_path: Path) -> None:
    run(world, [(how, trains_alike, (how, {})) for how in ("even", "uneven", "empty")], tmp_path)
