"""transformers' own model tests, ModelTesterMixin, of SqueezeBERT and BERT: with optimized models as without.

`make test-hugging-face` runs this on the tests in transformers' source distribution, which it downloads; elsewhere it
is skipped. That distribution leaves tests/models out, so the classes that stand there stand here. Each test is run
plain, and then with every model optimized when it is put in eval mode, which `from_pretrained` does too.
"""

from __future__ import annotations

import sys
import unittest
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import pytest
import torch

from small_models import bert_config, hf_config
from squeezebert_kernels import explain, optimize

transformers = pytest.importorskip("transformers")
HEADS = ("MaskedLM", "MultipleChoice", "QuestionAnswering", "SequenceClassification", "TokenClassification")
CLASSES = {
    "SqueezeBert": ("Model", *(f"For{head}" for head in HEADS)),
    "Bert": ("Model", *(f"For{head}" for head in (*HEADS, "NextSentencePrediction", "PreTraining")), "LMHeadModel"),
}


def modeling_common() -> Any:
    """transformers' tests/test_modeling_common.py; skips this file where it is not found."""
    # Two mixins that it imports are not in the distribution. They are not what is tested.
    for name, mixin in (
        ("generation.test_utils", "GenerationTesterMixin"),
        ("exporters.test_export", "ExportTesterMixin"),
    ):
        for part in (name.split(".")[0], name):
            sys.modules.setdefault(f"tests.{part}", ModuleType(part))
        setattr(sys.modules[f"tests.{name}"], mixin, type(mixin, (), {}))
    return pytest.importorskip("tests.test_modeling_common", reason="run by make test-hugging-face")


COMMON = modeling_common()
NAMES = unittest.TestLoader().getTestCaseNames(COMMON.ModelTesterMixin)  # type: ignore[arg-type]


class ModelTester:
    """What ModelTesterMixin wants to know of a family: sizes, and inputs."""

    batch_size, seq_length, num_choices = 3, 7, 4
    num_hidden_layers, hidden_size, num_attention_heads = 2, 48, 4
    is_training = True

    def __init__(self, family: str) -> None:
        self._family = family

    def get_config(self) -> Any:
        return (hf_config if self._family == "SqueezeBert" else bert_config)(max_position_embeddings=64)

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        config, shape = self.get_config(), [self.batch_size, self.seq_length]
        return config, {
            "input_ids": COMMON.ids_tensor(shape, config.vocab_size),
            "token_type_ids": COMMON.ids_tensor(shape, config.type_vocab_size),
            "attention_mask": COMMON.random_attention_mask(shape),
        }


def case(family: str, name: str) -> unittest.TestCase:
    """transformers' test `name` of a family."""

    class ModelTest(COMMON.ModelTesterMixin, unittest.TestCase):  # type: ignore[misc, name-defined]
        all_model_classes = tuple(getattr(transformers, f"{family}{suffix}") for suffix in CLASSES[family])

        def setUp(self) -> None:
            self.model_tester = ModelTester(family)

        def _prepare_for_class(self, inputs: Any, model_class: Any, return_labels: bool = False) -> Any:
            inputs = super()._prepare_for_class(inputs, model_class, return_labels=return_labels)
            if return_labels and model_class is transformers.BertForPreTraining:
                inputs["labels"] = torch.zeros(inputs["input_ids"].shape, dtype=torch.long)
                inputs["next_sentence_label"] = torch.zeros(len(inputs["input_ids"]), dtype=torch.long)
            return inputs

    return ModelTest(name)


def outcome(test: unittest.TestCase) -> tuple[str, str]:
    """passed, skipped or failed, and why."""
    transformers.set_seed(0)
    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        test.run(result)
    for ending, told in (("failed", result.errors + result.failures), ("skipped", result.skipped)):
        if told:
            return ending, told[0][1]
    return "passed", ""


@contextmanager
def optimized_when_evaluated() -> Iterator[None]:
    """Inside the block, a model of transformers that is put in eval mode is optimized."""
    evaluate = transformers.PreTrainedModel.eval

    def optimize_and_evaluate(model: Any) -> Any:
        with suppress(TypeError, ValueError):  # no model of ours, or one whose forward is replaced
            optimize(model)
        return evaluate(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.PreTrainedModel, "eval", optimize_and_evaluate)
        yield


@pytest.mark.parametrize("family", CLASSES)
def test_models_are_optimized(family: str) -> None:
    for suffix in CLASSES[family]:
        model = getattr(transformers, f"{family}{suffix}")(ModelTester(family).get_config())
        with optimized_when_evaluated():
            model.eval()
        assert explain(model).served


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", CLASSES)
def test_as_without(family: str, name: str) -> None:
    plain, why = outcome(case(family, name))
    if plain != "passed":
        pytest.skip(f"{plain} without: {why.strip().splitlines()[-1]}")
    with optimized_when_evaluated():
        optimized, why = outcome(case(family, name))
    assert optimized == "passed", why
