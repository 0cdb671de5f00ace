"""What M2Bert has beyond the suite of all models: published sizes, a masked token."""

from __future__ import annotations

import pytest
import torch

from longwave.errors import ArgumentError
from longwave.models.m2_bert import PRESETS, M2Bert, M2BertConfig
from longwave.nn import chunked_cross_entropy


@pytest.mark.parametrize(
    ("name", "d_model", "millions"), [("80m", 768, 80), ("110m", 960, 115), ("260m", 1536, 260), ("341m", 1792, 341)]
)
def test_presets_have_the_published_sizes(name: str, d_model: int, millions: int) -> None:
    """110m is the published name, after the BERT-base that it stands beside."""
    config = PRESETS[f"m2-bert-{name}"]
    assert (config.d_model, config.layers, config.d_inner, config.blocks) == (d_model, 12, 4 * d_model, 4)
    with torch.device("meta"):
        found = sum(p.numel() for p in M2Bert(config).parameters())
    assert abs(found / 1e6 - millions) < 0.03 * millions


def test_masked_tokens_are_learned_from_both_sides() -> None:
    """All tokens of a row are one, so that a masked one can be known from either side; who sees neither is left at ln 4."""
    torch.manual_seed(0)
    config = M2BertConfig(d_model=16, layers=1, filter_length=16, d_inner=32, blocks=2, filter_width=8)
    model, losses = M2Bert(config), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        rows = torch.randint(0, 4, (16, 1)).expand(16, 12)
        masked = torch.rand(16, 12) < 0.3
        hidden = model(rows.masked_fill(masked, config.mask_token))
        nats, count = chunked_cross_entropy(hidden, model.head_weight(), rows.masked_fill(~masked, -1), ignore_index=-1)
        losses.append((nats / count).item())
        optimizer.zero_grad()
        (nats / count).backward()
        optimizer.step()
    assert losses[0] > 1.2
    assert sum(losses[-10:]) / 10 < 0.9


def test_blocks_that_do_not_divide_the_features_are_refused() -> None:
    with pytest.raises(ArgumentError, match="multiples of blocks"):
        M2Bert(M2BertConfig(d_model=10, layers=1, filter_length=8, d_inner=16))
