"""Requests that the kernels cannot serve take the original path of an optimized model, and so get its very bits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from paths import kernels, original
from small_models import padding_mask, small
from squeezebert_kernels import optimize, restore
from tolerances import REFERENCE_PARITY

BASES = ["SqueezeBertModel", "BertModel"]
IDS = torch.arange(1, 19).view(2, 9)
MASK = padding_mask([9, 4], 9)


def assert_original(model: Any, reason: str, call: Callable[[Any], Any]) -> None:
    """`call(model)` gives the same bits before and after optimize, by the original path."""
    expected = call(model)
    optimize(model)
    with original(reason):
        result = call(model)
    assert type(result) is type(expected)
    assert result.keys() == expected.keys()
    for key, value in expected.items():
        flat = zip(*((x if isinstance(x, tuple) else (x,)) for x in (result[key], value)), strict=True)
        assert all(torch.equal(a, b) for a, b in flat), key


REQUESTS = {
    "hidden states": ("output_hidden_states", {"output_hidden_states": True}),
    "attentions": ("output_attentions", {"output_attentions": True}),
    "a 4-D mask": ("attention_mask: shape", {"attention_mask": torch.rand(2, 9, 9).gt(0.3).float().log()[:, None]}),
    "a mask that is not binary": ("attention_mask: values", {"attention_mask": MASK * 3}),
    "a fully masked sequence": ("fully masked", {"attention_mask": MASK * torch.tensor([[1], [0]])}),
    "an unknown argument": ("is_anything", {"is_anything": True}),
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_by_argument(name: str, request_name: str) -> None:
    reason, arguments = REQUESTS[request_name]
    if request_name == "a 4-D mask":  # a row that is -inf throughout is NaN in the original
        arguments = {"attention_mask": torch.where(torch.eye(9).bool(), 0.0, arguments["attention_mask"])}
    fields = {"attn_implementation": "eager"} if request_name == "attentions" and name == "BertModel" else {}
    assert_original(small(name, **fields), reason, lambda model: model(IDS, **arguments))


@pytest.mark.parametrize("name", ["SqueezeBertForMaskedLM", "BertForSequenceClassification"])
@pytest.mark.parametrize("flag", ["output_hidden_states"])
@torch.no_grad()
def test_by_config(name: str, flag: str) -> None:
    model = small(name)
    setattr(model.config, flag, True)
    assert_original(model, f"config.{flag}", lambda model: model(IDS, attention_mask=MASK))
    setattr(model.config, flag, False)
    with kernels():
        model(IDS, attention_mask=MASK)


@pytest.mark.parametrize("name", BASES)
def test_training_and_its_gradients(name: str) -> None:
    def step(model: Any) -> Any:
        torch.manual_seed(1)  # dropout
        model.zero_grad()
        output = model(IDS, attention_mask=MASK)
        output.last_hidden_state.sum().backward()
        return {
            key: parameter.grad.clone() for key, parameter in model.named_parameters() if parameter.grad is not None
        }

    model = small(name).train()
    expected = step(model)
    optimize(model)
    with original("training mode"):
        gradients = step(model)
    assert expected.keys() == gradients.keys()
    assert all(torch.equal(gradients[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", BASES)
def test_gradients_in_eval_mode_advise_no_grad(name: str) -> None:
    model = small(name)
    expected = model(IDS).last_hidden_state
    optimize(model)
    with original("gradients are wanted"), pytest.warns(UserWarning, match=r"call it under torch.no_grad"):
        hidden = model(IDS).last_hidden_state
    assert hidden.requires_grad
    assert torch.equal(hidden, expected)


@pytest.mark.parametrize("name", BASES)
def test_a_frozen_model_needs_no_no_grad(name: str) -> None:
    """Parameters that want no gradient: the kernels serve with gradients enabled; a head on top may still train."""
    model = small(f"{name.removesuffix('Model')}ForTokenClassification")
    model.base_model.requires_grad_(False)
    optimize(model)
    with kernels(), warnings.catch_warnings():
        warnings.simplefilter("error")
        model(IDS).logits.sum().backward()
    assert model.classifier.weight.grad is not None
    embeds = torch.randn(2, 9, 48, requires_grad=True)
    with original("gradients are wanted"):
        model(inputs_embeds=embeds).logits.sum().backward()
    assert embeds.grad is not None


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_a_dropout_alone_in_training_mode(name: str) -> None:
    model = small(name)
    dropout = next(module for key, module in model.named_modules() if key.endswith("output.dropout"))
    dropout.train()

    def call(model: Any) -> Any:
        torch.manual_seed(2)
        return model(IDS)

    assert_original(model, "dropout", call)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_other_dtypes_and_autocast(name: str) -> None:
    model = small(name)
    with torch.autocast("cpu"):
        assert_original(model, "autocast", lambda model: model(IDS))
    expected = small(name)
    expected.load_state_dict(model.state_dict())
    model.double()
    with original("torch.float64"):
        assert torch.equal(model(IDS).last_hidden_state, expected.double()(IDS).last_hidden_state)
    model.float()
    with kernels():
        torch.testing.assert_close(
            model(IDS).last_hidden_state, expected.float()(IDS).last_hidden_state, **REFERENCE_PARITY[torch.float32]
        )


@torch.no_grad()
def test_the_meta_device() -> None:
    model = optimize(small("BertModel"))
    model.to("meta")
    with original("on meta"):
        assert model(IDS.to("meta")).last_hidden_state.is_meta


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_hooks_on_blocks_are_called(name: str) -> None:
    """Also on blocks that the kernels bypass; those that transformers leaves behind do not count."""
    model = optimize(small(name))
    model(IDS, output_hidden_states=True)
    with kernels():
        model(IDS)
    block = next(module for key, module in model.named_modules() if key.endswith("output"))
    seen: list[Any] = []
    handle = block.register_forward_hook(lambda *args: seen.append(args))
    with original("hook"):
        model(IDS)
    assert seen
    handle.remove()
    with kernels():
        model(IDS)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_hooks_on_everything_are_called_for_bypassed_modules(name: str) -> None:
    model = optimize(small(name))
    seen: set[Any] = set()
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *args: seen.add(module))
    with original("hook"):
        model(IDS)
    handle.remove()
    assert {module for key, module in model.named_modules() if key.endswith("output")} <= seen
    with kernels():
        model(IDS)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_tracing(name: str) -> None:
    model = optimize(small(name, return_dict=False))
    expected = model(IDS)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (IDS,), strict=False)
    torch.testing.assert_close(traced(IDS)[0], expected, **REFERENCE_PARITY[torch.float32])


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_errors_are_transformers_errors(name: str) -> None:
    model = small(name)
    wrong: list[dict[str, Any]] = [
        {},
        {"input_ids": IDS, "inputs_embeds": torch.randn(2, 9, 48)},
        {"input_ids": IDS.float()},
        {"input_ids": IDS, "attention_mask": MASK[:, :5]},
        {"input_ids": IDS, "token_type_ids": torch.zeros(2, 5, dtype=torch.long)},
    ]

    def errors() -> list[type]:
        kinds = []
        for request in wrong:
            with pytest.raises(Exception) as info:  # noqa: PT011
                model(**request)
            kinds.append(info.type)
        return kinds

    expected = errors()
    optimize(model)
    assert errors() == expected
    with pytest.raises(TypeError, match="multiple values"):
        model(IDS, input_ids=IDS)


@torch.no_grad()
def test_the_warning_about_padding_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("SqueezeBertModel")
    seen: list[bool] = []
    monkeypatch.setattr(
        type(model), "warn_if_padding_and_no_attention_mask", lambda *args: seen.append(True), raising=True
    )
    optimize(model)
    seen.clear()
    model(IDS)
    assert not seen
    padded = IDS.clone()
    padded[1, -1] = model.config.pad_token_id
    model(padded, attention_mask=MASK)
    assert not seen
    model(padded)
    assert seen
    restore(model)
