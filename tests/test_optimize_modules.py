"""Optimized models of other dtypes, and with modules or machines of another kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paths import kernels, original, restored
from small_models import config_for, hf_model, layers_of, padding_mask, query_of, set_query, small
from squeezebert_kernels import _native, explain, optimize, restore
from tolerances import LOW_PRECISION_RATIO, REFERENCE_PARITY

CLOSE = REFERENCE_PARITY[torch.float32]
BASES = ["SqueezeBertModel", "BertModel"]
IDS = torch.arange(1, 19).view(2, 9)
MASK = padding_mask([9, 4], 9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("compute", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["SqueezeBertForSequenceClassification", "BertForTokenClassification"])
@torch.no_grad()
def test_half_precision_checkpoints(name: str, dtype: torch.dtype, compute: torch.dtype) -> None:
    """Computed in float32 (or float16, where asked), returned in the model's dtype, so that its head fits."""
    model = small(name).to(dtype)
    exact = copy.deepcopy(model).double()(IDS, attention_mask=MASK).logits
    theirs = model(IDS, attention_mask=MASK).logits
    optimize(model, dtype=compute)
    with kernels():
        ours = model(IDS, attention_mask=MASK).logits
    assert ours.dtype == dtype
    where = MASK.bool() if ours.dim() == 3 else slice(None)
    error = (theirs[where].double() - exact[where]).abs().max()
    assert (ours[where].double() - exact[where]).abs().max() <= LOW_PRECISION_RATIO * error
    bias = query_of(layers_of(model.base_model)[0]).bias
    bias.add_(1.0)  # a copy of it is what the kernels read
    with kernels():
        assert not torch.equal(model(IDS, attention_mask=MASK).logits, ours)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_converted_after_optimize(name: str) -> None:
    model = optimize(small(name)).to(torch.bfloat16)
    with kernels():
        assert model(IDS).last_hidden_state.dtype == torch.bfloat16
    model.float()
    with kernels():
        ours = model(IDS).last_hidden_state
    torch.testing.assert_close(ours, restore(model)(IDS).last_hidden_state, **CLOSE)


class LoRA(nn.Module):
    """A linear layer and a low-rank update of its output, as peft's."""

    def __init__(self, base_layer: Any) -> None:
        super().__init__()
        self.base_layer = base_layer
        channels, width = base_layer.weight.shape[0], base_layer.weight.shape[1] * getattr(base_layer, "groups", 1)
        self.down = nn.Parameter(torch.randn(2, width) * 0.3)
        self.up = nn.Parameter(torch.randn(channels, 2) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        update = self.up @ self.down
        added = update @ x if isinstance(self.base_layer, nn.Conv1d) else x @ update.t()
        return self.base_layer(x) + added


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("which", [[0], [1], [0, 1]])
@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_lora_runs_between_the_kernels(name: str, which: list[int], late: bool) -> None:
    model = small(name)
    if late:
        optimize(model)(IDS)
    for index in which:
        set_query(layers_of(model)[index], LoRA(query_of(layers_of(model)[index])).eval())
    expected = restore(copy.deepcopy(model))(IDS, attention_mask=MASK)
    if not late:
        optimize(model)
    with kernels():
        ours = model(IDS, attention_mask=MASK)
    torch.testing.assert_close(ours.last_hidden_state[MASK.bool()], expected.last_hidden_state[MASK.bool()], **CLOSE)
    torch.testing.assert_close(ours.pooler_output, expected.pooler_output, **CLOSE)
    assert "query is a LoRA" in str(explain(model))
    assert explain(model).served
    for index in which:
        query_of(layers_of(model)[index]).up.add_(0.5)
    with kernels():
        changed = model(IDS, attention_mask=MASK).pooler_output
    torch.testing.assert_close(changed, restore(model)(IDS, attention_mask=MASK).pooler_output, **CLOSE)


@pytest.mark.filterwarnings("ignore:.*quantiz.*:DeprecationWarning")
@torch.no_grad()
def test_a_head_over_layers_of_which_one_is_quantized() -> None:
    model = small("BertForSequenceClassification")
    layer = model.bert.encoder.layer[1]
    layer.output.dense = torch.ao.quantization.quantize_dynamic(nn.Sequential(layer.output.dense), {nn.Linear})[0]
    expected = model(IDS, attention_mask=MASK).logits
    optimize(model)
    with kernels():
        torch.testing.assert_close(model(IDS, attention_mask=MASK).logits, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_parameters_converted_one_by_one(name: str) -> None:
    model = optimize(small(name))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    with kernels():
        assert model(IDS).last_hidden_state.dtype == torch.bfloat16
    model.encoder.double()
    with original("float64"), pytest.raises(RuntimeError):
        model(IDS)
    model.encoder.to(torch.bfloat16)
    with kernels():
        model(IDS)


@torch.no_grad()
def test_layers_of_different_groups() -> None:
    model, other = small("SqueezeBertModel"), hf_model("SqueezeBertModel", config_for("Squeeze", groups="dense"))
    model.encoder.layers[1] = other.encoder.layers[1]
    expected = model(IDS, attention_mask=MASK)
    optimize(model)
    with kernels():
        ours = model(IDS, attention_mask=MASK)
    torch.testing.assert_close(ours.pooler_output, expected.pooler_output, **CLOSE)


@torch.no_grad()
def test_where_only_scalar_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "isas", lambda: ["scalar"])
    monkeypatch.delenv("SQUEEZEBERT_FORCE_ISA", raising=False)
    model = small("BertModel")
    for training in (False, True):
        with pytest.warns(UserWarning, match="no SIMD kernels"):
            optimize(model, training=training)
        with restored():
            model(IDS)
    monkeypatch.setenv("SQUEEZEBERT_FORCE_ISA", "scalar")
    optimize(model)
    with kernels():
        model(IDS)
