"""The plain models against transformers, same weights: outputs, hidden states, attentions, masks, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from small_models import GROUP_CONFIGURATIONS, hf_config, hf_model, padding_mask
from squeezebert_kernels.nn import outputs
from squeezebert_kernels.nn.activations import ACTIVATIONS
from squeezebert_kernels.nn.config import SqueezeBertConfig
from squeezebert_kernels.nn.plain.heads import (
    SqueezeBertForMaskedLM,
    SqueezeBertForMultipleChoice,
    SqueezeBertForQuestionAnswering,
    SqueezeBertForSequenceClassification,
    SqueezeBertForTokenClassification,
)
from squeezebert_kernels.nn.plain.model import SqueezeBertModel
from tolerances import REFERENCE_PARITY

MODELS = {
    model.__name__: model
    for model in (
        SqueezeBertModel,
        SqueezeBertForMaskedLM,
        SqueezeBertForSequenceClassification,
        SqueezeBertForMultipleChoice,
        SqueezeBertForTokenClassification,
        SqueezeBertForQuestionAnswering,
    )
}
EVERYTHING = {"output_attentions": True, "output_hidden_states": True}
TOKENS, LENGTHS = 9, [9, 4, 1]


def pair(name: str, config: Any, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """transformers' model `name` and the plain one, with the same weights, in eval mode."""
    theirs = hf_model(name, config, dtype)
    ours = MODELS[name](SqueezeBertConfig.from_dict(config.to_dict())).to(dtype).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def assert_same(ours: Any, theirs: Any, dtype: torch.dtype = torch.float64) -> None:
    """Same fields, same values."""
    assert ours.to_dict().keys() == theirs.keys()
    for name, value in ours.to_dict().items():
        torch.testing.assert_close(value, theirs[name], **REFERENCE_PARITY[dtype], msg=lambda m, n=name: f"{n}: {m}")


def inputs_of(name: str, labels: bool = True) -> dict[str, torch.Tensor]:
    """Padded input of mixed lengths, with token types, positions and the labels that the model takes."""
    shape: tuple[int, ...] = (len(LENGTHS), TOKENS)
    mask = padding_mask(LENGTHS, TOKENS)
    if name == "SqueezeBertForMultipleChoice":
        shape, mask = (len(LENGTHS), 2, TOKENS), torch.stack([mask, mask.flip(0)], dim=1)
    inputs = {
        "input_ids": torch.randint(1, 61, shape),
        "attention_mask": mask,
        "token_type_ids": torch.randint(2, shape),
        "position_ids": torch.randint(24, shape),
    }
    if labels:
        inputs.update(labels_of(name))
    return inputs


def labels_of(name: str) -> dict[str, torch.Tensor]:
    per_token = torch.randint(2, (len(LENGTHS), TOKENS)).masked_fill(padding_mask(LENGTHS, TOKENS) == 0, -100)
    per_sequence = torch.randint(2, (len(LENGTHS),))
    return {
        "SqueezeBertModel": {},
        "SqueezeBertForMaskedLM": {"labels": per_token},
        "SqueezeBertForSequenceClassification": {"labels": per_sequence},
        "SqueezeBertForMultipleChoice": {"labels": per_sequence},
        "SqueezeBertForTokenClassification": {"labels": per_token},
        "SqueezeBertForQuestionAnswering": {
            "start_positions": torch.tensor([0, 3, TOKENS]),  # one just outside the text
            "end_positions": torch.tensor([8, 99, 2]),  # and one far outside
        },
    }[name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("groups", GROUP_CONFIGURATIONS)
@pytest.mark.parametrize("name", MODELS)
def test_outputs(name: str, groups: str, dtype: torch.dtype) -> None:
    theirs, ours = pair(name, hf_config(groups), dtype)
    inputs = inputs_of(name)
    assert_same(ours(**inputs, **EVERYTHING), theirs(**inputs, **EVERYTHING), dtype)
    plain = {"input_ids": inputs["input_ids"]}
    assert_same(ours(**plain), theirs(**plain), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_outputs_of_one_layer_at_real_size(dtype: torch.dtype) -> None:
    size = {"hidden_size": 768, "embedding_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    theirs, ours = pair("SqueezeBertModel", hf_config(num_hidden_layers=1, **size), dtype)
    inputs = inputs_of("SqueezeBertModel")
    assert_same(ours(**inputs, **EVERYTHING), theirs(**inputs, **EVERYTHING), dtype)


@pytest.mark.parametrize("name", MODELS)
def test_gradients(name: str) -> None:
    theirs, ours = pair(name, hf_config("different"))
    inputs = inputs_of(name)
    for model in (ours, theirs):
        output = model(**inputs)
        (output.pooler_output.sum() if name == "SqueezeBertModel" else output.loss).backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert expected
    for parameter_name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad,
            expected[parameter_name],
            **REFERENCE_PARITY[torch.float64],
            msg=lambda m, n=parameter_name: f"{n}: {m}",
        )


def _masks() -> dict[str, torch.Tensor | None]:
    right = padding_mask(LENGTHS, TOKENS)
    causal = torch.ones(TOKENS, TOKENS, dtype=torch.float64).triu(1) * torch.finfo(torch.float64).min
    return {
        "none": None,
        "ones": torch.ones_like(right),
        "float": right.double(),
        "boolean": right.bool(),
        "left": right.flip(-1),
        "holes": torch.tensor([[1, 0, 1, 0, 1, 0, 1, 0, 1]] * len(LENGTHS)),
        "a sequence of padding": padding_mask([9, 0, 1], TOKENS),
        "4-D": causal.expand(len(LENGTHS), 1, TOKENS, TOKENS),
    }


@pytest.mark.parametrize("name", list(_masks()))
def test_attention_masks(name: str) -> None:
    theirs, ours = pair("SqueezeBertModel", hf_config())
    if name == "4-D" and pytest.importorskip("transformers").__version__.startswith("4."):
        pytest.skip("the SqueezeBERT of transformers 4 takes no 4-D mask")
    inputs = {"input_ids": torch.randint(1, 61, (len(LENGTHS), TOKENS)), "attention_mask": _masks()[name]}
    output = ours(**inputs, **EVERYTHING)
    assert_same(output, theirs(**inputs, **EVERYTHING))
    assert output.last_hidden_state.isfinite().all()


def test_padding_changes_nothing() -> None:
    _, ours = pair("SqueezeBertModel", hf_config())
    ids = torch.randint(1, 61, (1, TOKENS))
    padded = ours(ids, padding_mask([4], TOKENS)).last_hidden_state[:, :4]
    torch.testing.assert_close(padded, ours(ids[:, :4]).last_hidden_state, **REFERENCE_PARITY[torch.float64])


def test_four_dimensional_boolean_mask_means_attend() -> None:
    _, ours = pair("SqueezeBertModel", hf_config())
    ids, mask = torch.randint(1, 61, (3, TOKENS)), padding_mask(LENGTHS, TOKENS)
    four_dimensional = mask.bool()[:, None, None]
    assert torch.equal(ours(ids, mask).last_hidden_state, ours(ids, four_dimensional).last_hidden_state)


@pytest.mark.parametrize("name", ["SqueezeBertModel", "SqueezeBertForMultipleChoice"])
def test_inputs_embeds(name: str) -> None:
    theirs, ours = pair(name, hf_config())
    inputs = inputs_of(name, labels=False)
    ids = inputs.pop("input_ids")
    inputs["inputs_embeds"] = torch.randn(*ids.shape, 48, dtype=torch.float64)
    assert_same(ours(**inputs, **EVERYTHING), theirs(**inputs, **EVERYTHING))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activations(activation: str) -> None:
    functions = pytest.importorskip("transformers.activations").ACT2FN
    if activation not in functions:
        pytest.skip("these transformers do not have it yet")
    input = torch.linspace(-12.0, 12.0, 1001, dtype=torch.float64)
    expected = functions[activation](input)
    torch.testing.assert_close(ACTIVATIONS[activation](input), expected, **REFERENCE_PARITY[torch.float64])


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "silu"])
def test_hidden_act_reaches_the_layers_and_the_masked_lm_head(activation: str) -> None:
    theirs, ours = pair("SqueezeBertForMaskedLM", hf_config(hidden_act=activation))
    ids = torch.randint(1, 61, (2, TOKENS))
    assert_same(ours(ids), theirs(ids))


def test_layer_norm_eps_is_that_of_the_embeddings_and_the_masked_lm_head_only() -> None:
    theirs, ours = pair("SqueezeBertForMaskedLM", hf_config(layer_norm_eps=0.3))
    ids = torch.randint(1, 61, (2, TOKENS))
    assert_same(ours(ids), theirs(ids))
    assert ours.transformer.encoder.layers[0].output.layernorm.eps == 1e-12


def test_config_asks_for_attentions_and_hidden_states() -> None:
    theirs, ours = pair("SqueezeBertForTokenClassification", hf_config(**EVERYTHING))
    ids = torch.randint(1, 61, (2, TOKENS))
    output = ours(ids)
    assert_same(output, theirs(ids))
    assert len(output.attentions) == 2
    assert len(output.hidden_states) == 3


def test_attention_probabilities_on_request() -> None:
    theirs, ours = pair("SqueezeBertModel", hf_config())
    inputs = inputs_of("SqueezeBertModel")
    probabilities = ours(**inputs, output_attentions="probabilities").attentions
    scores = theirs(**inputs, output_attentions=True).attentions
    by_name = ours(**inputs, output_attentions="scores").attentions
    assert torch.equal(by_name[0], ours(**inputs, output_attentions=True).attentions[0])
    for probability, score in zip(probabilities, scores, strict=True):
        torch.testing.assert_close(probability, score.softmax(-1), **REFERENCE_PARITY[torch.float64])
    padding = inputs["attention_mask"][:, None, None] == 0
    assert not probabilities[0].masked_select(padding).any()


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
@pytest.mark.parametrize("name", MODELS)
def test_dropout_sits_where_transformers_has_it(name: str, field: str) -> None:
    """Dropping everything (probability 1) in training is deterministic, so it shows the place."""
    fields = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, field: 1.0}
    theirs, ours = pair(name, hf_config(**fields))
    inputs = inputs_of(name)
    assert_same(ours.train()(**inputs, **EVERYTHING), theirs.train()(**inputs, **EVERYTHING))


def test_fresh_weights_are_initialized_as_transformers_does() -> None:
    pytest.importorskip("transformers")
    config = SqueezeBertConfig.from_dict(hf_config(initializer_range=0.5).to_dict())
    model = SqueezeBertForTokenClassification(config)
    weights = dict(model.named_parameters())
    assert not weights["transformer.embeddings.word_embeddings.weight"][0].any()
    assert not weights["transformer.encoder.layers.1.attention.query.bias"].any()
    assert (weights["transformer.encoder.layers.0.output.layernorm.weight"] == 1.0).all()
    assert 0.4 < weights["transformer.encoder.layers.0.intermediate.conv1d.weight"].std() < 0.6


def test_outputs_can_be_indexed() -> None:
    """By position among the fields that are set, the loss first, and by name, as Hugging Face's outputs."""
    output = outputs.LogitsOutput(logits=torch.ones(2), loss=torch.zeros(()), hidden_states=(torch.ones(1),))
    assert output[0] is output.loss
    assert output["logits"] is output[1] is output.logits
    assert output[2:] == (output.hidden_states,)
    assert outputs.LogitsOutput(logits=output.logits)[0] is output.logits
    with pytest.raises(KeyError, match="attentions"):
        output["attentions"]
