"""squeezebert_kernels' own models: transformers' checkpoints and results without transformers' code."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import squeezebert_kernels
from paths import kernels, original
from small_models import GROUP_CONFIGURATIONS, hf_config, hf_model, padding_mask, randomize
from squeezebert_kernels import SqueezeBertConfig, optimize, restore
from tolerances import REFERENCE_PARITY

CLOSE = REFERENCE_PARITY[torch.float32]
NAMES = [
    "SqueezeBertModel",
    "SqueezeBertForMaskedLM",
    "SqueezeBertForSequenceClassification",
    "SqueezeBertForMultipleChoice",
    "SqueezeBertForTokenClassification",
    "SqueezeBertForQuestionAnswering",
]
MASKS = {"none": None, "right": padding_mask([9, 4, 1], 9), "left": padding_mask([9, 4, 1], 9).flip(1)}


def own(name: str) -> Any:
    return getattr(squeezebert_kernels, name)


def inputs_of(name: str, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    inputs = {"input_ids": torch.randint(1, 61, (3, 9)), "token_type_ids": torch.randint(0, 2, (3, 9))}
    if mask is not None:
        inputs["attention_mask"] = mask
    if name.endswith("MultipleChoice"):
        inputs = {key: torch.stack([value, value.flip(0)], dim=1) for key, value in inputs.items()}
    return inputs


def assert_same(ours: Any, theirs: Any, real: torch.Tensor | None) -> None:
    assert ours.to_dict().keys() == theirs.keys()
    for key, mine in ours.to_dict().items():
        value = theirs[key]
        if real is not None and mine.shape[:2] == real.shape:
            mine, value = mine[real.bool()], value[real.bool()]
        torch.testing.assert_close(mine, value, **CLOSE, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_transformers_checkpoints_give_transformers_outputs(name: str, mask: str, tmp_path: Path) -> None:
    theirs = hf_model(name, hf_config())
    theirs.save_pretrained(tmp_path)
    ours = own(name).from_pretrained(tmp_path)
    assert not ours.training
    inputs = inputs_of(name, MASKS[mask])
    with kernels():
        assert_same(ours(**inputs), theirs(**inputs), MASKS[mask])


@pytest.mark.parametrize("groups", GROUP_CONFIGURATIONS)
@torch.no_grad()
def test_every_combination_of_groups(groups: str, tmp_path: Path) -> None:
    theirs = hf_model("SqueezeBertModel", hf_config(groups))
    theirs.save_pretrained(tmp_path)
    inputs = inputs_of("SqueezeBertModel", MASKS["right"])
    with kernels():
        assert_same(own("SqueezeBertModel").from_pretrained(tmp_path)(**inputs), theirs(**inputs), MASKS["right"])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_transformers_reads_what_save_pretrained_writes(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = own(name)(SqueezeBertConfig.from_dict(hf_config().to_dict())).eval()
    randomize(ours)
    ours.save_pretrained(tmp_path)
    theirs, loading = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert list(theirs.config.architectures) == [name]
    inputs = inputs_of(name, MASKS["right"])
    assert_same(ours(**inputs), theirs.eval()(**inputs), MASKS["right"])
    again = own(name).from_pretrained(tmp_path)
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in again.state_dict().items())


@torch.no_grad()
def test_what_the_kernels_do_not_serve_runs_through_the_reference() -> None:
    theirs = hf_model("SqueezeBertForTokenClassification", hf_config())
    ours = own("SqueezeBertForTokenClassification")(SqueezeBertConfig.from_dict(hf_config().to_dict())).eval()
    ours.load_state_dict(theirs.state_dict())
    inputs = {**inputs_of("", MASKS["right"]), "output_hidden_states": True, "output_attentions": True}
    with original("output_"):
        result = ours(**inputs)
    expected = theirs(**inputs)
    for mine, other in zip(
        result.hidden_states + result.attentions, expected.hidden_states + expected.attentions, strict=True
    ):
        torch.testing.assert_close(mine, other, **CLOSE)
    with original("float64"):
        ours.double()(**inputs_of("", None))


@pytest.mark.parametrize("name", ["return_dict", "use_cache", "head_mask"])
@torch.no_grad()
def test_arguments_that_only_transformers_has_are_refused(name: str) -> None:
    model = own("SqueezeBertModel")(SqueezeBertConfig.from_dict(hf_config().to_dict())).eval()
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        model(**inputs_of("", None), **{name: None})


@pytest.mark.parametrize("name", ["SqueezeBertForTokenClassification", "SqueezeBertForQuestionAnswering"])
@torch.no_grad()
def test_losses_count_padded_positions(name: str) -> None:
    theirs = hf_model(name, hf_config())
    ours = own(name)(SqueezeBertConfig.from_dict(hf_config().to_dict())).eval()
    ours.load_state_dict(theirs.state_dict())
    labels = {"labels": torch.randint(0, 2, (3, 9))}
    if name.endswith("QuestionAnswering"):
        labels = {"start_positions": torch.tensor([0, 3, 8]), "end_positions": torch.tensor([1, 5, 9])}
    inputs = {**inputs_of(name, MASKS["left"]), **labels}
    with kernels():
        assert_same(ours(**inputs), theirs(**inputs), None)


def test_a_new_model_trains() -> None:
    model = own("SqueezeBertForSequenceClassification")(SqueezeBertConfig.from_dict(hf_config().to_dict())).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    ids, labels = torch.randint(1, 61, (8, 6)), torch.randint(0, 2, (8,))
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    model.eval()
    with torch.no_grad(), kernels():
        fast = model(ids).logits
    with torch.no_grad():
        torch.testing.assert_close(restore(model)(ids).logits, fast, **CLOSE)


@torch.no_grad()
def test_copies_released_weights_and_tied_ones() -> None:
    model = own("SqueezeBertForMaskedLM")(SqueezeBertConfig.from_dict(hf_config().to_dict())).eval()
    ids = torch.randint(1, 61, (2, 5))
    expected = model(ids).logits
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.cls.predictions.decoder.weight is twin.transformer.embeddings.word_embeddings.weight
        with kernels():
            assert torch.equal(twin(ids).logits, expected)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    optimize(model, release_weights=True)
    with kernels():
        assert torch.equal(model(ids).logits, expected)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_transformers_is_not_imported(tmp_path: Path) -> None:
    """Neither for a model of our own, nor for its checkpoint."""
    own("SqueezeBertModel")(SqueezeBertConfig.from_dict(hf_config().to_dict())).save_pretrained(tmp_path)
    code = (
        "import sys, torch, squeezebert_kernels as s\n"
        f"model = s.SqueezeBertModel.from_pretrained({str(tmp_path)!r})\n"
        "with torch.no_grad(): model(torch.ones(1, 3, dtype=torch.long))\n"
        "assert 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
