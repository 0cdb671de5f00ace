"""Diagonal state spaces: filters against their discrete matrices, step by step in float64, layers against direct sums."""

from __future__ import annotations

import math

import pytest
import torch

from longwave.errors import ArgumentError
from longwave.nn import StateSpaceConv1d, StateSpaceFilter
from longwave.reference import long_conv_ref


def stepped(layer: StateSpaceFilter, taps: int, time_scale: float = 1.0) -> torch.Tensor:
    """The answer to an impulse by the paper's discrete matrices, one step after the other, conjugates written out."""
    rows = []
    for h in range(layer.channels):
        decay = layer.log_decay[h].double().exp()
        frequency = torch.zeros_like(decay) if layer.frequency is None else layer.frequency[h].double()
        C = layer.C[h].double() + 0j if layer.frequency is None else torch.view_as_complex(layer.C[h].double())
        a = torch.complex(-decay, frequency)
        if layer.frequency is not None:
            a, C = torch.cat([a, a.conj()]), torch.cat([C, C.conj()])
        A, B = torch.diag(a), torch.ones(len(a), 1, dtype=torch.complex128)
        dt = layer.log_dt[h].double().exp() * time_scale
        eye = torch.eye(len(a), dtype=torch.complex128)
        if layer.discretisation == "zoh":
            step = torch.linalg.matrix_exp(dt * A)
            drive = torch.linalg.solve(A, (step - eye) @ B)
        else:
            step = torch.linalg.solve(eye - dt / 2 * A, eye + dt / 2 * A)
            drive = torch.linalg.solve(eye - dt / 2 * A, dt * B)
        x, row = drive, []
        for _ in range(taps):
            row.append((C @ x).squeeze().real)
            x = step @ x
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("spectrum", ["lin", "inv", "real"])
@pytest.mark.parametrize("discretisation", ["zoh", "bilinear"])
@pytest.mark.parametrize("time_scale", [1.0, 2.5])
def test_filter_is_the_discrete_state_space(spectrum: str, discretisation: str, time_scale: float) -> None:
    layer = StateSpaceFilter(3, 8, spectrum=spectrum, discretisation=discretisation).double()
    expected = stepped(layer, 60, time_scale)
    torch.testing.assert_close(layer(60, time_scale=time_scale), expected, rtol=1e-9, atol=1e-11)
    assert expected.abs().max() > 1e-3
    single = layer.float()(60, time_scale=time_scale)
    assert single.dtype == torch.float32
    assert (single - expected).norm() < 4e-7 * expected.norm()


def test_spectra_are_the_published_ones() -> None:
    lin = StateSpaceFilter(2, 6)
    torch.testing.assert_close(lin.frequency[1], math.pi * torch.arange(3.0))
    torch.testing.assert_close(lin.log_decay.exp(), torch.full((2, 3), 0.5))
    inverse = StateSpaceFilter(1, 4, spectrum="inv")
    torch.testing.assert_close(inverse.frequency[0], torch.tensor([4 / math.pi * 3, 4 / math.pi / 3]))
    real = StateSpaceFilter(1, 3, spectrum="real")
    torch.testing.assert_close(real.log_decay[0].exp(), torch.tensor([1.0, 2.0, 3.0]))
    assert [name for name, _ in real.named_parameters()] == ["log_dt", "log_decay", "C"]
    dt = StateSpaceFilter(500, 2, dt_min=0.01, dt_max=0.1).log_dt.exp()
    assert 0.01 <= dt.min() < 0.02
    assert 0.05 < dt.max() <= 0.1


def test_a_time_scale_samples_the_same_continuous_filter() -> None:
    """Under a constant input, the states held exactly: every second result at half the distance is a result at the whole."""
    layer = StateSpaceFilter(2, 8, spectrum="inv").double()
    answers = [layer(n, time_scale=scale).cumsum(-1) for n, scale in ((40, 0.5), (20, 1.0))]
    torch.testing.assert_close(answers[0][:, 1::2], answers[1], rtol=1e-9, atol=1e-12)
    assert (answers[0][:, :20] - answers[1]).abs().max() > 1e-3


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
def test_layer_is_the_direct_sum(two_sided: bool, layout: str) -> None:
    layer = StateSpaceConv1d(3, 4, two_sided=two_sided, layout=layout, spectrum="inv").double()
    u = torch.randn((2, 3, 17) if layout == "BHL" else (2, 17, 3), dtype=torch.float64)
    gates = torch.randn(2, *u.shape, dtype=torch.float64)
    k_rev = stepped(layer.filter_rev, 17) if layer.filter_rev is not None else None
    expected = long_conv_ref(
        u, stepped(layer.filter, 17), layer.D, k_rev=k_rev, pregate=gates[0], postgate=gates[1], layout=layout
    )
    y = layer(u, pregate=gates[0], postgate=gates[1])
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-11)
    if not two_sided:
        return
    with pytest.raises(ArgumentError, match="looks ahead"):
        layer.stream(1)


def test_layer_streams_and_trains() -> None:
    layer = StateSpaceConv1d(3, 4)
    u = torch.randn(2, 50, 3)
    y = layer(u)
    stream = layer.stream(2)
    v = u.transpose(1, 2)
    parts = [stream.prefill(v[..., :20]), *(stream.step(v[..., t])[..., None] for t in range(20, 50))]
    torch.testing.assert_close(torch.cat(parts, dim=-1).transpose(1, 2), y, rtol=1e-5, atol=1e-6)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())
    names = {name for name, _ in layer.filter.named_parameters()}
    assert names == StateSpaceFilter.optimizer_options.keys()


@pytest.mark.parametrize(
    "make",
    [
        lambda: StateSpaceFilter(0, 4),
        lambda: StateSpaceFilter(2, 3),
        lambda: StateSpaceFilter(2, 4, spectrum="log"),
        lambda: StateSpaceFilter(2, 4, discretisation="euler"),
        lambda: StateSpaceFilter(2, 4, dt_min=0.2, dt_max=0.1),
        lambda: StateSpaceFilter(2, 4)(0),
    ],
)
def test_state_spaces_refuse(make) -> None:
    with pytest.raises(ArgumentError, match="StateSpaceFilter"):
        make()
