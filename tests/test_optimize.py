"""optimize(model): same outputs as transformers' model, whatever the head, the input and its padding, and undone
exactly."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from paths import binding_of, computed, kernels, original, restored
from small_models import GROUP_CONFIGURATIONS, bert_config, hf_config, hf_model, padding_mask, small
from squeezebert_kernels import optimize, restore
from tolerances import REFERENCE_PARITY

CLOSE = REFERENCE_PARITY[torch.float32]
BASES = ["SqueezeBertModel", "BertModel"]
FIRST_TOKEN_HEADS = [
    "SqueezeBertForSequenceClassification",
    "SqueezeBertForMultipleChoice",
    "BertForSequenceClassification",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
]
TOKEN_HEADS = [
    "SqueezeBertForMaskedLM",
    "SqueezeBertForTokenClassification",
    "SqueezeBertForQuestionAnswering",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
    "BertLMHeadModel",
]
TOKENS = 9
# The published widths (and BERT-base's).
PUBLISHED = {
    "SqueezeBertModel": {
        "hidden_size": 768,
        "embedding_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
    },
    "BertModel": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}
MASKS = {
    "none": None,
    "ones": torch.ones(3, TOKENS, dtype=torch.long),
    "right": padding_mask([9, 4, 1], TOKENS),
    "left": padding_mask([9, 4, 1], TOKENS).flip(1),
    "holes": torch.tensor([[1, 0, 1, 1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0, 0, 1]]),
}


def inputs_of(name: str, mask: Tensor | None, labels: bool = False) -> dict[str, Tensor]:
    """Three sequences with token types, a mask, and labels everywhere, padding included."""
    inputs = {"input_ids": torch.randint(1, 61, (3, TOKENS)), "token_type_ids": torch.randint(0, 2, (3, TOKENS))}
    if mask is not None:
        inputs["attention_mask"] = mask
    if name.endswith("MultipleChoice"):
        inputs = {key: torch.stack([value, value.flip(0)], dim=1) for key, value in inputs.items()}
    if not labels:
        return inputs
    per_token = torch.randint(0, 2, (3, TOKENS))
    per_sequence = torch.randint(0, 2, (3,))
    if name.endswith("QuestionAnswering"):
        return {**inputs, "start_positions": per_sequence, "end_positions": per_sequence + 2}
    if name.endswith("PreTraining"):
        return {**inputs, "labels": per_token, "next_sentence_label": per_sequence}
    return {**inputs, "labels": per_token if name in TOKEN_HEADS else per_sequence}


def assert_same(ours: Any, theirs: Any, real: Tensor | None) -> None:
    """Same type, same fields, same values at every position that is not padding."""
    assert type(ours) is type(theirs)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        mine = ours[key]
        if real is not None and mine.shape[:2] == real.shape:
            mine, value = mine[real.bool()], value[real.bool()]
        torch.testing.assert_close(mine, value, **CLOSE, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", BASES + FIRST_TOKEN_HEADS + TOKEN_HEADS)
@torch.no_grad()
def test_outputs_are_transformers_outputs(name: str, mask: str) -> None:
    model = small(name)
    inputs = inputs_of(name, MASKS[mask])
    expected = model(**inputs)
    with kernels():
        result = optimize(model)(**inputs)
    assert_same(result, expected, MASKS[mask])


@pytest.mark.parametrize("groups", GROUP_CONFIGURATIONS)
@torch.no_grad()
def test_every_combination_of_groups(groups: str) -> None:
    model = hf_model("SqueezeBertModel", hf_config(groups))
    inputs = inputs_of("SqueezeBertModel", MASKS["right"])
    expected = model(**inputs)
    with kernels():
        assert_same(optimize(model)(**inputs), expected, MASKS["right"])


@pytest.mark.parametrize("name", FIRST_TOKEN_HEADS + TOKEN_HEADS)
@pytest.mark.parametrize("mask", ["none", "right", "left"])
@torch.no_grad()
def test_losses_are_transformers_losses(name: str, mask: str) -> None:
    """Also where padded positions have labels, which transformers counts."""
    model = small(name)
    inputs = inputs_of(name, MASKS[mask], labels=True)
    expected = model(**inputs)
    with kernels():
        result = optimize(model)(**inputs)
    assert_same(result, expected, None)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_hidden_states_are_zero_at_padding(name: str) -> None:
    model = optimize(small(name))
    hidden = model(**inputs_of(name, MASKS["right"])).last_hidden_state
    assert torch.equal(hidden[MASKS["right"] == 0], torch.zeros(13, 48))


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("mask", ["none", "left", "holes"])
@torch.no_grad()
def test_positions_embeddings_and_tuples(name: str, mask: str) -> None:
    model = small(name)
    ids = torch.randint(1, 61, (3, TOKENS))
    embeds = torch.randn(3, TOKENS, 48)
    requests: list[dict[str, Any]] = [
        {"input_ids": ids, "position_ids": torch.randint(0, 24, (3, TOKENS))},
        {"input_ids": ids, "position_ids": torch.randint(0, 24, (1, TOKENS))},
        {"input_ids": ids.int(), "token_type_ids": torch.ones(1, TOKENS, dtype=torch.long)},
        {"inputs_embeds": embeds, "position_ids": torch.randint(0, 24, (3, TOKENS))},
        {"input_ids": ids.t().contiguous().t(), "output_attentions": False, "output_hidden_states": False},
    ]
    for request in requests:
        request["attention_mask"] = MASKS[mask]
    expected = [model(**request) for request in requests]
    expected_tuple = model(ids, MASKS[mask], return_dict=False)
    optimize(model)
    for request, outputs in zip(requests, expected, strict=True):
        with kernels():
            assert_same(model(**request), outputs, MASKS[mask])
    with kernels():
        result = model(ids, MASKS[mask], return_dict=False)
    assert isinstance(result, tuple)
    assert len(result) == len(expected_tuple)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.uint8, torch.float32, torch.float64])
@torch.no_grad()
def test_masks_of_every_dtype(dtype: torch.dtype) -> None:
    model = small("SqueezeBertModel")
    inputs = inputs_of("SqueezeBertModel", MASKS["right"].to(dtype))
    expected = model(**inputs)
    with kernels():
        assert_same(optimize(model)(**inputs), expected, MASKS["right"])


@torch.no_grad()
def test_a_model_without_pooler() -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.BertModel(bert_config(), add_pooling_layer=False).eval()
    inputs = inputs_of("BertModel", MASKS["left"])
    expected, expected_tuple = model(**inputs), model(**inputs, return_dict=False)
    optimize(model)
    with kernels():
        assert_same(model(**inputs), expected, MASKS["left"])
    with original("tuple"):
        assert len(model(**inputs, return_dict=False)) == len(expected_tuple)


@torch.no_grad()
def test_a_model_inside_another_module() -> None:
    model = torch.nn.ModuleDict({"first": small("BertModel"), "second": small("SqueezeBertModel")})
    ids = torch.randint(1, 61, (2, 5))
    expected = [model[key](ids).last_hidden_state for key in model]
    optimize(model)
    with kernels():
        for key, hidden in zip(model, expected, strict=True):
            torch.testing.assert_close(model[key](ids).last_hidden_state, hidden, **CLOSE)


@torch.no_grad()
def test_the_published_size() -> None:
    """Hidden 768, 12 heads, intermediate 3072, the published groups; two of its layers."""
    model = small("SqueezeBertModel", **PUBLISHED["SqueezeBertModel"])
    inputs = inputs_of("SqueezeBertModel", MASKS["right"])
    expected = model(**inputs)
    with kernels():
        assert_same(optimize(model)(**inputs), expected, MASKS["right"])


@pytest.mark.parametrize("name", ["SqueezeBertModel", "BertForSequenceClassification", "SqueezeBertForMaskedLM"])
@torch.no_grad()
def test_what_the_model_keeps_and_what_restore_brings_back(name: str, tmp_path: Any) -> None:
    model = small(name)
    inputs = inputs_of(name, MASKS["right"])
    before = {
        "type": (type(model).__module__, type(model).__qualname__),
        "signature": inspect.signature(model.forward),
        "names": [name for name, _ in model.named_parameters()],
        "modules": [name for name, _ in model.named_modules()],
    }
    state = {key: value.clone() for key, value in model.state_dict().items()}
    expected = model(**inputs)
    original_class = type(model)

    def now() -> dict[str, Any]:
        return {
            "type": (type(model).__module__, type(model).__qualname__),
            "signature": inspect.signature(model.forward),
            "names": [name for name, _ in model.named_parameters()],
            "modules": [name for name, _ in model.named_modules()],
        }

    assert optimize(model) is model
    assert now() == before
    assert isinstance(model, original_class)
    assert type(type(model)(model.config)) is original_class
    optimized_state = model.state_dict()
    assert list(optimized_state) == list(state)
    assert all(torch.equal(optimized_state[key], state[key]) for key in state)
    model.save_pretrained(tmp_path)
    reloaded = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(value, state[key]) for key, value in reloaded.state_dict().items())

    assert restore(model) is model
    assert now() == before
    assert type(model) is original_class
    with restored():
        again = model(**inputs)
    assert all(torch.equal(again[key], expected[key]) for key in expected)


@pytest.mark.parametrize("release", [False, True])
@torch.no_grad()
def test_defaults_of_the_caller_do_not_matter(release: bool) -> None:
    """torch.set_default_dtype and torch.set_default_device are for the caller's own tensors."""
    model, inputs = small("SqueezeBertModel"), inputs_of("SqueezeBertModel", MASKS["right"])
    expected = model(**inputs)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), kernels():
            ours = optimize(model, release_weights=release)(**inputs)
            state = model.state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(ours, expected, MASKS["right"])
    for key, value in restore(model).state_dict().items():
        assert torch.equal(state[key], value)


@torch.no_grad()
def test_optimizing_twice_is_optimizing_once() -> None:
    model = small("SqueezeBertForMaskedLM")
    inputs = inputs_of("SqueezeBertForMaskedLM", None)
    expected = model(**inputs).logits
    optimize(optimize(model))
    restore(model)
    assert torch.equal(model(**inputs).logits, expected)
    restore(model)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("size", ["small", "published"])
@torch.no_grad()
def test_a_sentence_has_the_same_bits_in_any_company(name: str, threads: int, size: str) -> None:
    """Alone or in a batch, padded or not, with any number of threads."""
    model = optimize(small(name, **(PUBLISHED[name] if size == "published" else {})))
    sentences = [torch.randint(1, 61, (length,)) for length in (9, 4, 1, 7)]
    alone = [model(sentence[None]) for sentence in sentences]
    torch.set_num_threads(threads)
    for width in (9, 12):
        ids = torch.zeros(4, width, dtype=torch.long)
        mask = torch.zeros(4, width, dtype=torch.long)
        for row, sentence in enumerate(sentences):
            ids[row, : len(sentence)] = sentence
            mask[row, : len(sentence)] = 1
        together = model(ids, attention_mask=mask)
        for row, (sentence, single) in enumerate(zip(sentences, alone, strict=True)):
            assert torch.equal(together.last_hidden_state[row, : len(sentence)], single.last_hidden_state[0])
            assert torch.equal(together.pooler_output[row], single.pooler_output[0])


@pytest.mark.parametrize("name", ["SqueezeBertForSequenceClassification", "BertForSequenceClassification"])
@pytest.mark.parametrize("mask", ["none", "right", "left"])
@torch.no_grad()
def test_computing_the_first_token_only_changes_no_bit(name: str, mask: str) -> None:
    head = optimize(small(name))
    inputs = inputs_of(name, MASKS[mask])
    full = head.base_model(**inputs).pooler_output
    with computed() as results:
        logits = head(**inputs).logits
    (hidden, pooled) = results[0]
    assert hidden.shape == (3, 1, 48)
    assert torch.equal(pooled, full)
    seen: list[Tensor] = []
    head.base_model.register_forward_hook(lambda module, args, output: seen.append(output.last_hidden_state))
    with kernels():
        assert torch.equal(head(**inputs).logits, logits)
    assert seen[0].shape == (3, 9, 48)  # who listens to the base model sees what it always gives


@torch.no_grad()
def test_two_threads_with_different_heads_over_one_base() -> None:
    """What one head wants of the base is not what another thread gets."""
    transformers = pytest.importorskip("transformers")
    classifier = small("BertForSequenceClassification")
    tagger = transformers.BertForTokenClassification(bert_config()).eval()
    tagger.bert = classifier.bert
    inputs = inputs_of("BertModel", MASKS["right"])
    optimize(torch.nn.ModuleList([classifier, tagger]))
    expected = classifier(**inputs).logits, tagger(**inputs).logits

    def run(model: Any) -> list[Tensor]:
        return [model(**inputs).logits for _ in range(50)]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(torch.no_grad()(run), [classifier, tagger]))
    for logits, right in zip(results, expected, strict=True):
        assert all(torch.equal(each, right) for each in logits)


def test_packed_weights_are_hardly_larger_and_in_order() -> None:
    """At most 1.02 of the plain size at the published widths, aligned, each where the one before ends."""
    model = optimize(small("SqueezeBertModel", **PUBLISHED["SqueezeBertModel"]))
    packed = binding_of(model).packed
    plain = sum(tensor.numel() * 4 for item in packed.items for tensor in item.tensors)
    assert packed.buffer.numel() <= 1.02 * plain
    end = packed.buffer.data_ptr()
    for item in packed.packed:
        assert item.data_ptr() % 64 == 0
        assert 0 <= item.data_ptr() - end < 64
        end = item.data_ptr() + item.numel()


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_bad_ids_are_errors(name: str) -> None:
    model = optimize(small(name))
    with pytest.raises(IndexError, match=r"input_ids: expected 0 to 60, got 61"):
        model(torch.full((1, 3), 61))
    with pytest.raises(ValueError, match=r"input_ids: expected at most 24 tokens"):
        model(torch.ones(1, 25, dtype=torch.long))
    with pytest.raises(IndexError, match=r"token_type_ids: expected 0 to 1, got 2"):
        model(torch.ones(1, 3, dtype=torch.long), token_type_ids=torch.full((1, 3), 2))


def test_bad_arguments_are_errors() -> None:
    with pytest.raises(TypeError, match=r"expected a transformers SqueezeBERT or BERT model.* got a Linear"):
        optimize(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"dtype: expected torch.float32, .* or torch.int8, got torch.float64"):
        optimize(small("BertModel"), dtype=torch.float64)
    model = small("BertModel")
    model.forward = model.forward
    with pytest.raises(ValueError, match="a BertModel whose forward was replaced"):
        optimize(model)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"hidden_act": "relu"}, "expected the exact GELU"), ({"hidden_act": "gelu_new"}, "expected the exact GELU")],
)
@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_models_the_kernels_cannot_compute_stay_as_they_are(name: str, fields: dict[str, Any], reason: str) -> None:
    model = small(name, **fields)
    inputs = inputs_of(name, MASKS["right"])
    expected = model(**inputs).last_hidden_state
    with pytest.warns(UserWarning, match=f"{name} stays on its original path: .*{reason}"):
        optimize(model)
    with original(reason):
        assert torch.equal(model(**inputs).last_hidden_state, expected)


@torch.no_grad()
def test_pruned_heads_stay_as_they_are() -> None:
    model = small("BertModel")
    attention = model.encoder.layer[1].attention
    for name in ("query", "key", "value"):
        setattr(attention.self, name, torch.nn.Linear(48, 24))
    attention.output.dense = torch.nn.Linear(24, 48)
    attention.self.num_attention_heads, attention.self.all_head_size = 2, 24
    inputs = inputs_of("BertModel", MASKS["right"])
    expected = model(**inputs).last_hidden_state
    with pytest.warns(UserWarning, match=r"attention.self.query does not keep the number of channels"):
        optimize(model)
    assert torch.equal(model(**inputs).last_hidden_state, expected)


@torch.no_grad()
def test_a_decoder_stays_as_it_is() -> None:
    model = small("BertModel", is_decoder=True, add_cross_attention=True)
    inputs = {**inputs_of("BertModel", None), "encoder_hidden_states": torch.randn(3, 4, 48)}
    expected = model(**inputs).last_hidden_state
    with pytest.warns(UserWarning, match=r"stays on its original path: config.is_decoder"):
        optimize(model)
    assert torch.equal(model(**inputs).last_hidden_state, expected)
