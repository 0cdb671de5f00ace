"""S5 and ConvSSM against their recurrences, step by step in float64, with states, resets and streams."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn import S5, ConvSSM
from longwave.nn.s5 import hippo
from longwave.ops.exponentials import all_states
from longwave.ops.long_conv import long_conv


def discrete(layer: S5 | ConvSSM, time_scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    a = torch.complex(-layer.log_decay.double().exp(), layer.frequency.double())
    step = torch.exp(a * layer.log_dt.double().exp() * time_scale)
    return step, (step - 1) / a


def stepped(layer: S5, u: torch.Tensor, x: torch.Tensor, resets: torch.Tensor, scale: float = 1.0) -> tuple:
    """The definition, one row and one step after the other."""
    step, b = discrete(layer, scale)
    B, C = torch.view_as_complex(layer.B.double()), torch.view_as_complex(layer.C.double())
    y = torch.zeros_like(u)
    x = x.clone()
    for row in range(u.shape[0]):
        for t in range(u.shape[1]):
            if resets[row, t]:
                x[row] = 0
            x[row] = step * x[row] + b * (B @ u[row, t].to(torch.complex128))
            y[row, t] = 2 * (C @ x[row]).real + layer.D * u[row, t]
    return y, x


def test_hippo_is_the_normal_part_of_legs() -> None:
    N = 6
    n = torch.arange(N, dtype=torch.float64)
    legs = -torch.where(n[:, None] > n, torch.outer(2 * n + 1, 2 * n + 1).sqrt(), torch.diag(n + 1))
    p = (n + 0.5).sqrt()
    normal = legs + torch.outer(p, p)
    a, vectors = hippo(N)
    torch.testing.assert_close(normal.to(torch.complex128) @ vectors, vectors * a)
    assert (a.imag > 0).all()


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("time_scale", [1.0, 0.3])
def test_s5_is_its_recurrence(blocks: int, time_scale: float) -> None:
    layer = S5(3, 8, blocks=blocks).double()
    u = torch.randn(2, 40, 3, dtype=torch.float64)
    expected, _ = stepped(layer, u, torch.zeros(2, 4, dtype=torch.complex128), torch.zeros(2, 40, dtype=torch.bool), time_scale)
    torch.testing.assert_close(layer(u, time_scale=time_scale), expected, rtol=1e-10, atol=1e-11)
    single = layer.float()(u.float(), time_scale=time_scale)
    assert (single - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("given", [False, True])
def test_episodes_begin_where_they_are_reset(given: bool) -> None:
    layer = S5(3, 6).double()
    u = torch.randn(3, 30, 3, dtype=torch.float64)
    state = torch.randn(3, 3, dtype=torch.complex128) if given else torch.zeros(3, 3, dtype=torch.complex128)
    resets = torch.zeros(3, 30, dtype=torch.bool)
    resets[0, [0, 7, 8]] = True
    resets[1, 29] = True
    expected, last = stepped(layer, u, state, resets)
    y, found = layer.advance(u, state if given else None, resets=resets)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(found, last, rtol=1e-10, atol=1e-11)
    without, _ = layer.advance(u, state if given else None)
    assert (without - y)[0, 7:].abs().max() > 1e-3


def test_segments_hand_their_state_on_with_its_gradient() -> None:
    layer = S5(2, 4).double()
    u = torch.randn(2, 20, 2, dtype=torch.float64, requires_grad=True)
    whole, last = layer.advance(u)
    first, state = layer.advance(u[:, :9])
    second, final = layer.advance(u[:, 9:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(final, last)
    wanted, found = (torch.autograd.grad(y[:, -3:].square().sum(), u)[0] for y in (whole, second))
    torch.testing.assert_close(found, wanted)
    assert found[:, :9].abs().max() > 1e-6


def test_gradients_of_all_states() -> None:
    log_z = torch.complex(-torch.rand(2, dtype=torch.float64), torch.randn(2, dtype=torch.float64)).requires_grad_()
    v = torch.randn(1, 7, 4, 2, dtype=torch.float64, requires_grad=True)
    state = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *xs: all_states(xs[0], xs[1], xs[2]), (log_z, v, state))


def test_s5_streams() -> None:
    layer = S5(3, 6).double()
    u = torch.randn(2, 60, 3, dtype=torch.float64)
    stream = layer.stream(2, max_rollback=3, max_length=60)
    parts = [stream.prefill(u[:, :20])]
    for t in range(20, 40):
        parts.append(stream.step(u[:, t])[:, None])
        stream.extend(torch.randn(2, 3, 3, dtype=torch.float64))
        stream.rollback(3)
    saved = stream.snapshot()
    with pytest.raises(ArgumentError, match="rollback of 4"):
        stream.rollback(4)
    stream.extend(torch.randn(2, 5, 3, dtype=torch.float64))
    stream.restore(saved)
    parts.append(stream.extend(u[:, 40:]))
    torch.testing.assert_close(torch.cat(parts, dim=1), layer(u), rtol=1e-10, atol=1e-11)
    with pytest.raises(ArgumentError, match="max_length=60"):
        stream.step(u[:, 0])
    with pytest.raises(ArgumentError, match="takes"):
        stream.prefill(u[:1])
    y = stream.prefill(u[:, :10], lengths=[10, 4])
    torch.testing.assert_close(y[1, 6:], layer(u[1:, 6:10])[0], rtol=1e-10, atol=1e-11)


def test_a_refused_prefill_leaves_the_stream_as_it_was() -> None:
    layer, u = S5(3, 8), torch.randn(2, 12, 3)
    stream, other = layer.stream(2, max_length=12), layer.stream(2)
    stream.prefill(u[:, :10])
    for refused in (lambda: stream.prefill(u[..., :2]), lambda: stream.prefill(u[:, :10], lengths=[11, 4])):
        with pytest.raises(ArgumentError):
            refused()
    with pytest.raises(ArgumentError, match="13 in all"):
        stream.prefill(torch.randn(2, 13, 3))
    other.prefill(u[:, :10])
    assert stream.position == 10
    assert torch.equal(stream.extend(u[:, 10:]), other.extend(u[:, 10:]))


@pytest.mark.parametrize("size", [(4, 5), (1, 1)])
def test_conv_ssm_is_its_recurrence(size: tuple[int, int]) -> None:
    """Frame by frame, with complex kernels over the plane."""
    layer = ConvSSM(2, 6).double()
    u = torch.randn(2, 9, 2, *size, dtype=torch.float64)
    state = torch.randn(2, 3, *size, dtype=torch.complex128)
    step, b = discrete(layer)
    B, C = torch.view_as_complex(layer.B.double()), torch.view_as_complex(layer.C.double())
    x, expected = state, []
    for t in range(9):
        frame = u[:, t].to(torch.complex128)
        x = step[:, None, None] * x + b[:, None, None] * F.conv2d(frame, B, padding=1)
        expected.append(2 * F.conv2d(x, C, padding=1).real + F.conv2d(u[:, t], layer.D, padding=1))
    y, last = layer(u, state)
    torch.testing.assert_close(y, torch.stack(expected, dim=1), rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(last, x, rtol=1e-10, atol=1e-11)
    assert y.std() > 1e-3


def test_conv_ssm_goes_frame_by_frame_and_trains() -> None:
    layer = ConvSSM(2, 4)
    u = torch.randn(1, 6, 2, 3, 3)
    y, last = layer(u)
    state, frames = None, []
    for t in range(6):
        frame, state = layer(u[:, t : t + 1], state)
        frames.append(frame)
    torch.testing.assert_close(torch.cat(frames, dim=1), y, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-6)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())
    assert ConvSSM.optimizer_options.keys() < {name for name, _ in layer.named_parameters()}


def test_conv_ssm_keeps_videos_apart_and_streams() -> None:
    layer = ConvSSM(2, 4).double()
    u = torch.randn(1, 9, 2, 3, 5, dtype=torch.float64)
    with torch.no_grad():
        packed, _ = layer(u, cu_seqlens=torch.tensor([0, 4, 9], dtype=torch.int32))
        torch.testing.assert_close(packed, torch.cat([layer(u[:, :4])[0], layer(u[:, 4:])[0]], dim=1), rtol=1e-10, atol=1e-11)
        whole = layer(u)[0].flatten(2)
    assert (packed.flatten(2) - whole)[:, 4:].abs().max() > 1e-4
    flat = u.flatten(2)
    stream = layer.stream(1, 3, 5, max_rollback=2, after=lambda y: 2 * y)
    parts = [stream.prefill(flat[:, :3]), stream.step(flat[:, 3])[:, None]]
    stream.extend(torch.randn(1, 2, 30, dtype=torch.float64))
    stream.rollback(2)
    parts.append(stream.extend(flat[:, 4:]))
    torch.testing.assert_close(torch.cat(parts, dim=1), 2 * whole, rtol=1e-10, atol=1e-11)
    assert stream.nbytes == 3 * 4 * 15 * 8
    with pytest.raises(ArgumentError, match="takes"):
        stream.step(flat[:, 0, :29])


def test_conv_ssm_remembers_more_than_16_bits() -> None:
    """Slow states, frame by frame: what comes of frames in bfloat16 is rounded, and not what is remembered of them."""
    torch.manual_seed(0)
    layer = ConvSSM(2, 8, dt_min=1e-3, dt_max=3e-3)
    u = torch.randn(1, 300, 2, 3, 3, dtype=torch.bfloat16)
    with torch.no_grad():
        wide = layer.double()(u.double())[0].flatten(2)
        stream = layer.float().stream(1, 3, 3)
        found = torch.stack([stream.step(frame) for frame in u.flatten(2).unbind(1)], dim=1)
    rounded = wide.bfloat16().double()
    assert (found.double() - rounded).norm() < 0.1 * (rounded - wide).norm()


@pytest.mark.parametrize(
    "call",
    [
        lambda: S5(3, 5),
        lambda: S5(3, 8, blocks=3),
        lambda: S5(3, 8, dt_min=1.0, dt_max=0.1),
        lambda: S5(3, 8)(torch.zeros(1, 3)),
        lambda: S5(3, 8).advance(torch.zeros(1, 4, 3), torch.zeros(1, 4)),
        lambda: S5(3, 8).advance(torch.zeros(1, 4, 3), resets=torch.zeros(1, 4)),
        lambda: S5(3, 8).stream(0),
        lambda: S5(3, 8).stream(1).restore([]),
        lambda: S5(3, 8).stream(2).restore(S5(3, 8).stream(1).snapshot()),
        lambda: S5(3, 8).stream(2).reorder(torch.tensor([0, 2])),
        lambda: S5(3, 8).stream(2).reorder(torch.tensor([0])),
        lambda: S5(3, 8).stream(2).prefill(torch.zeros(2, 3, 3), lengths=[4, 1]),
        lambda: S5(3, 8)(torch.zeros(1, 0, 3)),
        lambda: ConvSSM(2, 4, kernel=2),
        lambda: ConvSSM(2, 4)(torch.zeros(1, 0, 2, 4, 4)),
        lambda: ConvSSM(2, 4, dt_min=0),
        lambda: ConvSSM(2, 4)(torch.zeros(1, 2, 3, 4, 4)),
        lambda: ConvSSM(2, 4)(torch.zeros(1, 2, 2, 4, 4), torch.zeros(1, 2, 4, 4)),
        lambda: all_states(torch.zeros(1) + 0j, torch.zeros(1, 3, 2, 1), torch.zeros(1, 2, 1), cu_seqlens=torch.tensor([0, 3])),
    ],
)
def test_s5_refuses(call) -> None:
    with pytest.raises(ArgumentError):
        call()


def test_chunks_of_a_stream_go_through_its_backend() -> None:
    seen: list[str] = []

    def conv(*args, **options) -> torch.Tensor:
        seen.append(options["backend"])
        return long_conv(*args, **options)

    layer, u = S5(3, 4, conv=conv).double(), torch.randn(1, 9, 3, dtype=torch.float64)
    layer.stream(1, backend="plain").extend(u)
    layer.stream(1).extend(u)
    assert seen == ["plain"] * (len(seen) // 2) + ["auto"] * (len(seen) // 2)
    assert seen
    with pytest.raises(ArgumentError, match="backend"):
        layer.stream(1, backend="none").extend(u)
