"""SaShiMi against its definition, group by group, and streams that begin anywhere in a group."""

from __future__ import annotations

import random

import pytest
import torch

from longwave.errors import ArgumentError
from longwave.models.sashimi import PRESETS, Sashimi, SashimiConfig

MICRO = SashimiConfig(d_model=6, layers=2, filter_length=64, vocabulary=5, predicted=5, poolings=2, pool=3, state=4)


def made(config: SashimiConfig = MICRO) -> Sashimi:
    torch.manual_seed(1)
    model = Sashimi(config).double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(4)
    return model


def by_groups(model: Sashimi, tier: int, x: torch.Tensor) -> torch.Tensor:
    """One position after the other: what a slower tier says of a group is heard in the next one."""
    config, (_, L, d) = model.config, x.shape
    x = x.clone()
    if tier < config.poolings:
        p, down, up = config.pool, model.down[tier], model.up[tier]
        groups = [torch.cat([x[:, g * p + i] for i in range(p)], dim=-1) for g in range(L // p)]
        if groups:
            slow = by_groups(model, tier + 1, torch.stack([g @ down.weight.T + down.bias for g in groups], dim=1))
            for t in range(p, L):
                row = slow[:, t // p - 1] @ up.weight.T + up.bias
                x[:, t] += row[:, t % p * d : (t % p + 1) * d]
    y = x
    for block in model.blocks[tier]:
        y = block(y)
    return x + y


@pytest.mark.parametrize("length", [1, 2, 3, 9, 10, 26, 40])
def test_model_is_its_definition(length: int) -> None:
    model = made()
    tokens = torch.randint(0, 5, (2, length))
    with torch.no_grad():
        expected = model.norm(by_groups(model, 0, model.inputs(tokens)))
        torch.testing.assert_close(model(tokens), expected, rtol=1e-9, atol=1e-9)


def test_slower_tiers_reach_hidden_states() -> None:
    """The control of the test above: without them something is missing."""
    model = made()
    tokens = torch.randint(0, 5, (1, 30))
    with torch.no_grad():
        before = model(tokens)
        model.up[1].weight.zero_()
        after = model(tokens)
    assert (before - after)[:, :9].abs().max() < 1e-12
    assert (before - after)[:, 10:].abs().max() > 1e-2


@pytest.mark.parametrize("seed", range(4))
def test_streams_begin_and_go_back_anywhere_in_a_group(seed: int) -> None:
    model, chance = made(), random.Random(seed)
    tokens = torch.randint(0, 5, (2, 70))
    with torch.no_grad():
        whole = model(tokens)
    stream = model.stream(2, max_rollback=11)
    stream.prefill(torch.randint(0, 5, (2, 20)))
    t = chance.randrange(1, 20)
    parts = [stream.prefill(tokens[:, :t])]
    while t < 70:
        n = min(70 - t, chance.choice([1, 1, 2, 5, 13]))
        parts.append(stream.step(tokens[:, t])[:, None] if n == 1 else stream.extend(tokens[:, t : t + n]))
        t += n
        saved = stream.snapshot()
        tried = chance.randrange(12)
        if tried:
            stream.extend(torch.randint(0, 5, (2, tried)))
        stream.rollback(tried)
        if chance.random() < 0.3:
            stream.extend(torch.randint(0, 5, (2, 7)))
            stream.restore(saved)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-9, atol=1e-9)
    assert stream.position == 70
    with pytest.raises(ArgumentError, match="a rollback of 12"):
        stream.rollback(12)


def test_rows_with_groups_of_their_own() -> None:
    """Prompts of 20, 7 and 0 tokens; then rows change places, and states come back."""
    model = made()
    tokens = torch.randint(0, 5, (3, 40))
    lengths = [20, 7, 0]
    stream = model.stream(3, max_rollback=4)
    hidden = stream.prefill(tokens[:, :20], lengths=torch.tensor(lengths))
    assert not hidden[1, :13].any()
    steps = [stream.step(tokens[:, 20])]
    saved = stream.snapshot()
    steps += [stream.extend(tokens[:, 21:30])]
    with torch.no_grad():
        for row, n in enumerate(lengths):
            alone = model(tokens[row : row + 1, 20 - n : 30])
            torch.testing.assert_close(hidden[row, 20 - n :], alone[0, :n], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(steps[0][row], alone[0, n], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(steps[1][row], alone[0, n + 1 :], rtol=1e-9, atol=1e-9)
    other = model.stream(3, max_rollback=4)
    other.restore(saved)
    other.extend(tokens[:, 5:9])
    other.rollback(4)
    torch.testing.assert_close(other.extend(tokens[:, 21:30]), steps[1], rtol=1e-9, atol=1e-9)
    stream.reorder(torch.tensor([1, 1, 0]))
    with torch.no_grad():
        expected = model(torch.cat([tokens[1:2, 13:30], tokens[:1, 30:31]], dim=1))[0, -1]
    torch.testing.assert_close(stream.step(tokens[:1, 30].expand(3))[0], expected, rtol=1e-9, atol=1e-9)
    for rows in (torch.tensor([0, 1]), torch.tensor([0, 1, 3])):
        with pytest.raises(ArgumentError, match="rows"):
            stream.reorder(rows)
    with pytest.raises(ArgumentError, match="lengths"):
        stream.prefill(tokens, lengths=[1, 2, 41])


def test_a_limit_of_length_holds_in_every_tier() -> None:
    stream = made().stream(1, max_length=20)
    stream.prefill(torch.zeros(1, 20, dtype=torch.long))
    with pytest.raises(ArgumentError, match="max_length=20"):
        stream.step(torch.zeros(1, dtype=torch.long))
    with pytest.raises(ArgumentError, match="takes 1 rows"):
        stream.extend(torch.zeros(2, 1, dtype=torch.long))
    assert stream.position == 20


def test_presets_have_the_published_sizes() -> None:
    config = PRESETS["sashimi-sc09"]
    assert (config.d_model, config.layers, config.poolings, config.pool, config.expand, config.widen) == (64, 8, 2, 4, 2, 2)
    assert (config.state, config.vocabulary) == (64, 256)
