"""What HyenaLM has beyond the suite of all models: logits, long inputs in parts, published sizes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from longwave.errors import ArgumentError
from longwave.models import hyena
from longwave.models.hyena import PRESETS, HyenaConfig, HyenaLM
from longwave.nn import staged

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


def test_logits_share_the_rows_of_the_embedding(model: HyenaLM) -> None:
    tokens = _tokens()
    assert model.logits(tokens).shape == (2, 48, 4)
    torch.testing.assert_close(model.logits(tokens), model(tokens) @ model.inputs.weight[:4].T)


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
        for module in (hyena, staged):
            monkeypatch.setattr(module, "PART", 5)
        rows: list[int] = []
        hook = model.blocks[1].mlp_in.register_forward_hook(lambda _module, inputs, _output: rows.append(inputs[0].shape[1]))
        found = model(tokens)
        hook.remove()
    assert rows == [5] * (length // 5) + [length % 5] * (length % 5 > 0)
    assert found.dtype == whole.dtype
    tolerance = {torch.float64: 1e-12, torch.bfloat16: 0.02}[dtype]
    torch.testing.assert_close(found, whole, rtol=tolerance, atol=tolerance * whole.abs().max().item())
    assert not torch.allclose(whole[:, 5:], model(tokens[:, 5:]).to(whole.dtype), rtol=0.1)  # the control: parts are no inputs


def test_config_refuses_an_order_that_is_not_a_number() -> None:
    with pytest.raises(ArgumentError, match=r"HyenaConfig\.order is True"):
        dataclasses.replace(MICRO, order=True)


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
