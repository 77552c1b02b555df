"""An optimized model's last_hidden_state has the same bits on every instruction set and product that this CPU has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import squeezebert_kernels
from paths import kernels
from small_models import config_for, hf_model, padding_mask
from squeezebert_kernels import _native

PRODUCTS = [name for name in _native.products() if name.startswith("float32_")]


@pytest.fixture(autouse=True)
def _every_product() -> Iterator[None]:
    yield
    _native.force_product(None)
    _native.force_isa(None)


@pytest.mark.parametrize("name", ["SqueezeBertModel", "BertModel"])
def test_last_hidden_state(name: str) -> None:
    torch.manual_seed(0)
    model = hf_model(name, config_for(name))
    batch = {"input_ids": torch.randint(61, (3, 24)), "attention_mask": padding_mask([24, 1, 17], 24)}
    outputs = []
    for product in PRODUCTS:
        _native.force_isa(product.split("_")[1])
        _native.force_product(product)
        squeezebert_kernels.optimize(model)
        with torch.inference_mode(), kernels():
            outputs.append(model(**batch).last_hidden_state)
        squeezebert_kernels.restore(model)
    assert len(outputs) > 1
    for product, output in zip(PRODUCTS, outputs, strict=True):
        assert torch.equal(output, outputs[0]), product
