"""What our own models take and refuse, the same on the kernels and on the original path."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

from small_models import padding_mask, small_fields
from squeezebert_kernels import (
    SqueezeBertConfig,
    SqueezeBertForMultipleChoice,
    SqueezeBertModel,
    optimize,
    restore,
)
from tolerances import REFERENCE_PARITY


def small_config() -> SqueezeBertConfig:
    return SqueezeBertConfig(**small_fields())


NOT_MASKS = {
    "list": ([[1] * 7] * 2, TypeError, "attention_mask: expected a tensor or None, got list"),
    "array": (numpy.ones((2, 7)), TypeError, "attention_mask: expected a tensor or None, got ndarray"),
    "masks by kind": ({"full_attention": None}, TypeError, "attention_mask: expected a tensor or None, got dict"),
    "shape": (torch.ones(7), ValueError, r"attention_mask: expected shape \[2, 7\] or a 4-D mask, got \[7\]"),
    "integers": (torch.ones(2, 1, 1, 7).long(), ValueError, "attention_mask: expected a 4-D mask that is boolean or"),
}


@pytest.mark.parametrize("path", [optimize, restore])
@pytest.mark.parametrize("kind", NOT_MASKS)
@torch.no_grad()
def test_what_is_no_mask_is_said_on_either_path(kind: str, path: Any) -> None:
    mask, error, message = NOT_MASKS[kind]
    model = path(SqueezeBertModel(small_config()).eval())
    with pytest.raises(error, match=message):
        model(torch.ones(2, 7, dtype=torch.long), attention_mask=mask)


@pytest.mark.parametrize("path", [optimize, restore])
@torch.no_grad()
def test_masks_and_positions_of_any_dtype_and_fewer_dimensions(path: Any) -> None:
    model = path(SqueezeBertModel(small_config()).eval())
    ids, mask = torch.randint(1, 61, (2, 7)), padding_mask([7, 4], 7)
    real, positions = mask.bool(), torch.arange(7)
    expected = model(ids, mask, position_ids=positions.expand(2, 7)).last_hidden_state[real]
    for dtype in (torch.bool, torch.uint8, torch.int8, torch.int32, torch.float16, torch.bfloat16, torch.float64):
        result = model(ids, mask.to(dtype), position_ids=positions).last_hidden_state[real]
        torch.testing.assert_close(result, expected, **REFERENCE_PARITY[torch.float32])


BAD_IDS = {
    "input_ids: expected a tensor, got list": {"input_ids": [[1] * 7] * 2},
    "input_ids: expected dtype int64 or int32, got torch.int16": {"input_ids": torch.ones(2, 7).short()},
    "input_ids: expected at least one token": {"input_ids": torch.ones(2, 0).long()},
    r"position_ids: expected a shape that broadcasts to \[2, 7\], got \[1, 2, 7\]": {
        "position_ids": torch.zeros(1, 2, 7).long()
    },
    r"token_type_ids: expected a shape that broadcasts to \[2, 7\], got \[3, 7\]": {
        "token_type_ids": torch.zeros(3, 7).long()
    },
    r"inputs_embeds: expected shape \[N, S, 48\], got \[2, 7, 24\]": {
        "input_ids": None,
        "inputs_embeds": torch.ones(2, 7, 24),
    },
    "inputs_embeds: expected dtype torch.float32, got torch.float64": {
        "input_ids": None,
        "inputs_embeds": torch.ones(2, 7, 48).double(),
    },
}


@pytest.mark.parametrize("path", [optimize, restore])
@pytest.mark.parametrize("message", BAD_IDS)
@torch.no_grad()
def test_what_are_no_ids_is_said_on_either_path(message: str, path: Any) -> None:
    model = path(SqueezeBertModel(small_config()).eval())
    given = {"input_ids": torch.ones(2, 7, dtype=torch.long), **BAD_IDS[message]}
    with pytest.raises((TypeError, ValueError), match=message):
        model(**given)


@pytest.mark.parametrize("path", [optimize, restore])
@torch.no_grad()
def test_multiple_choice_takes_masks_and_ids_of_fewer_dimensions(path: Any) -> None:
    """And in Hugging Face's order, without their names."""
    model = path(SqueezeBertForMultipleChoice(small_config()).eval())
    ids, mask = torch.randint(1, 61, (3, 2, 7)), padding_mask([4], 7)
    full = mask.expand(3, 2, 7)
    expected = model(ids, attention_mask=full, position_ids=torch.arange(7).expand(3, 2, 7)).logits
    assert torch.equal(model(ids, mask[0], None, torch.arange(7)).logits, expected)
    message = r"attention_mask: expected a shape that broadcasts to \[3, 2, 7\], got \[2, 3, 7\]"
    with pytest.raises(ValueError, match=message):
        model(ids, full.transpose(0, 1))
    with pytest.raises(TypeError, match="attention_mask: expected a tensor, got list"):
        model(ids, [[1]])
