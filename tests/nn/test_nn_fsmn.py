"""Memory blocks against their sums, written out tap by tap in float64; streams of what looks ahead."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.models.dfsmn import DFSMN, PRESETS, DFSMNConfig
from longwave.nn import Fsmn, GatedFsmn, MemoryConv1d, WindowStream


def summed(layer: MemoryConv1d, x: torch.Tensor) -> torch.Tensor:
    """The definition, sample by sample."""
    y = x.clone() if layer.skip else torch.zeros_like(x)
    L, s = x.shape[1], layer.stride
    for t in range(L):
        for i in range(layer.weight.shape[1]):
            if t - s * i >= 0:
                y[:, t] += layer.weight[:, i] * x[:, t - s * i]
        for j in range(1, 1 + (0 if layer.weight_ahead is None else layer.weight_ahead.shape[1])):
            if t + s * j < L:
                y[:, t] += layer.weight_ahead[:, j - 1] * x[:, t + s * j]
    return y


@pytest.mark.parametrize(("back", "ahead", "stride"), [(0, 0, 1), (3, 0, 2), (4, 3, 1), (5, 2, 3), (0, 4, 2), (20, 20, 2)])
@pytest.mark.parametrize("skip", [False, True])
def test_memory_conv1d_is_its_sum(back: int, ahead: int, stride: int, skip: bool) -> None:
    layer = MemoryConv1d(3, back, ahead, stride=stride, skip=skip).double()
    x = torch.randn(2, 30, 3, dtype=torch.float64)
    with torch.no_grad():
        expected = summed(layer, x)
        torch.testing.assert_close(layer(x), expected, rtol=1e-11, atol=1e-12)
    assert layer.reach == (stride * back, stride * ahead)
    assert expected.abs().max() > 0.1


def test_fsmn_is_its_formula_and_streams() -> None:
    layer = Fsmn(4, 6, back=3, stride=2).double()
    u = torch.randn(2, 40, 4, dtype=torch.float64)
    with torch.no_grad():
        p = torch.clamp(u @ layer.hidden.weight.T + layer.hidden.bias, min=0) @ layer.out_proj.weight.T
        expected = summed(layer.memory, p)
        torch.testing.assert_close(layer(u), expected, rtol=1e-11, atol=1e-12)
    stream = layer.stream(2, max_rollback=2)
    parts = [stream.prefill(u[:, :10]), *(stream.step(u[:, t])[:, None] for t in range(10, 20)), stream.extend(u[:, 20:])]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=1e-10, atol=1e-11)
    with pytest.raises(ArgumentError, match="looks ahead"):
        Fsmn(4, 6, back=3, ahead=1).stream(1)


def test_gated_fsmn_is_its_formula() -> None:
    layer = GatedFsmn(4, 6, back=3, ahead=2, depth=3).double()
    u = torch.randn(2, 30, 4, dtype=torch.float64)

    def norm(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    def prelu(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, 0.25 * x)

    with torch.no_grad():
        x = norm(prelu(layer.in_proj(u)))
        branches = []
        for linear, local in zip(layer.branches, layer.local, strict=True):
            s = norm(x) @ linear.weight.T + linear.bias
            branches.append(summed(local, s / (1 + torch.exp(-s))))
        s, gate = branches
        os = [F.relu(layer.hidden(s)) @ layer.project.weight.T]
        for i, conv in enumerate(layer.dilated):
            total = torch.zeros_like(os[0])
            for j, o in enumerate(reversed(os)):  # the newest first
                part = MemoryConv1d(6, 3, 2, stride=2**i).double()
                part.weight.copy_(conv.weight[6 * j : 6 * j + 6])
                part.weight_ahead.copy_(conv.weight_ahead[6 * j : 6 * j + 6])
                total += summed(part, o)
            os.append(prelu(norm(total)))
        expected = layer.out_proj(norm(gate * (s + os[-1]) + x))
        torch.testing.assert_close(layer(u), expected, rtol=1e-9, atol=1e-10)
    assert layer.reach == (8 + 3 * 7, 8 + 2 * 7)
    assert GatedFsmn(4, 6, ahead=0).reach[1] == 0


def test_gated_fsmn_streams_unless_it_looks_ahead() -> None:
    layer = GatedFsmn(4, 6, back=3, ahead=0, depth=3).double()
    u = torch.randn(2, 60, 4, dtype=torch.float64)
    stream = layer.stream(2, max_rollback=3)
    parts = [stream.prefill(u[:, :10])]
    for t in range(10, 40):
        parts.append(stream.step(u[:, t])[:, None])
        stream.extend(torch.randn(2, 3, 4, dtype=torch.float64))
        stream.rollback(3)
    parts.append(stream.extend(u[:, 40:]))
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(parts, dim=1), layer(u), rtol=1e-9, atol=1e-10)
    with pytest.raises(ArgumentError, match="looks ahead"):
        GatedFsmn(4, 6, back=3, ahead=1).stream(1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("what", ["gated", "dfsmn"])
def test_windows_are_the_whole(what: str, seed: int) -> None:
    """Chunks of any size, results as soon as they are complete, and nothing but their window in them."""
    chance = random.Random(seed)
    if what == "gated":
        layer = GatedFsmn(4, 6, back=3, ahead=2).double()
        stream = WindowStream(layer, back=layer.reach[0], ahead=layer.reach[1])
        whole, u = layer, torch.randn(2, 150, 4, dtype=torch.float64)
    else:
        config = DFSMNConfig(d_model=4, layers=2, filter_length=48, hidden=6, values=3, back=3, ahead=2, stride=2)
        whole = DFSMN(config).double()
        assert not whole.causal
        assert whole.latency == 8
        stream, u = whole.delayed_stream(), torch.randn(2, 150, 3, dtype=torch.float64)
    for _ in range(2):  # it begins anew
        t, parts = 0, []
        while t < 150:
            n = min(150 - t, chance.choice([1, 2, 30, 70]))
            parts.append(stream.extend(u[:, t : t + n]))
            t += n
            assert sum(part.shape[1] for part in parts) == max(0, t - stream.ahead)
        parts.append(stream.finish())
        with torch.no_grad():
            torch.testing.assert_close(torch.cat(parts, dim=1), whole(u), rtol=1e-9, atol=1e-10)
    stream.extend(u)
    with pytest.raises(ArgumentError, match="goes on"):
        stream.extend(u[:1])


def test_a_model_sees_its_latency_ahead_and_no_more() -> None:
    config = DFSMNConfig(d_model=8, layers=2, filter_length=48, hidden=16, values=3, back=3, ahead=2, stride=2)
    model = DFSMN(config).double()
    u = torch.randn(1, 60, 3, dtype=torch.float64)
    changed = u.clone()
    changed[:, 40] += 1
    with torch.no_grad():
        difference = (model(changed) - model(u)).abs().amax(dim=(0, 2))
    assert difference[: 40 - model.latency].max() < 1e-12
    assert difference[40 - model.latency] > 1e-9
    with pytest.raises(ArgumentError, match="both ways"):
        model.stream(1)


def test_presets_have_the_published_sizes() -> None:
    sizes = {name: (config.layers, config.d_model, config.hidden) for name, config in PRESETS.items()}
    assert sizes["dfsmn-s"] == (6, 384, 1_024)
    assert sizes["dfsmn-l"] == (10, 512, 2_048)
    assert all((PRESETS[f"dfsmn-{s}"].back, PRESETS[f"dfsmn-{s}"].stride) == (20, 2) for s in "sml")


@pytest.mark.parametrize(
    "call",
    [
        lambda: MemoryConv1d(0, 3),
        lambda: MemoryConv1d(2, -1),
        lambda: MemoryConv1d(2, 1, stride=0),
        lambda: GatedFsmn(4, 0),
        lambda: WindowStream(lambda u: u, back=-1, ahead=0),
        lambda: WindowStream(lambda u: u, back=1, ahead=0).finish(),
    ],
)
def test_memory_blocks_refuse(call) -> None:
    with pytest.raises(ArgumentError):
        call()
