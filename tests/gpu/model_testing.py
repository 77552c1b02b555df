"""What the tests of optimized models share: models small enough for Triton's interpreter, and requests for them."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

import squeezebert_kernels
from kernel_testing import DEVICE
from small_models import bert_config, hf_config, hf_model, padding_mask, randomize, small_fields
from squeezebert_kernels import restore
from squeezebert_kernels.nn.config import SqueezeBertConfig

TOKENS = 9
MASKS = {
    "none": None,
    "ones": torch.ones(3, TOKENS, dtype=torch.long),
    "right": padding_mask([9, 4, 1], TOKENS),
    "holes": torch.tensor([[1, 0, 1, 1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0, 0, 1]]),
    "left": padding_mask([9, 4, 1], TOKENS).flip(1),  # the pooler reads padding: everything is computed
}

# NumPy's, in the interpreter: of masked scores, and of rows beyond the request's own, whose memory says anything.
NUMPY_WARNINGS = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")


def small(name: str) -> Any:
    """transformers' model; without transformers, our own in plain PyTorch, where we have one."""
    if name.startswith("SqueezeBert") and importlib.util.find_spec("transformers") is None:
        model = restore(getattr(squeezebert_kernels, name)(SqueezeBertConfig(**small_fields())))
        randomize(model)
        return model.to(DEVICE).eval()
    return hf_model(name, bert_config() if name.startswith("Bert") else hf_config()).to(DEVICE)


def inputs(mask: Tensor | None) -> dict[str, Tensor]:
    given = {"input_ids": torch.randint(1, 61, (3, TOKENS)), "token_type_ids": torch.randint(0, 2, (3, TOKENS))}
    if mask is not None:
        given["attention_mask"] = mask
    return {name: value.to(DEVICE) for name, value in given.items()}


def real(given: dict[str, Tensor]) -> Tensor:
    mask = given.get("attention_mask")
    return torch.ones(3, TOKENS, dtype=torch.bool) if mask is None else mask.cpu().bool()
