"""HyenaLM and the registry: shapes, causality with a control, gradients, checkpointing, compiling, autocast, presets."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch.nn import functional as F

from longwave import models
from longwave.errors import ArgumentError
from longwave.models import hyena
from longwave.models.hyena import PRESETS, HyenaConfig, HyenaLM
from longwave.nn import chunked_cross_entropy

MICRO = HyenaConfig(d_model=8, layers=2, filter_length=48, d_inner=16, filter_width=8)


@pytest.fixture
def model() -> HyenaLM:
    torch.manual_seed(0)
    model = HyenaLM(MICRO)
    # As drawn, the blocks add a hundredth of the embedding: enlarge them, or a test would only see the embedding.
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(20 if module.in_features in (8, 16) and module.out_features != 8 else 10)
    return model


def _tokens(length: int = 48, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 5, (batch, length), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("length", [1, 2, 31, 48, 60])
def test_model_shapes_at_any_length(model: HyenaLM, length: int) -> None:
    tokens = _tokens(length)
    assert model(tokens).shape == (2, length, 8)
    assert model.logits(tokens).shape == (2, length, 4)
    torch.testing.assert_close(model.logits(tokens), model(tokens) @ model.inputs.weight[:4].T)


def test_model_predicts_from_the_past_alone(model: HyenaLM) -> None:
    tokens = _tokens()
    changed = tokens.clone()
    changed[:, 30] = (changed[:, 30] + 1) % 4
    with torch.no_grad():
        before, after = model.logits(tokens), model.logits(changed)
    difference, scale = (after - before).abs().amax(dim=(0, 2)), before.abs().max()
    assert (difference[:30] < 1e-5 * scale).all()
    assert difference[30] > 1e-2 * scale
    assert (difference[31:] > 1e-5 * scale).float().mean() > 0.9


def test_documents_packed_into_one_row_do_not_see_each_other(model: HyenaLM) -> None:
    """Bit for bit, in values and in gradients; the control is that the changed document does see it."""
    bounds = [0, 1, 3, 17, 40, 48]
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
    tokens = _tokens(batch=1)
    changed = tokens.clone()
    changed[:, 16] = (changed[:, 16] + 1) % 4  # the last of its document, next to the one behind it
    changed[:, 3] = (changed[:, 3] + 1) % 4  # and the first
    with torch.no_grad():
        before, after = (model.logits(t, cu_seqlens=cu_seqlens) for t in (tokens, changed))
        joined = model.logits(tokens)
    same = (before == after).all(dim=2)[0]
    assert same[:3].all()
    assert same[17:].all()
    assert not same[3]
    assert not same[16]
    assert (before - joined)[:, 17:].abs().max() > 1e-2 * joined.abs().max()  # without boundaries they do see each other
    for start, end in itertools.pairwise(bounds):
        alone = model.logits(tokens[:, start:end])
        torch.testing.assert_close(before[:, start:end], alone, rtol=1e-4, atol=1e-4 * before.abs().max().item())
    x = model.inputs(tokens).detach().requires_grad_()
    model.inputs.forward = lambda _: x  # type: ignore[method-assign]
    (gradient,) = torch.autograd.grad(model(tokens, cu_seqlens=cu_seqlens)[:, 17:40].square().sum(), x)
    del model.inputs.forward
    assert not gradient[:, :17].any()
    assert not gradient[:, 40:].any()
    assert gradient[:, 17:40].abs().amax(dim=2).min() > 0


def test_packed_documents_change_no_gradient_by_checkpointing(model: HyenaLM) -> None:
    cu_seqlens = torch.tensor([0, 9, 48], dtype=torch.int32)

    def gradients() -> list[torch.Tensor]:
        hidden = model(_tokens(batch=1), cu_seqlens=cu_seqlens)
        return list(torch.autograd.grad(hidden.square().sum(), list(model.parameters())))

    kept = gradients()
    model.activation_checkpointing = True
    assert all(torch.equal(a, b) for a, b in zip(kept, gradients(), strict=True))


def test_model_gives_every_parameter_a_gradient(model: HyenaLM) -> None:
    F.cross_entropy(model.logits(_tokens()).flatten(0, 1), _tokens().flatten().clamp(max=3)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_activation_checkpointing_changes_no_gradient(model: HyenaLM) -> None:
    def gradients() -> list[torch.Tensor]:
        nats, _ = chunked_cross_entropy(model(_tokens()), model.head_weight(), _tokens(), ignore_index=4)
        return list(torch.autograd.grad(nats, list(model.parameters())))

    kept = gradients()
    runs = []
    hook = model.blocks[0].mlp_in.register_forward_hook(lambda *_: runs.append(1))
    model.activation_checkpointing = True
    again = gradients()
    hook.remove()
    assert len(runs) == 2  # forward, and once more for the backward pass
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


@pytest.mark.parametrize("length", [17, 21, 40])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_model_without_gradients_goes_in_parts(
    model: HyenaLM, length: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same result, from an input in which filters, short ones too, reach across the parts."""
    tokens = _tokens(length)
    if dtype == torch.float64:
        model.double()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        whole = model(tokens)
        monkeypatch.setattr(hyena, "PART", 5)
        rows: list[int] = []
        hook = model.blocks[1].mlp_in.register_forward_hook(lambda _module, inputs, _output: rows.append(inputs[0].shape[1]))
        found = model(tokens)
        hook.remove()
    assert rows == [5] * (length // 5) + [length % 5] * (length % 5 > 0)
    assert found.dtype == whole.dtype
    tolerance = {torch.float64: 1e-12, torch.bfloat16: 0.02}[dtype]
    torch.testing.assert_close(found, whole, rtol=tolerance, atol=tolerance * whole.abs().max().item())
    assert not torch.allclose(whole[:, 5:], model(tokens[:, 5:]).to(whole.dtype), rtol=0.1)  # the control: parts are no inputs


def test_compiled_model_equals_eager(model: HyenaLM) -> None:
    tokens = _tokens()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected, found = model(tokens), compiled(tokens)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    wanted = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    for gradient, want in zip(torch.autograd.grad(found.square().sum(), list(model.parameters())), wanted, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())


def test_autocast_stays_near_float32(model: HyenaLM) -> None:
    with torch.no_grad():
        exact = model(_tokens())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(_tokens())
    assert rounded.dtype == torch.float32
    error = (rounded - exact).norm() / exact.norm()
    assert 1e-5 < error < 0.1  # it did run in 16 bits, and well


def test_weights_survive_a_state_dict(model: HyenaLM) -> None:
    other = HyenaLM(MICRO)
    assert not torch.equal(other(_tokens()), model(_tokens()))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(_tokens()), model(_tokens()))


@pytest.mark.parametrize("tokens", [torch.zeros(4, dtype=torch.long), torch.zeros(1, 4)])
def test_model_refuses_what_is_not_a_batch_of_tokens(model: HyenaLM, tokens: torch.Tensor) -> None:
    with pytest.raises(ArgumentError, match="integer tokens"):
        model(tokens)


@pytest.mark.parametrize("change", [{"layers": 0}, {"d_model": 8.0}, {"predicted": 6}, {"order": True}])
def test_config_refuses_what_is_not_a_size(change: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match="HyenaConfig"):
        dataclasses.replace(MICRO, **change)


def test_registry_finds_models_and_presets() -> None:
    assert models.find("hyena").Model is HyenaLM
    for preset, name in models.presets().items():
        assert models.find_preset(preset) == (name, models.find(name).PRESETS[preset])
    with pytest.raises(ArgumentError, match="hyena"):
        models.find("transformer")
    with pytest.raises(ArgumentError, match="hyenadna-tiny-1k"):
        models.find_preset("huge")


def test_presets_have_the_published_sizes() -> None:
    """d_model, layers and context of HyenaDNA's published configurations."""
    published = {
        "hyenadna-tiny-1k": (128, 2, 1_024),
        "hyenadna-tiny-16k": (128, 2, 16_384),
        "hyenadna-small-32k": (256, 4, 32_768),
        "hyenadna-medium-160k": (256, 8, 160_000),
        "hyenadna-medium-450k": (256, 8, 450_000),
        "hyenadna-large-1m": (256, 8, 1_000_000),
    }
    for name, sizes in published.items():
        config = PRESETS[name]
        assert (config.d_model, config.layers, config.filter_length) == sizes
        assert config.d_inner == 4 * config.d_model
    assert PRESETS["small"].d_model >= 128
    model = HyenaLM(PRESETS["hyenadna-tiny-1k"])
    # 2 blocks: norms, projections, short filters, filter network, D, MLP; then embedding and last norm.
    filters = 5 * 64 + 64 + 2 * (64 * 64 + 64) + 3 * 64 + 64 * 128
    block = 4 * 128 + (128 + 1) * 384 + 384 * 4 + filters + 128 + (128 + 1) * 128 + (128 + 1) * 512 + (512 + 1) * 128
    assert sum(p.numel() for p in model.parameters()) == 2 * block + 5 * 128 + 2 * 128
