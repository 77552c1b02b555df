"""optimize(model.cuda()): the model's own outputs, without padding computed, whatever the head, masks and dtype.

Without a GPU, the same forward runs on the CPU in Triton's interpreter, with no graph behind it.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kernel_testing import DEVICE
from model_testing import MASKS, NUMPY_WARNINGS, TOKENS, inputs, real, small
from paths import binding_of
from squeezebert_kernels import optimize, restore
from squeezebert_kernels.triton.graph import Request, bucket_of
from tolerances import LOW_PRECISION_RATIO, REFERENCE_PARITY

pytestmark = [NUMPY_WARNINGS, pytest.mark.usefixtures("optimize_here")]


@pytest.mark.parametrize("name", ["SqueezeBertModel", "BertModel"])
@pytest.mark.parametrize("mask", MASKS)
@torch.no_grad()
def test_base_models(name: str, mask: str) -> None:
    model, given = small(name), inputs(MASKS[mask])
    theirs = model(**given)
    ours = optimize(model)(**given)
    where = real(given)
    close = REFERENCE_PARITY[torch.float32]
    torch.testing.assert_close(ours.last_hidden_state.cpu()[where], theirs.last_hidden_state.cpu()[where], **close)
    torch.testing.assert_close(ours.pooler_output, theirs.pooler_output, **close)
    assert type(ours) is type(theirs)
    if mask in ("right", "holes"):
        assert not ours.last_hidden_state.cpu()[~where].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_low_precision_errs_at_most_twice_what_pytorch_does(dtype: torch.dtype) -> None:
    model, given = small("SqueezeBertModel"), inputs(MASKS["right"])
    where = real(given)
    exact = copy.deepcopy(model).double()(**given).last_hidden_state.cpu()[where]
    theirs = copy.deepcopy(model).to(dtype)(**given).last_hidden_state.cpu()[where].double()
    output = optimize(model, dtype=dtype)(**given).last_hidden_state
    assert output.dtype == torch.float32  # the model's own
    error = (output.cpu()[where].double() - exact).abs().max()
    assert error <= LOW_PRECISION_RATIO * (theirs - exact).abs().max()


@pytest.mark.parametrize("name", ["SqueezeBertForSequenceClassification", "SqueezeBertForTokenClassification"])
@torch.no_grad()
def test_heads(name: str) -> None:
    model, given = small(name), inputs(MASKS["right"])
    theirs = model(**given).logits
    ours = optimize(model)(**given).logits
    where = real(given) if theirs.dim() == 3 else slice(None)
    torch.testing.assert_close(ours.cpu()[where], theirs.cpu()[where], **REFERENCE_PARITY[torch.float32])


@torch.no_grad()
def test_positions_that_are_given() -> None:
    model, given = small("SqueezeBertModel"), inputs(MASKS["right"])
    given["position_ids"] = torch.randint(0, 24, (1, TOKENS), device=DEVICE)
    theirs, where = model(**given).last_hidden_state, real(given)
    ours = optimize(model)(**given).last_hidden_state
    torch.testing.assert_close(ours.cpu()[where], theirs.cpu()[where], **REFERENCE_PARITY[torch.float32])


@torch.no_grad()
def test_requests_follow_each_other_in_one_bucket() -> None:
    """With types and without, padded and not: nothing of one request is left for the next."""
    model = small("SqueezeBertModel")
    original = copy.deepcopy(model)
    optimize(model)
    for mask in ("right", "none", "right", "none"):
        given = inputs(MASKS[mask])
        if mask == "none":
            del given["token_type_ids"]
        where = real(given)
        ours, theirs = (m(**given).last_hidden_state.cpu()[where] for m in (model, original))
        torch.testing.assert_close(ours, theirs, **REFERENCE_PARITY[torch.float32])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_changed_weights_are_noticed(dtype: torch.dtype) -> None:
    model, given = optimize(small("SqueezeBertModel"), dtype=dtype), inputs(None)
    before = model(**given).last_hidden_state
    for write in (_in_place, _another_storage):
        write(model)
        now = model(**given).last_hidden_state
        assert not torch.allclose(before, now)
        fresh = optimize(copy.deepcopy(restore(copy.copy(model))), dtype=dtype)(**given).last_hidden_state
        assert torch.equal(now, fresh)
        optimize(model, dtype=dtype)
        before = now


def test_inference_mode_comes_and_goes() -> None:
    """What is kept between calls can be written in either mode."""
    model, given = optimize(small("SqueezeBertModel"), dtype=torch.bfloat16), inputs(None)
    with torch.inference_mode():
        first = model(**given).last_hidden_state
    with torch.no_grad():
        assert torch.equal(model(**given).last_hidden_state, first)
        _in_place(model)
        second = model(**given).last_hidden_state
    with torch.inference_mode():
        assert torch.equal(model(**inputs_like(given)).last_hidden_state, second)
    assert not torch.equal(first, second)


def inputs_like(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in given.items()}


def _in_place(model: nn.Module) -> None:
    model.encoder.layers[1].output.conv1d.weight.mul_(1.5)  # type: ignore[union-attr,operator]


def _another_storage(model: nn.Module) -> None:
    weight: Any = model.embeddings.word_embeddings.weight  # type: ignore[union-attr]
    weight.data = weight.data * 1.5


def test_binding_reads_no_weight_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = Tensor.numpy

    def of_integers(tensor: Tensor) -> Any:
        assert not tensor.is_floating_point()
        return numpy(tensor)

    monkeypatch.setattr(Tensor, "numpy", of_integers)
    for name in ("SqueezeBertModel", "BertModel"):
        model = optimize(small(name))
        assert binding_of(model) is binding_of(model)


def test_restore_gives_the_original_back() -> None:
    model = small("SqueezeBertModel")
    assert restore(optimize(model)) is model
    assert type(model) is type(small("SqueezeBertModel"))


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"dtype: expected torch\.float32 or .* on CUDA, got torch\.int8"):
        optimize(small("SqueezeBertModel"), dtype="int8")
    with pytest.raises(ValueError, match="keep: expected None for a model on CUDA, which computes in one dtype"):
        optimize(small("SqueezeBertModel"), keep={"output": torch.bfloat16})
    with pytest.raises(ValueError, match="release_weights: expected False for a model on CUDA"):
        optimize(small("SqueezeBertModel"), release_weights=True)


def test_buckets_hold_their_requests_and_waste_little() -> None:
    for count, length in [(1, 1), (1, 128), (3, 50), (32, 384), (128, 128), (7, 511)]:
        ids = torch.empty(count * length, device="meta")
        bucket = bucket_of(Request(ids, None, None, (count, length), False))
        assert count * length <= bucket.tokens <= max(16, count * length * 9 / 8 + 16)
        assert count <= bucket.sequences < 2 * count
        assert length <= bucket.longest < length + 64
    lengths = torch.tensor([0, 9, 13, 14], dtype=torch.int32)
    bucket = bucket_of(Request(torch.empty(14), None, None, lengths, True))
    assert (bucket.tokens, bucket.sequences, bucket.longest, bucket.first_token) == (16, 4, 64, True)


@pytest.mark.gpu
@torch.no_grad()
def test_a_sentence_has_the_same_bits_alone_and_in_any_batch() -> None:
    model = optimize(small("SqueezeBertModel"), dtype=torch.bfloat16)
    given = inputs(MASKS["right"])
    together = model(**given).last_hidden_state
    for row, length in enumerate((9, 4, 1)):
        alone = {name: value[row : row + 1, :length] for name, value in given.items()}
        assert torch.equal(model(**alone).last_hidden_state[0], together[row, :length])
