"""The nn.Modules: the plain path's results and gradients, packed weights that stay fresh, and the blocks' own
state_dicts."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from small_models import GROUP_CONFIGURATIONS, hf_config, hf_model, padding_mask, randomize
from squeezebert_kernels.nn import modules
from squeezebert_kernels.nn.config import SqueezeBertConfig
from squeezebert_kernels.nn.plain import encoder as plain
from tolerances import BFLOAT16_WEIGHTS, FORMAT_SHARES, GRADIENT_PARITY, REFERENCE_PARITY

CLOSE = REFERENCE_PARITY[torch.float32]


def config(groups: str = "published", **fields: Any) -> SqueezeBertConfig:
    return SqueezeBertConfig.from_dict(hf_config(groups, **fields).to_dict())


def layers() -> dict[str, tuple[nn.Module, Any, tuple[torch.Tensor, ...]]]:
    """Each single layer with the formula it stands for and inputs."""
    tokens = torch.randn(2, 5, 48)
    single = modules.GroupedConv1x1(48, 96, 4)
    gelu = modules.GroupedConv1x1GELU(48, 96, 4)
    norm = modules.GroupedConv1x1AddLayerNorm(48, 48, 2)
    wide = modules.GroupedConv1d(48, 24, 3, 4)

    def conv(module: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
        return nn.Conv1d.forward(module, x.transpose(1, 2)).transpose(1, 2)

    return {
        "GroupedConv1x1": (single, lambda x: conv(single, x), (tokens,)),
        "GroupedConv1x1GELU": (gelu, lambda x: nn.functional.gelu(conv(gelu, x)), (tokens,)),
        "GroupedConv1x1AddLayerNorm": (
            norm,
            lambda x, r: norm.layernorm(conv(norm.conv1d, x) + r),
            (tokens, tokens * 2),
        ),
        "GroupedConv1d": (wide, lambda x: conv(wide, x), (tokens,)),
    }


@pytest.mark.parametrize("name", list(layers()))
def test_layers_and_their_gradients(name: str) -> None:
    module, formula, inputs = layers()[name]
    randomize(module)
    with torch.no_grad():
        torch.testing.assert_close(module(*inputs), formula(*inputs), **CLOSE)
        channel_major = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]
        assert torch.equal(module(*channel_major), module(*inputs))
    gradients = []
    for function in (module, formula):
        module.zero_grad()
        function(*inputs).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in module.parameters()])
    for mine, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, expected, **GRADIENT_PARITY)


@pytest.mark.parametrize("groups", GROUP_CONFIGURATIONS)
def test_blocks_have_hugging_faces_parameters_and_results(groups: str) -> None:
    theirs = hf_model("SqueezeBertModel", hf_config(groups)).encoder
    encoder = modules.SqueezeBertEncoder(config(groups)).eval()
    encoder.load_state_dict(theirs.state_dict())
    layer = modules.SqueezeBertLayer(config(groups)).eval()
    layer.load_state_dict(theirs.layers[0].state_dict())
    hidden = torch.randn(2, 9, 48)
    mask = padding_mask([9, 4], 9)[:, None, None, :].bool()
    additive = torch.zeros(2, 1, 1, 9).masked_fill(~mask, torch.finfo(torch.float32).min)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            expected = theirs(hidden, additive).last_hidden_state
            result = encoder(hidden, mask)
            assert result.requires_grad == gradients
            torch.testing.assert_close(result, expected, **CLOSE)
            once = theirs.layers[0](hidden.transpose(1, 2), additive, False)["feature_map"].transpose(1, 2)
            torch.testing.assert_close(layer(hidden, mask), once, **CLOSE)


@torch.no_grad()
def test_packed_tokens_and_first_tokens() -> None:
    encoder = modules.SqueezeBertEncoder(config()).eval()
    randomize(encoder)
    hidden = torch.randn(2, 9, 48)
    offsets = torch.tensor([0, 9, 13], dtype=torch.int32)
    packed = encoder(torch.cat([hidden[0], hidden[1, :4]]), cu_seqlens=offsets)
    assert torch.equal(packed[:9], encoder(hidden[:1])[0])
    assert torch.equal(packed[9:], encoder(hidden[1:, :4])[0])
    assert torch.equal(encoder(hidden, first_token_only=True), encoder(hidden)[:, 0])


def test_dropout_in_training_mode() -> None:
    """Falls on what the plain path's falls on, given the same random numbers."""
    mine = modules.SqueezeBertEncoder(config(hidden_dropout_prob=0.5)).train()
    theirs = plain.SqueezeBertEncoder(config(hidden_dropout_prob=0.5)).train()
    theirs.load_state_dict(mine.state_dict())
    hidden = torch.randn(2, 9, 48)
    torch.manual_seed(1)
    result = mine(hidden, first_token_only=True)
    torch.manual_seed(1)
    assert torch.equal(result, theirs(hidden)[0][-1][:, 0])
    with pytest.raises(ValueError, match="cu_seqlens: expected None while dropout is active"):
        mine(hidden[0], cu_seqlens=torch.tensor([0, 9], dtype=torch.int32))
    norm = modules.GroupedConv1x1AddLayerNorm(48, 48, dropout=1.0).train()
    torch.testing.assert_close(norm(hidden, hidden), norm.layernorm(hidden))


@torch.no_grad()
def test_changed_weights_are_packed_again() -> None:
    layer = modules.GroupedConv1x1(48, 48, 4)
    x = torch.randn(3, 48)
    before = layer(x)
    layer.weight.mul_(2.0)
    assert not torch.equal(layer(x), before)
    layer.weight = nn.Parameter(layer.weight / 2)
    assert torch.equal(layer(x), before)
    layer.load_state_dict({"weight": layer.weight * 2, "bias": layer.bias})
    assert not torch.equal(layer(x), before)


@torch.no_grad()
def test_copies() -> None:
    layer = modules.SqueezeBertLayer(config()).eval()
    hidden = torch.randn(2, 9, 48)
    expected = layer(hidden)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(hidden), expected)
        randomize(twin)
        assert not torch.equal(twin(hidden), expected)
    assert torch.equal(layer(hidden), expected)


@torch.no_grad()
def test_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """On packed weights, which are packed again when they change; another grad mode compiles what trains."""
    dtypes: list[torch.dtype] = []

    def spy(hidden: torch.Tensor, params: list[torch.Tensor], *rest: Any) -> torch.Tensor:
        dtypes.append(params[0].dtype)
        return encode(hidden, params, *rest)

    encode = modules.ops.encoder
    encoder = modules.SqueezeBertEncoder(config()).eval()
    randomize(encoder)
    graph = torch.compile(encoder, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in (4, 9):
        hidden = torch.randn(2, tokens, 48)
        mask = padding_mask([tokens, 3], tokens)[:, None, None, :].bool()
        assert torch.equal(graph(hidden, mask), encoder(hidden, mask))
        assert torch.equal(graph(hidden, first_token_only=True), encoder(hidden, first_token_only=True))
    encoder.layers[0].attention.query.weight.mul_(2.0)
    expected = encoder(hidden)
    monkeypatch.setattr(modules.ops, "encoder", spy)
    assert torch.equal(graph(hidden), expected)
    assert dtypes == [torch.uint8]
    monkeypatch.undo()
    with torch.enable_grad():
        result = graph(hidden)
        assert torch.equal(result, expected)
        result.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@torch.no_grad()
def test_single_layers_and_copies_compiled() -> None:
    for module, _, inputs in layers().values():
        graph = torch.compile(module, fullgraph=True, backend="aot_eager")
        assert torch.equal(graph(*inputs), module(*inputs))
        twin = copy.deepcopy(module)
        randomize(twin)
        graph = torch.compile(twin, fullgraph=True, backend="aot_eager")
        assert torch.equal(graph(*inputs), twin(*inputs))
        assert not torch.equal(graph(*inputs), module(*inputs))


@torch.no_grad()
def test_exported_programs_hold_their_weights() -> None:
    encoder = modules.SqueezeBertEncoder(config()).eval()
    hidden = torch.randn(2, 9, 48)
    for strict in (False, True):
        program = torch.export.export(encoder, (hidden,), strict=strict)
        assert "squeezebert.encoder" in str(program.graph)
        assert torch.equal(program.module()(hidden), encoder(hidden))


def test_evaluation_in_inference_mode_around_a_training_step() -> None:
    """Packs made in either mode are packed again in the other."""
    for first, second in itertools.product((torch.inference_mode, torch.no_grad), repeat=2):
        encoder = modules.SqueezeBertEncoder(config()).eval()
        hidden = torch.randn(2, 9, 48)
        with first():
            before = encoder(hidden).clone()
        optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
        encoder(hidden).square().sum().backward()
        optimizer.step()
        with second():
            after = encoder(hidden)
            torch.testing.assert_close(after, plain_twin(encoder)(hidden)[0][-1], **CLOSE)
        assert not torch.equal(after, before)


def plain_twin(encoder: modules.SqueezeBertEncoder) -> plain.SqueezeBertEncoder:
    """The very layers of `encoder`, run in plain PyTorch."""
    twin = plain.SqueezeBertEncoder(config(num_hidden_layers=0)).eval()
    twin.layers = encoder.layers
    return twin


@torch.no_grad()
def test_layers_come_and_go_after_the_first_call() -> None:
    encoder = modules.SqueezeBertEncoder(config()).eval()
    randomize(encoder)
    hidden = torch.randn(2, 9, 48)
    more = [plain.SqueezeBertLayer(config()).eval(), modules.SqueezeBertLayer(config()).eval()]

    def check() -> None:
        expected = hidden
        for layer in encoder.layers:
            expected = plain.SqueezeBertLayer.forward(layer, expected, None, None)[0]
        torch.testing.assert_close(encoder(hidden), expected, **CLOSE)

    encoder(hidden)
    encoder.layers.extend(more)
    check()
    more[0].post_attention.register_forward_hook(lambda module, given, output: output * 2.0)
    check()
    del encoder.layers[0]
    check()
    encoder.layers[0], encoder.layers[1] = encoder.layers[1], encoder.layers[0]
    check()
    encoder.layers = nn.ModuleList(encoder.layers[:1])
    check()
    encoder.layers[0].register_forward_pre_hook(lambda module, given: (given[0] * 0.0, *given[1:]))
    assert torch.equal(encoder(hidden), encoder(torch.zeros_like(hidden)))
    encoder.layers = nn.ModuleList([nn.LayerNorm(48)])
    with pytest.raises(TypeError):
        encoder(hidden)
    encoder.layers = nn.ModuleList()
    assert torch.equal(encoder(hidden), hidden)
    assert torch.equal(encoder(hidden, first_token_only=True), hidden[:, 0])


class Adapted(plain.GroupedConv1x1):
    """What an adapter makes of a convolution: the same weight, another result."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * 2.0


CHANGES = {
    "adapter": lambda layer: setattr(layer.attention.key, "__class__", Adapted),
    "parametrization": lambda layer: nn.utils.parametrizations.weight_norm(layer.output.conv1d).parametrizations,
    "hook": lambda layer: layer.intermediate.conv1d.register_forward_hook(lambda module, given, output: output * 2.0),
    "forward": lambda layer: setattr(layer.attention, "forward", lambda x, mask, attentions: (x * 2.0, None)),
    "epsilon": lambda layer: setattr(layer.output.layernorm, "eps", 0.5),
    "both epsilons": lambda layer: [setattr(n, "eps", 0.5) for n in layer.modules() if isinstance(n, nn.LayerNorm)],
    "activation": lambda layer: setattr(layer.intermediate, "act", nn.functional.relu),
    "heads": lambda layer: setattr(layer.attention, "num_heads", 2),
    "no bias": lambda layer: setattr(layer.output.conv1d, "bias", None),
    "no parameters": lambda layer: setattr(layer.output, "layernorm", nn.LayerNorm(48, elementwise_affine=False)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_parts_that_were_changed_run_as_they_are(change: str) -> None:
    encoder = modules.SqueezeBertEncoder(config()).eval()
    randomize(encoder)
    layer = modules.SqueezeBertLayer(config()).eval()
    hidden = torch.randn(2, 9, 48)
    with torch.no_grad():
        before = encoder(hidden)
        CHANGES[change](encoder.layers[1])
        CHANGES[change](layer)
        changed = encoder(hidden)
        assert not torch.allclose(changed, before, **CLOSE) or change == "parametrization"
        torch.testing.assert_close(changed, plain_twin(encoder)(hidden)[0][-1], **CLOSE)
        expected = plain.SqueezeBertLayer.forward(layer, hidden, None, None)[0]
        torch.testing.assert_close(layer(hidden), expected, **CLOSE)
        assert encoder(hidden[0], first_token_only=True).shape == (1, 48)
        with pytest.raises(ValueError, match=r"cu_seqlens: expected None while .*, got offsets"):
            encoder(hidden[0], cu_seqlens=torch.tensor([0, 9], dtype=torch.int32))


@torch.no_grad()
def test_functional_calls_use_the_weights_that_they_are_given() -> None:
    """An ensemble: vmap over the stacked parameters of several layers."""
    layer, others = modules.GroupedConv1x1(48, 48, 4), [modules.GroupedConv1x1(48, 48, 4) for _ in range(3)]
    x = torch.randn(5, 48)
    layer(x)
    parameters, _ = torch.func.stack_module_state(others)
    outputs = torch.vmap(lambda given: torch.func.functional_call(layer, given, (x,)))(parameters)
    for other, output in zip(others, outputs, strict=True):
        assert torch.equal(output, other(x))
        assert torch.equal(torch.func.functional_call(layer, dict(other.named_parameters()), (x,)), other(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, "int8"])
def test_computing_in_low_precision(dtype: torch.dtype | str) -> None:
    """Packed as another dtype where no gradient is wanted; the plain weights, and what they give, stay."""
    share = FORMAT_SHARES[str(dtype).removeprefix("torch.")]
    hidden, mask = torch.randn(2, 9, 48), padding_mask([9, 4], 9).bool()[:, None, None]
    named = {name: module for name, (module, _, _) in layers().items() if name != "GroupedConv1d"}
    for name, module in {**named, "SqueezeBertEncoder": modules.SqueezeBertEncoder(config()).eval()}.items():
        randomize(module)
        inputs = (hidden, mask) if name.endswith("Encoder") else (hidden,) * (2 if name.endswith("LayerNorm") else 1)
        with torch.no_grad():
            exact = module(*inputs)
            assert module.computing_in(dtype) is module
            lower = module(*inputs)
            difference = (lower - exact).square().mean().sqrt() / exact.square().mean().sqrt()
            assert 0.0 < difference < share, name
            for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
                assert torch.equal(other(*inputs), lower), name
        torch.testing.assert_close(module(*inputs).detach(), exact, **CLOSE)
        torch.compiler.reset()
        with torch.no_grad():
            assert torch.equal(torch.compile(module, fullgraph=True, backend="aot_eager")(*inputs), lower), name
            assert torch.equal(module.computing_in(torch.float32)(*inputs), exact), name
    with pytest.raises(ValueError, match=r"dtype: expected torch.float32, .* got 'int4'"):
        module.computing_in("int4")


@torch.no_grad()
def test_another_dtype_is_refused_and_autocast_is_not() -> None:
    layer = modules.GroupedConv1x1(48, 48, 4)
    expected = layer(torch.ones(2, 48))
    with torch.autocast("cpu"):
        torch.testing.assert_close(layer.bfloat16()(torch.ones(2, 48)), expected, **BFLOAT16_WEIGHTS)
    with pytest.raises(ValueError, match=r"expected .*float32"):
        layer(torch.ones(2, 48))


def test_other_activations_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden_act: expected 'gelu'.* got 'relu'"):
        modules.SqueezeBertEncoder(config(hidden_act="relu"))
