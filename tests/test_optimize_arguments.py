"""Unusual arguments of an optimized model, and transforms of it: computed right, or left to the original."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from paths import kernels, original
from small_models import padding_mask, small
from squeezebert_kernels import optimize
from tolerances import REFERENCE_PARITY

CLOSE = REFERENCE_PARITY[torch.float32]
BASES = ["SqueezeBertModel", "BertModel"]
# scaled_dot_product_attention has no forward-mode derivative, and no rule for vmap.
EAGER: dict[str, dict[str, Any]] = {"SqueezeBertModel": {}, "BertModel": {"attn_implementation": "eager"}}
IDS = torch.arange(1, 19).view(2, 9)
MASK = padding_mask([9, 4], 9)


@pytest.mark.parametrize("name", ["SqueezeBertForSequenceClassification", "BertForSequenceClassification"])
@torch.no_grad()
def test_labels_as_the_trainer_passes_them(name: str) -> None:
    """Trainer.evaluate adds num_items_in_batch for heads that take keywords (transformers 5)."""
    model = small(name)
    request = {"input_ids": IDS, "attention_mask": MASK, "labels": torch.tensor([0, 1])}
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(model.forward).parameters.values()):
        request["num_items_in_batch"] = 2  # type: ignore[assignment]
    expected = model(**request)
    optimize(model)
    with kernels():
        output = model(**request)
    torch.testing.assert_close(output.loss, expected.loss, **CLOSE)
    torch.testing.assert_close(output.logits, expected.logits, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.int16])
@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_masks_of_unusual_dtypes(name: str, dtype: torch.dtype) -> None:
    model = small(name)
    expected = model(IDS, attention_mask=MASK).last_hidden_state
    optimize(model)
    with kernels():
        ours = model(IDS, attention_mask=MASK.to(dtype)).last_hidden_state
    torch.testing.assert_close(ours[MASK.bool()], expected[MASK.bool()], **CLOSE)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_positions_of_one_dimension(name: str) -> None:
    model, positions = small(name), torch.arange(3, 12)
    expected = model(IDS, attention_mask=MASK, position_ids=positions[None]).last_hidden_state
    optimize(model)
    with kernels():
        ours = model(IDS, attention_mask=MASK, position_ids=positions).last_hidden_state
    torch.testing.assert_close(ours[MASK.bool()], expected[MASK.bool()], **CLOSE)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"input_ids": torch.where(MASK.bool(), IDS, 61)}, "input_ids: expected 0 to 60, got 61"),
        ({"input_ids": torch.where(MASK.bool(), IDS, -1)}, "input_ids: expected 0 to 60, got -1"),
        ({"token_type_ids": 2 * (1 - MASK)}, "token_type_ids: expected 0 to 1, got 2"),
        ({"position_ids": 24 * (1 - MASK)}, "position_ids: expected 0 to 23, got 24"),
    ],
)
@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_what_is_wrong_at_padded_positions(name: str, argument: dict[str, Tensor], message: str) -> None:
    model = optimize(small(name))
    with pytest.raises(IndexError, match=message):
        model(**{"input_ids": IDS, "attention_mask": MASK, **argument})
    with pytest.raises(ValueError, match="input_ids: expected at most 24 tokens"):
        model(torch.ones(1, 25, dtype=torch.long), attention_mask=padding_mask([4], 25))


@pytest.mark.parametrize("name", BASES)
def test_forward_mode_differentiation(name: str) -> None:
    model = small(name, **EAGER[name]).requires_grad_(False)
    embeds, tangent = torch.randn(2, 9, 48), torch.randn(2, 9, 48)

    def tangent_of() -> Any:
        with forward_ad.dual_level():
            output = model(inputs_embeds=forward_ad.make_dual(embeds, tangent)).pooler_output
            return forward_ad.unpack_dual(output).tangent

    expected = tangent_of()
    optimize(model)
    assert torch.equal(tangent_of(), expected)


@pytest.mark.parametrize("name", BASES)
def test_transforms_of_functions(name: str) -> None:
    model = small(name, **EAGER[name]).requires_grad_(False)
    embeds = torch.randn(2, 1, 9, 48)

    def pooled(x: Tensor) -> Tensor:
        return model(inputs_embeds=x).pooler_output

    expected = torch.func.jvp(pooled, (embeds[0],), (embeds[1],)), torch.func.vmap(pooled)(embeds)
    optimize(model)
    ours = torch.func.jvp(pooled, (embeds[0],), (embeds[1],)), torch.func.vmap(pooled)(embeds)
    torch.testing.assert_close(ours, expected)


@torch.no_grad()
def test_make_fx_bakes_nothing_in() -> None:
    """It traces the original path, all of it."""
    model = optimize(small("BertModel", **EAGER["BertModel"]))
    bias = torch.zeros(2, 1, 9, 9)
    with original("TorchDispatchMode"):
        graph = make_fx(lambda ids: model(ids, attention_mask=bias).pooler_output)(IDS)
    assert not [node for node in graph.graph.nodes if "squeezebert" in str(node.target)]
    torch.testing.assert_close(graph(IDS), model(IDS).pooler_output, **CLOSE)


@torch.no_grad()
def test_masks_that_are_no_tensors() -> None:
    model = optimize(small("BertModel"))
    with original("attention_mask: a list"), pytest.raises(Exception, match=r".+"):
        model(IDS, attention_mask=MASK.tolist())


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_padding_kept(name: str) -> None:
    model = small(name)
    expected = model(IDS, attention_mask=MASK)
    optimize(model, keep_padding=True)
    with kernels():
        ours = model(IDS, attention_mask=MASK)
    torch.testing.assert_close(ours.last_hidden_state, expected.last_hidden_state, **CLOSE)
    torch.testing.assert_close(ours.pooler_output, expected.pooler_output, **CLOSE)
    assert torch.equal(copy.deepcopy(model)(IDS, attention_mask=MASK)[0], ours[0])
