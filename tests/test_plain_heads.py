"""The plain heads against transformers where a head has a choice: kinds of loss, labels, tied weights."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from small_models import hf_config
from squeezebert_kernels.nn.config import SqueezeBertConfig
from squeezebert_kernels.nn.plain.heads import (
    SqueezeBertForMaskedLM,
    SqueezeBertForMultipleChoice,
    SqueezeBertForQuestionAnswering,
)
from squeezebert_kernels.nn.plain.model import SqueezeBertModel
from test_plain_models import MODELS, TOKENS, assert_same, pair

IDS = torch.arange(1, 1 + 3 * TOKENS).reshape(3, TOKENS)


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels"),
    [
        (None, 1, torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)),
        (None, 1, torch.tensor([[0.5], [-1.0], [2.0]], dtype=torch.float64)),
        (None, 4, torch.tensor([3, 0, 1])),
        (None, 4, torch.tensor([3, -100, 1])),
        (None, 4, torch.tensor([[1.0, 0.0, 1.0, 0.0]] * 3, dtype=torch.float64)),
        ("regression", 4, torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).reshape(3, 4)),
        ("single_label_classification", 4, torch.tensor([[3], [0], [1]])),
        ("multi_label_classification", 4, torch.tensor([[1.0, 0.0, 1.0, 0.0]] * 3, dtype=torch.float64)),
    ],
)
def test_sequence_classification_losses(problem_type: str | None, num_labels: int, labels: torch.Tensor) -> None:
    config = hf_config(problem_type=problem_type, num_labels=num_labels)
    theirs, ours = pair("SqueezeBertForSequenceClassification", config)
    assert_same(ours(IDS, labels=labels), theirs(IDS, labels=labels))
    assert_same(ours(IDS[:1], labels=labels[:1]), theirs(IDS[:1], labels=labels[:1]))


def test_problem_type_is_deduced_again_for_every_call() -> None:
    _, ours = pair("SqueezeBertForSequenceClassification", hf_config(num_labels=4))
    indices = torch.tensor([3, 0, 1])
    single = ours(IDS, labels=indices).loss
    ours(IDS, labels=torch.zeros(3, 4, dtype=torch.float64))
    assert torch.equal(ours(IDS, labels=indices).loss, single)


def test_question_answering_takes_positions_with_a_last_dimension() -> None:
    theirs, ours = pair("SqueezeBertForQuestionAnswering", hf_config())
    positions = {"start_positions": torch.tensor([[0], [3], [-2]]), "end_positions": torch.tensor([[8], [20], [3]])}
    assert_same(ours(IDS, **positions), theirs(IDS, **positions))
    assert ours(IDS, start_positions=positions["start_positions"]).loss is None


def test_losses_ignore_all_labels_as_transformers_does() -> None:
    """Nothing but -100 leaves nothing to average: NaN, as PyTorch's cross-entropy gives."""
    theirs, ours = pair("SqueezeBertForMaskedLM", hf_config())
    labels = torch.full_like(IDS, -100)
    assert theirs(IDS, labels=labels).loss.isnan()
    assert ours(IDS, labels=labels).loss.isnan()


def test_tied_weights_are_one_parameter() -> None:
    theirs, ours = pair("SqueezeBertForMaskedLM", hf_config())
    predictions = ours.cls.predictions
    assert predictions.decoder.weight is ours.transformer.embeddings.word_embeddings.weight
    assert predictions.decoder.bias is predictions.bias
    assert {name for name, _ in ours.named_parameters()} == {name for name, _ in theirs.named_parameters()}


def test_untied_weights_are_their_own() -> None:
    theirs, ours = pair("SqueezeBertForMaskedLM", hf_config(tie_word_embeddings=False))
    assert ours.cls.predictions.decoder.weight is not ours.transformer.embeddings.word_embeddings.weight
    assert_same(ours(IDS), theirs(IDS))


@pytest.mark.parametrize("name", MODELS)
def test_transformers_loads_the_state_dict(name: str) -> None:
    theirs, ours = pair(name, hf_config())
    theirs.load_state_dict(ours.state_dict(), strict=True)


def small_config(**fields: Any) -> SqueezeBertConfig:
    small = {"vocab_size": 61, "hidden_size": 16, "embedding_size": 16, "num_attention_heads": 4}
    return SqueezeBertConfig(
        **{**small, "num_hidden_layers": 1, "intermediate_size": 32, "max_position_embeddings": 8, **fields}
    )


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (SqueezeBertModel, {}, "input_ids, inputs_embeds: expected exactly one of them, got neither"),
        (SqueezeBertForMultipleChoice, {}, "input_ids, inputs_embeds: expected exactly one of them, got neither"),
        (
            SqueezeBertModel,
            {"input_ids": IDS, "inputs_embeds": torch.zeros(3, TOKENS, 16)},
            "input_ids, inputs_embeds: expected exactly one of them, got both",
        ),
        (SqueezeBertModel, {"input_ids": IDS[0]}, "input_ids: expected shape [N, S], got [9]"),
        (SqueezeBertModel, {"inputs_embeds": torch.zeros(3, 16)}, "inputs_embeds: expected shape [N, S, 16]"),
        (SqueezeBertModel, {"input_ids": IDS}, "input_ids: expected at most 8 tokens in a sequence, got 9"),
        (
            SqueezeBertModel,
            {"input_ids": IDS[:, :8], "attention_mask": torch.ones(3, 9)},
            "attention_mask: expected shape [3, 8] or a 4-D mask, got [3, 9]",
        ),
        (
            SqueezeBertModel,
            {"input_ids": IDS[:, :8], "output_attentions": "weights"},
            "output_attentions: expected True, False, 'scores' or 'probabilities', got 'weights'",
        ),
        (SqueezeBertForMultipleChoice, {"input_ids": IDS}, "input_ids: expected a dimension of choices"),
    ],
)
def test_models_refuse(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        model(small_config())(**arguments)


def test_question_answering_needs_two_labels() -> None:
    with pytest.raises(ValueError, match="num_labels: expected 2, a start and an end score, got 3"):
        SqueezeBertForQuestionAnswering(small_config(num_labels=3))


def test_strict_loading_names_a_missing_tensor() -> None:
    model = SqueezeBertForMaskedLM(small_config())
    state = model.state_dict()
    del state["cls.predictions.transform.dense.bias"]
    with pytest.raises(RuntimeError, match=r"cls\.predictions\.transform\.dense\.bias"):
        model.load_state_dict(state)
