"""S5 over segments and episodes, FlowState over sampling rates: what the suite does not see."""

from __future__ import annotations

import pytest
import torch

from longwave.errors import ArgumentError
from longwave.models.flowstate import FlowStateConfig, FlowStateEncoder
from longwave.models.s5 import PRESETS, S5Config, S5Model
from longwave.nn import S5


def by_steps(layer: S5, u: torch.Tensor) -> torch.Tensor:
    """A state space position by position, from its parameters."""
    dt = layer.log_dt.exp()
    a = torch.complex(-layer.log_decay.exp(), layer.frequency)
    B, C = torch.view_as_complex(layer.B), torch.view_as_complex(layer.C)
    x, y = torch.zeros(u.shape[0], layer.state // 2, dtype=torch.complex128), []
    for t in range(u.shape[1]):
        x = torch.exp(a * dt) * x + (torch.exp(a * dt) - 1) / a * (u[:, t].to(B.dtype) @ B.T)
        y.append(2 * (x @ C.T).real + layer.D * u[:, t])
    return torch.stack(y, dim=1)


def normed(x: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
    deviation = (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    return (x - x.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias


def drawn(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))


def test_a_block_of_s5_is_its_formula() -> None:
    model = S5Model(S5Config(d_model=6, layers=1, filter_length=48, values=3, state=8)).double()
    drawn(model)
    block, x = model.blocks[0], torch.randn(2, 20, 6, dtype=torch.float64)
    with torch.no_grad():
        y = normed(by_steps(block.mixer.states, normed(x, block.mixer_norm)), block.mixer.norm)
        y = y / 2 * (1 + torch.erf(y / 2**0.5))
        value, gate = (y @ block.mixer.out_proj.weight.T + block.mixer.out_proj.bias).chunk(2, dim=-1)
        expected = x + value / (1 + torch.exp(-gate))
        torch.testing.assert_close(block(x), expected, rtol=1e-9, atol=1e-10)
    assert (expected - x).std() > 0.1


def test_a_block_of_flowstate_is_its_formula() -> None:
    config = FlowStateConfig(d_model=6, layers=1, filter_length=48, values=1, state=8, hippo_blocks=2)
    model = FlowStateEncoder(config).double()
    drawn(model)
    block, x = model.blocks[0], torch.randn(2, 20, 6, dtype=torch.float64)
    with torch.no_grad():
        y = by_steps(block.mixer.states, x)
        y = 1.0507009873554805 * torch.where(y > 0, y, 1.6732632423543772 * (torch.exp(y) - 1))
        gate = 1 / (1 + torch.exp(-(y @ block.mixer.out_proj.weight.T + block.mixer.out_proj.bias)))
        expected = x + normed(y * gate, block.mixer.norm)
        torch.testing.assert_close(block(x, None, 1.0), expected, rtol=1e-9, atol=1e-10)


def test_segments_and_episodes_of_a_model() -> None:
    """Segments with states are the whole; an episode after a reset is one from the beginning."""
    config = S5Config(d_model=8, layers=2, filter_length=48, values=3, state=8)
    model = S5Model(config).double()
    u = torch.randn(2, 40, 3, dtype=torch.float64)
    whole = model(u)
    first, states = model.advance(u[:, :15])
    second, _ = model.advance(u[:, 15:], states)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=1e-9, atol=1e-9)
    resets = torch.zeros(2, 40, dtype=torch.bool)
    resets[0, 10] = resets[1, 25] = resets[1, 39] = True
    episodes, _ = model.advance(u, resets=resets)
    torch.testing.assert_close(episodes[:1, 10:], model(u[:1, 10:]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(episodes[1:, 25:39], model(u[1:, 25:39]), rtol=1e-9, atol=1e-9)
    assert (episodes - whole)[0, 10:].abs().max() > 1e-3
    torch.testing.assert_close(episodes[:1, :10], whole[:1, :10], rtol=1e-9, atol=1e-9)
    with pytest.raises(ArgumentError, match="one a layer"):
        model.advance(u, states[:1])


def test_presets_have_the_published_sizes() -> None:
    config = PRESETS["s5-popgym"]
    assert (config.d_model, config.layers, config.state, config.hippo_blocks) == (256, 4, 256, 1)


def test_a_series_sampled_twice_as_often_is_read_at_half_the_time_scale() -> None:
    """Of a state space alone it is exact for an input that is constant in between; a model's gates see both samples alike."""
    config = FlowStateConfig(d_model=8, layers=2, filter_length=48, values=1, state=8, hippo_blocks=1)
    model = FlowStateEncoder(config).double()
    u = torch.randn(1, 30, 1, dtype=torch.float64)
    twice = u.repeat_interleave(2, dim=1)
    first = model.blocks[0].mixer.states
    coarse, fine = first(model.inputs(u)), first(model.inputs(twice), time_scale=0.5)
    torch.testing.assert_close(fine[:, 1::2], coarse, rtol=1e-9, atol=1e-9)
    scaled, alike = ((model(twice, time_scale=scale)[:, 1::2] - model(u)).norm() for scale in (0.5, 1.0))
    assert scaled < 0.5 * alike
    stream = model.stream(1, time_scale=0.5)
    parts = [stream.prefill(twice[:, :20]), *(stream.step(twice[:, t])[:, None] for t in range(20, 60))]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(twice, time_scale=0.5), rtol=1e-9, atol=1e-9)
    with pytest.raises(ArgumentError, match="time_scale"):
        model(u, time_scale=0)
