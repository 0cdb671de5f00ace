"""What every model keeps to, in float64 unless it says otherwise; `micro.py` has their sizes."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import random
from typing import Any

import pytest
import torch
from micro import MICRO, changed, drawn, made
from torch.nn import functional as F

import longwave
from longwave import models
from longwave.errors import ArgumentError
from longwave.models import SequenceModel
from longwave.nn import chunked_cross_entropy, decode

CASES = [pytest.param(name, config, id=f"{name}-{i}") for name, configs in MICRO.items() for i, config in enumerate(configs)]
FIRST = [pytest.param(name, configs[0], id=name) for name, configs in MICRO.items()]
OTHERS = [case for case in CASES if case.id not in {f"{name}-0" for name in MICRO}]
STREAMED = [case for case in CASES if made(*case.values).causal]
TWO_SIDED = [case for case in CASES if case not in STREAMED]
PRESETS = list(models.presets())


def gradients(model: SequenceModel, inputs: torch.Tensor, **options: Any) -> list[torch.Tensor]:
    """Of every parameter, for logits (hidden states where nothing is predicted) against a fixed direction."""
    out = model(inputs, **options)
    if model.config.predicted:
        out = F.linear(out, model.head_weight())
    direction = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(5))
    return list(torch.autograd.grad((out * direction).sum(), list(model.parameters())))


def test_every_model_has_small_ones_here_that_read_tokens_and_numbers() -> None:
    assert MICRO.keys() == models.available().keys()
    for configs in MICRO.values():
        assert {bool(config.vocabulary) for config in configs} == {True, False}


@pytest.mark.parametrize(("name", "config"), CASES)
@pytest.mark.parametrize("length", [1, 2, 31, 48, 60])
def test_hidden_states_of_every_position_at_any_length(name: str, config: Any, length: int) -> None:
    model = made(name, config)
    if length > (model.max_length or length):
        with pytest.raises(ArgumentError, match=f"at most {model.max_length}"):
            model(drawn(config, length))
        return
    found = model(drawn(config, length))
    assert found.shape == (2, length, config.d_model)
    assert found.isfinite().all()
    if config.vocabulary:
        assert model.head_weight().shape == (config.predicted, config.d_model)
    alone = model(drawn(config, length)[1:])
    torch.testing.assert_close(found[1:], alone, rtol=1e-9, atol=1e-9)
    assert (found[0] - found[1]).abs().max() > 0.1


@pytest.mark.parametrize(("name", "config"), CASES)
def test_what_comes_before_and_after_is_seen_as_the_model_says(name: str, config: Any) -> None:
    """From the past alone if causal, else from both sides; what may be seen is the control."""
    model, inputs = made(name, config), drawn(config, 48)
    with torch.no_grad():
        before, after = model(inputs), model(changed(config, inputs, 30))
    difference, scale = (after - before).abs().amax(dim=(0, 2)), before.abs().max()
    assert difference[30] > 1e-2 * scale
    assert (difference[31:] > 1e-6 * scale).float().mean() > 0.9
    if model.causal:
        assert (difference[:30] < 1e-12 * scale).all()
    else:
        assert (difference[:30] > 1e-6 * scale).float().mean() > 0.9


@pytest.mark.parametrize(("name", "config"), CASES)
def test_every_parameter_gets_a_gradient(name: str, config: Any) -> None:
    model = made(name, config)
    names = [parameter for parameter, _ in model.named_parameters()]
    for parameter, gradient in zip(names, gradients(model, drawn(config, 48)), strict=True):
        assert gradient.isfinite().all(), parameter
        assert gradient.abs().max() > 0, parameter


@pytest.mark.parametrize(("name", "config"), CASES)
def test_packed_documents_do_not_see_each_other(name: str, config: Any) -> None:
    """Bit for bit in float32, in values and in gradients; the control is that the changed documents do see it."""
    model = made(name, config, torch.float32)
    bounds = [0, 1, 3, 17, 40, 48]
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
    inputs = drawn(config, 48, batch=1, dtype=torch.float32)
    if not model.packs:
        with pytest.raises(ArgumentError, match="cu_seqlens"):
            model(inputs, cu_seqlens=cu_seqlens)
        return
    with torch.no_grad():
        # The last of its document, next to the one behind it, and the first of its document.
        before, after = (model(x, cu_seqlens=cu_seqlens) for x in (inputs, changed(config, inputs, 16, 17)))
    same = (before == after).all(dim=2)[0]
    assert same[:3].all()
    assert same[40:].all()
    assert not same[16:40].any()

    read: list[torch.Tensor] = []

    def recorded(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        read.append(output.detach().requires_grad_())
        return read[0]

    hook = model.inputs.register_forward_hook(recorded)
    hidden = model(inputs, cu_seqlens=cu_seqlens)[:, 17:40]
    hook.remove()
    direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(5))
    (gradient,) = torch.autograd.grad((hidden * direction).sum(), read[0])
    assert not gradient[:, :17].any()
    assert not gradient[:, 40:].any()
    assert gradient[:, 17:40].abs().amax(dim=2).min() > 0


@pytest.mark.parametrize(("name", "config"), CASES)
def test_packed_documents_are_what_each_is_alone(name: str, config: Any) -> None:
    model, bounds, inputs = made(name, config), [0, 1, 3, 17, 40, 48], drawn(config, 48, batch=1)
    if not model.packs:
        return
    with torch.no_grad():
        packed, joined = model(inputs, cu_seqlens=torch.tensor(bounds, dtype=torch.int32)), model(inputs)
        for start, end in itertools.pairwise(bounds):
            torch.testing.assert_close(packed[:, start:end], model(inputs[:, start:end]), rtol=1e-9, atol=1e-9)
    assert (packed - joined)[:, 17:].abs().max() > 1e-2 * joined.abs().max()  # without boundaries they do see each other


@pytest.mark.parametrize(("name", "config"), CASES)
@pytest.mark.parametrize("packed", [False, True])
def test_activation_checkpointing_changes_no_gradient(name: str, config: Any, packed: bool) -> None:
    model, inputs = made(name, config, torch.float32), drawn(config, 48, batch=1, dtype=torch.float32)
    if packed and not model.packs:
        return
    options = {"cu_seqlens": torch.tensor([0, 9, 48], dtype=torch.int32)} if packed else {}
    calls: list[str] = []
    mixers = [module for path, module in model.named_modules() if path.endswith(".mixer")]
    for mixer in mixers:
        mixer.register_forward_pre_hook(lambda *_: calls.append("mixer"))
    kept = gradients(model, inputs, **options)
    assert len(calls) == len(mixers) >= 1
    model.activation_checkpointing = True
    again = gradients(model, inputs, **options)
    assert len(calls) == 3 * len(mixers)  # forward, and once more for the backward pass
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


@pytest.mark.parametrize(("name", "config"), FIRST)
def test_the_convolution_and_its_backend_come_from_outside(name: str, config: Any) -> None:
    seen = []

    def conv(*args: Any, **options: Any) -> torch.Tensor:
        seen.append(options["backend"])
        y = longwave.long_conv(*args, **options)
        return y + y.square()

    inputs = drawn(config, 20)
    found = made(name, config, backend="plain", conv=conv)(inputs)
    assert set(seen) == {"plain"}
    assert (found - made(name, config)(inputs)).abs().max() > 1e-4


def compare_compiled(name: str, config: Any, backend: str) -> None:
    """Forward and backward in one graph, of the whole model, with eager."""
    torch.compiler.reset()
    model, inputs = made(name, config), drawn(config, 40)
    expected, found = model(inputs), torch.compile(model, backend=backend, fullgraph=True)(inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    direction = torch.randn(expected.shape, dtype=expected.dtype)
    parameters = list(model.parameters())
    wanted, got = (torch.autograd.grad((out * direction).sum(), parameters) for out in (expected, found))
    for want, gradient in zip(wanted, got, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-7, atol=1e-9 * want.abs().max().item())


@pytest.mark.parametrize(("name", "config"), FIRST)
def test_compiled_equals_eager(name: str, config: Any) -> None:
    compare_compiled(name, config, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config"), OTHERS)
def test_other_configs_compiled_equal_eager(name: str, config: Any) -> None:
    compare_compiled(name, config, "aot_eager")


# Inductor's own: it runs what is complex (spectra of a state space) eagerly, and says so.
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex operators:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize(("name", "config"), FIRST)
def test_compiled_by_inductor_equals_eager(name: str, config: Any) -> None:
    compare_compiled(name, config, "inductor")


@pytest.mark.parametrize(("name", "config"), CASES)
def test_float32_is_near_float64(name: str, config: Any) -> None:
    torch.manual_seed(1)
    model = models.find(name).Model(config)
    single = model(drawn(config, 48, dtype=torch.float32))
    exact = model.double()(drawn(config, 48))
    assert exact.dtype == torch.float64
    assert single.dtype == torch.float32
    error = (single - exact).norm() / exact.norm()
    assert 1e-9 < error < 1e-4


@pytest.mark.parametrize(("name", "config"), FIRST)
def test_autocast_stays_near_float32(name: str, config: Any) -> None:
    torch.manual_seed(1)
    model, inputs = models.find(name).Model(config), drawn(config, 48, dtype=torch.float32)
    with torch.no_grad():
        exact = model(inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(inputs)
    assert rounded.dtype == torch.float32
    error = (rounded - exact).norm() / exact.norm()
    assert 1e-6 < error < 0.1  # it did run in 16 bits, and well


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "config"), CASES)
def test_parameters_of_16_bits_give_hidden_states_of_16_bits(name: str, config: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    model, inputs = models.find(name).Model(config).to(dtype), drawn(config, 48, dtype=torch.float32)
    rounded = model(inputs.to(dtype) if inputs.is_floating_point() else inputs)
    exact = copy.deepcopy(model).float()(inputs).detach()
    assert rounded.dtype == dtype
    error = (rounded - exact).norm() / exact.norm()
    assert 1e-5 < error < 0.1
    rounded.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("name", "config"), CASES)
def test_weights_survive_a_state_dict(name: str, config: Any) -> None:
    model, inputs = made(name, config), drawn(config, 48)
    torch.manual_seed(2)
    other = models.find(name).Model(config).double()
    assert not torch.equal(other(inputs), model(inputs))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(inputs), model(inputs))


@pytest.mark.parametrize(("name", "config"), CASES)
def test_a_step_along_the_gradient_lowers_the_loss(name: str, config: Any) -> None:
    torch.manual_seed(1)
    model, inputs = models.find(name).Model(config).double(), drawn(config, 48)

    def loss() -> torch.Tensor:
        if not config.predicted:
            return model(inputs).sub(torch.linspace(-1, 1, config.d_model)).square().mean()
        targets = inputs.clamp(max=config.predicted - 1)
        nats, count = chunked_cross_entropy(model(inputs), model.head_weight(), targets, ignore_index=-1)
        return nats / count

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    first = loss()
    first.backward()
    optimizer.step()
    assert loss() < first


@pytest.mark.parametrize(("name", "config"), CASES)
def test_model_refuses_inputs_that_the_config_does_not_name(name: str, config: Any) -> None:
    model = made(name, config, torch.float32)
    wrong = (
        [torch.zeros(4, dtype=torch.long), torch.zeros(1, 4)] if config.vocabulary else [torch.zeros(1, 4, dtype=torch.long)]
    )
    for inputs in [*wrong, torch.zeros(1, 4, config.values + 1)]:
        with pytest.raises(ArgumentError, match=r"takes .*\(B, L"):
            model(inputs)


@pytest.mark.parametrize(("name", "config"), CASES)
def test_config_is_frozen_survives_json_and_refuses_what_is_not_a_size(name: str, config: Any) -> None:
    kind = type(config)
    assert kind(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.layers = 3
    for wrong in ({"layers": 0}, {"d_model": 0}, {"filter_length": -1}, {"d_model": 8.0}, {"layers": True}, {"d_model": "8"}):
        with pytest.raises(ArgumentError, match=rf"{kind.__name__}\.{next(iter(wrong))} is"):
            dataclasses.replace(config, **wrong)
    with pytest.raises(ArgumentError, match="predict"):
        dataclasses.replace(config, predicted=config.vocabulary + 1)


def test_registry_finds_models_and_presets() -> None:
    for name, module in models.available().items():
        assert models.find(name) is module
        assert issubclass(module.Model, SequenceModel)
        assert dataclasses.is_dataclass(module.Config)
        assert module.PRESETS, name
    assert len(models.presets()) == sum(len(module.PRESETS) for module in models.available().values())  # unique
    for preset, name in models.presets().items():
        assert models.find_preset(preset) == (name, models.find(name).PRESETS[preset])
    with pytest.raises(ArgumentError, match="hyena"):
        models.find("transformer")
    with pytest.raises(ArgumentError, match="hyenadna-tiny-1k"):
        models.find_preset("huge")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_models(preset: str) -> None:
    """Made without memory, so that the published sizes can be."""
    name, config = models.find_preset(preset)
    assert isinstance(config, models.find(name).Config)
    with torch.device("meta"):
        model = models.find(name).Model(config)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("name", MICRO)
def test_a_preset_trains_on_two_cores(name: str) -> None:
    sizes = []
    for config in models.find(name).PRESETS.values():
        with torch.device("meta"):
            sizes.append(sum(parameter.numel() for parameter in models.find(name).Model(config).parameters()))
    assert min(sizes) < 1_000_000


# Decoding: streams of causal models.


@pytest.mark.parametrize(("name", "config"), TWO_SIDED)
def test_a_model_that_looks_ahead_is_not_streamed(name: str, config: Any) -> None:
    with pytest.raises(ArgumentError, match="both ways"):
        made(name, config).stream(1)


@pytest.mark.parametrize(("name", "config"), STREAMED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("length", "taps"), [(40, 48), (500, 300)])
def test_decoding_equals_the_full_forward(name: str, config: Any, dtype: torch.dtype, length: int, taps: int) -> None:
    config = dataclasses.replace(config, filter_length=taps)
    model, chance, inputs = made(name, config, dtype), random.Random(length), drawn(config, length, dtype=dtype)
    with torch.no_grad():
        whole = model(inputs)
    stream = model.stream(2, max_rollback=9)
    t = length // 3
    parts = [stream.prefill(inputs[:, :t])]
    while t < length:
        n = min(length - t, chance.choice([1, 1, 1, 7, 64]))
        parts.append(stream.step(inputs[:, t])[:, None] if n == 1 else stream.extend(inputs[:, t : t + n]))
        t += n
        if t + 5 < length:  # a draft that is refused
            stream.extend(drawn(config, 5, dtype=dtype))
            stream.rollback(5)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=tolerance, atol=tolerance * whole.abs().max().item())
    assert (whole[:, 1:] - whole[:, :-1]).abs().max() > 0.1  # the control: neighbours differ by far more
    assert stream.position == length


@pytest.mark.parametrize(("name", "config"), STREAMED)
def test_a_long_prompt_is_read_in_parts(name: str, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "PART", 64)
    model = made(name, config)
    stream = model.stream(1)
    size = max(64, decode.FILTERS_A_PART * stream.taps)
    inputs = drawn(config, 2 * size + 77, batch=1)
    read = []
    monkeypatch.setattr(stream, "extend", lambda part: read.append(part.shape[1]) or type(stream).extend(stream, part))
    hidden = torch.cat([stream.prefill(inputs[:, :-1]), stream.step(inputs[:, -1])[:, None]], dim=1)
    assert sum(read) == size + 76
    with torch.no_grad():
        whole = model(inputs)
    torch.testing.assert_close(hidden, whole, rtol=1e-9, atol=1e-9 * whole.abs().max().item())


@pytest.mark.parametrize(("name", "config"), STREAMED)
def test_prompts_of_different_lengths_go_on_together(name: str, config: Any) -> None:
    model, inputs = made(name, config), drawn(config, 60)
    stream = model.stream(2)
    stream.prefill(inputs[:, :50], lengths=[50, 13])
    got = torch.stack([stream.step(inputs[:, t]) for t in range(50, 60)], dim=1)
    with torch.no_grad():
        for row, n in ((0, 50), (1, 13)):
            alone = model(inputs[row : row + 1, 50 - n :])[:, n:]
            torch.testing.assert_close(got[row : row + 1], alone, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("name", "config"), STREAMED)
def test_beams_are_reordered_and_states_restored(name: str, config: Any) -> None:
    model, inputs = made(name, config), drawn(config, 31, batch=3)
    prompt, step = inputs[:, :30], inputs[:, 30]
    stream = model.stream(3)
    stream.prefill(prompt)
    saved = stream.snapshot()
    rows = torch.tensor([1, 1, 0])
    stream.reorder(rows)
    with torch.no_grad():
        expected = model(torch.cat([prompt[rows], step[:, None]], dim=1))[:, -1]
    torch.testing.assert_close(stream.step(step), expected, rtol=1e-8, atol=1e-8)
    with pytest.raises(ArgumentError, match="states were given"):
        stream.restore(saved[:1])
    stream.restore(saved)
    with torch.no_grad():
        expected = model(inputs)[:, -1]
    torch.testing.assert_close(stream.step(step), expected, rtol=1e-8, atol=1e-8)
