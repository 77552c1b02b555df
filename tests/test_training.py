"""optimize(model, training=True): the loss and the gradients of transformers' own forward, and what it promises."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import squeezebert_kernels
from op_testing import threads
from small_models import GROUP_CONFIGURATIONS, config_for, hf_model, padding_mask
from tolerances import GRADIENT_PARITY, LOSS_CURVE, REFERENCE_PARITY

NAMES = [
    "SqueezeBertModel",
    "SqueezeBertForMaskedLM",
    "SqueezeBertForSequenceClassification",
    "SqueezeBertForMultipleChoice",
    "SqueezeBertForTokenClassification",
    "SqueezeBertForQuestionAnswering",
    "BertModel",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForPreTraining",
]
CLASSIFIER = "SqueezeBertForSequenceClassification"


@pytest.fixture(autouse=True)
def _no_fallback() -> Iterator[None]:
    """A call that takes the original path warns: an error here, unless a test asks for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pair(name: str, dropout: float = 0.0, **fields: Any) -> tuple[Any, Any]:
    """A model in train mode, and its copy on the kernels."""
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    torch.manual_seed(0)
    original = hf_model(name, config_for(name, **rates, **fields)).train()
    return original, squeezebert_kernels.optimize(copy.deepcopy(original), training=True)


def batch(name: str, lengths: tuple[int, ...] = (17, 5, 9), seed: int = 1) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(1, 61, (len(lengths), longest), generator=generator)
    mask = padding_mask(list(lengths), longest)
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if "MaskedLM" in name or "PreTraining" in name:
        given["labels"] = torch.where(mask.bool(), ids, -100)
    if "PreTraining" in name:
        given["next_sentence_label"] = torch.arange(len(lengths)) % 2
    if "Token" in name:
        given["labels"] = torch.where(mask.bool(), ids % 2, -100)
    if "Sequence" in name:
        given["labels"] = torch.arange(len(lengths)) % 2
    if "Question" in name:
        given |= {"start_positions": torch.ones_like(ids[:, 0]), "end_positions": torch.full_like(ids[:, 0], 3)}
    if "Choice" in name:
        given = {key: value[None] for key, value in given.items()} | {"labels": torch.tensor([1])}
    return given


def loss_of(model: Any, given: dict[str, Any]) -> Tensor:
    outputs = model(**given)
    if outputs.get("loss") is not None:
        return outputs.loss
    return (outputs.last_hidden_state * given["attention_mask"].unsqueeze(-1)).square().mean()


def gradients(model: Any, given: dict[str, Any]) -> dict[str, Tensor | None]:
    model.zero_grad()
    loss_of(model, given).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same_gradients(original: Any, ours: Any, given: dict[str, Any]) -> None:
    torch.testing.assert_close(loss_of(ours, given), loss_of(original, given), **REFERENCE_PARITY[torch.float32])
    expected = gradients(original, given)
    for name, gradient in gradients(ours, given).items():
        torch.testing.assert_close(gradient, expected[name], **GRADIENT_PARITY, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("name", NAMES)
def test_every_class(name: str) -> None:
    original, ours = pair(name)
    assert_same_gradients(original, ours, batch(name))
    assert_same_gradients(original, ours, batch(name, (9, 9)))


@pytest.mark.parametrize("groups", GROUP_CONFIGURATIONS)
def test_every_group_configuration(groups: str) -> None:
    original, ours = pair(CLASSIFIER, groups=groups)
    assert_same_gradients(original, ours, batch(CLASSIFIER))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masks_of_every_implementation(attention: str) -> None:
    original, ours = pair("BertForSequenceClassification", attn_implementation=attention)
    assert_same_gradients(original, ours, batch(CLASSIFIER))


def test_padding_on_the_left_and_labels_at_padding() -> None:
    """What reads padded positions has them computed."""
    original, ours = pair(CLASSIFIER)
    given = batch(CLASSIFIER)
    given["attention_mask"] = given["attention_mask"].flip(1)
    assert_same_gradients(original, ours, given)
    name = "SqueezeBertForTokenClassification"
    original, ours = pair(name)
    given = batch(name)
    given["labels"] = given["input_ids"] % 2
    assert_same_gradients(original, ours, given)


def test_padding_gives_zeros_or_what_the_original_gives() -> None:
    original, ours = pair("SqueezeBertModel")
    given = batch("SqueezeBertModel")
    padded = given["attention_mask"] == 0
    assert (ours(**given).last_hidden_state[padded] == 0).all()
    kept = squeezebert_kernels.optimize(copy.deepcopy(original), training=True, keep_padding=True)
    expected = original(**given).last_hidden_state
    torch.testing.assert_close(kept(**given).last_hidden_state, expected, **REFERENCE_PARITY[torch.float32])


def losses(model: Any, name: str, steps: int, accumulate: int = 1) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    seen = []
    for step in range(steps):
        for part in range(accumulate):
            loss = loss_of(model, batch(name, seed=accumulate * step + part)) / accumulate
            loss.backward()
            seen.append(loss.item())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return seen


@pytest.mark.parametrize("name", [CLASSIFIER, "SqueezeBertForTokenClassification", "BertForSequenceClassification"])
def test_loss_curve(name: str) -> None:
    original, ours = pair(name)
    torch.testing.assert_close(losses(ours, name, 20), losses(original, name, 20), **LOSS_CURVE)


def test_gradient_accumulation_and_parameter_groups() -> None:
    original, ours = pair(CLASSIFIER)
    torch.testing.assert_close(losses(ours, CLASSIFIER, 5, 3), losses(original, CLASSIFIER, 5, 3), **LOSS_CURVE)


def test_a_seed_gives_the_same_bits() -> None:
    """With dropout, twice, and with other thread counts: losses and every parameter."""
    original, _ = pair(CLASSIFIER, dropout=0.1)
    results = []
    for count in (1, 1, 2, 4):
        model = squeezebert_kernels.optimize(copy.deepcopy(original), training=True)
        torch.manual_seed(7)
        with threads(count):
            results.append((losses(model, CLASSIFIER, 3), model.state_dict()))
    for curve, weights in results[1:]:
        assert curve == results[0][0]
        for name, value in weights.items():
            assert torch.equal(value, results[0][1][name]), name


def test_dropout_is_on_in_train_mode_only() -> None:
    _, ours = pair("SqueezeBertModel", dropout=0.2)
    given = batch("SqueezeBertModel", (9,))
    outputs = [ours(**given).last_hidden_state for _ in range(2)]
    assert not torch.equal(*outputs)
    ours.eval()
    outputs = [ours(**given).last_hidden_state for _ in range(2)]
    assert torch.equal(*outputs)
    with torch.no_grad():
        assert torch.equal(ours(**given).last_hidden_state, outputs[0])


def test_recomputing_gives_the_same_bits() -> None:
    original, _ = pair(CLASSIFIER, dropout=0.1)
    results = []
    for recompute in (False, True):
        model = squeezebert_kernels.optimize(copy.deepcopy(original), training=True, recompute=recompute)
        torch.manual_seed(7)
        results.append(gradients(model, batch(CLASSIFIER)))
    for name, value in results[0].items():
        assert value is not None
        assert torch.equal(value, results[1][name]), name


def test_checkpointing() -> None:
    """torch.utils.checkpoint around the model: the same seeds, so the same bits; and BERT's own flag."""
    original, _ = pair("SqueezeBertModel", dropout=0.1)
    given = batch("SqueezeBertModel")
    results = []
    for checkpointed in (False, True):
        model = squeezebert_kernels.optimize(copy.deepcopy(original), training=True)
        torch.manual_seed(7)

        def run(ids: Tensor, mask: Tensor, model: Any = model) -> Tensor:
            return model(input_ids=ids, attention_mask=mask).last_hidden_state

        if checkpointed:
            hidden = torch.utils.checkpoint.checkpoint(run, *given.values(), use_reentrant=False)
        else:
            hidden = run(*given.values())
        hidden.square().sum().backward()
        results.append([parameter.grad for parameter in model.encoder.parameters()])
    assert all(map(torch.equal, *results))
    original, ours = pair("BertForSequenceClassification")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about its own default
        ours.gradient_checkpointing_enable()
    assert_same_gradients(original, ours, batch(CLASSIFIER))


def test_frozen_layers_get_no_gradient() -> None:
    original, ours = pair(CLASSIFIER)
    for model in (original, ours):
        model.transformer.embeddings.requires_grad_(False)
        model.transformer.encoder.layers[0].requires_grad_(False)
    assert_same_gradients(original, ours, batch(CLASSIFIER))
    assert ours.transformer.encoder.layers[0].attention.query.weight.grad is None


def test_inputs_embeds_get_gradients() -> None:
    original, ours = pair("SqueezeBertModel")
    embeds, mask = torch.randn(2, 7, 48), padding_mask([7, 4], 7)
    results = []
    for model in (original, ours):
        leaf = embeds.clone().requires_grad_()
        (
            model(inputs_embeds=leaf, attention_mask=mask).last_hidden_state * mask.unsqueeze(-1)
        ).square().sum().backward()
        results.append(leaf.grad)
    torch.testing.assert_close(*results, **GRADIENT_PARITY)


def test_a_parameter_shared_between_layers() -> None:
    original, ours = pair(CLASSIFIER)
    for model in (original, ours):
        first, second = model.transformer.encoder.layers
        second.attention.query.weight = first.attention.query.weight
    assert_same_gradients(original, ours, batch(CLASSIFIER))


def test_compile() -> None:
    original, ours = pair(CLASSIFIER)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        actual = gradients(torch.compile(ours, backend="aot_eager"), batch(CLASSIFIER))
    expected = gradients(original, batch(CLASSIFIER))
    for got, want in zip(actual.values(), expected.values(), strict=True):
        torch.testing.assert_close(got, want, **GRADIENT_PARITY)


def test_state_dict_copies_pickles_and_restore() -> None:
    original, ours = pair(CLASSIFIER)
    assert ours.state_dict().keys() == original.state_dict().keys()
    given = batch(CLASSIFIER)
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(loss_of(copied, given), loss_of(ours, given))
        assert type(copied.transformer.encoder) is type(ours.transformer.encoder)
    squeezebert_kernels.restore(ours)
    assert type(ours.transformer.encoder) is type(original.transformer.encoder)
    assert torch.equal(loss_of(ours, given), loss_of(original, given))


def test_inference_afterwards() -> None:
    original, ours = pair("SqueezeBertModel")
    squeezebert_kernels.optimize(ours.eval())
    with torch.no_grad():
        expected = original.eval()(**batch("SqueezeBertModel")).pooler_output
        torch.testing.assert_close(
            ours(**batch("SqueezeBertModel")).pooler_output, expected, **REFERENCE_PARITY[torch.float32]
        )


class Adapter(nn.Module):
    """LoRA, in short."""

    def __init__(self, base: nn.Conv1d) -> None:
        super().__init__()
        self.base, self.scale = base, nn.Parameter(torch.tensor(1.1))

    def forward(self, input: Tensor) -> Tensor:
        return self.base(input) * self.scale


def test_what_cannot_be_trained_takes_the_original_path() -> None:
    original, ours = pair(CLASSIFIER)
    for model in (original, ours):
        attention = model.transformer.encoder.layers[1].attention
        attention.query = Adapter(attention.query)
    with pytest.warns(UserWarning, match=r"encoder.layers.1.attention.query is a Adapter, not a module of"):
        loss_of(ours, batch(CLASSIFIER))
    assert_same_gradients(original, ours, batch(CLASSIFIER))
    with pytest.warns(UserWarning, match="SqueezeBertEncoder stays on its original path: .*Adapter"):
        squeezebert_kernels.optimize(ours, training=True)


@pytest.mark.parametrize("name", ["SqueezeBertModel", "BertModel"])
def test_models_without_values_stay_on_the_original_path(name: str) -> None:
    model = hf_model(name, config_for(name))
    with torch.device("meta"):  # where it makes tensors is not where the model is
        squeezebert_kernels.optimize(model, training=True)
    with pytest.warns(UserWarning, match="Encoder stays on its original path: an encoder on meta"):
        squeezebert_kernels.optimize(model.to("meta"), training=True)


def test_hidden_states_take_the_original_path() -> None:
    _, ours = pair(CLASSIFIER)
    with pytest.warns(UserWarning, match="took its original, slower path: output_hidden_states"):
        outputs = ours(**batch(CLASSIFIER), output_hidden_states=True)
    assert len(outputs.hidden_states) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"training": True, "dtype": torch.float16}, "dtype: expected torch.float32 with training=True"),
        ({"training": True, "release_weights": True}, "release_weights: expected False with training=True"),
        ({"recompute": True}, "recompute: expected False without training=True"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    original, _ = pair("SqueezeBertModel")
    with pytest.raises(ValueError, match=message):
        squeezebert_kernels.optimize(original, **options)


def test_explained() -> None:
    model = squeezebert_kernels.optimize(hf_model("BertModel", config_for("Bert")), training=True)
    assert squeezebert_kernels.explain(model).served
    assert not squeezebert_kernels.explain(squeezebert_kernels.restore(model)).served


def test_other_models() -> None:
    with pytest.raises(TypeError, match="model: expected a transformers SqueezeBERT or BERT model"):
        squeezebert_kernels.optimize(nn.Linear(2, 2), training=True)


def test_bad_labels_raise_as_in_pytorch() -> None:
    _, ours = pair(CLASSIFIER)
    with pytest.raises(IndexError, match="Target 5 is out of bounds"):
        ours(**{**batch(CLASSIFIER), "labels": torch.tensor([0, 5, 0])})
