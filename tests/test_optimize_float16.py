"""optimize(model, dtype=torch.float16) on the CPU: weights rounded and halved, all else as in float32."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from paths import binding_of, kernels
from small_models import padding_mask, small
from squeezebert_kernels import _native, optimize, restore
from tolerances import narrow_weights_bound, size_of

BASES = ["SqueezeBertModel", "BertModel"]
IDS = torch.arange(1, 19).view(2, 9)
MASK = padding_mask([9, 4], 9)
# Two layers of convolutions over 48, 48 and 96 channels, attention over heads of 12 and 9 keys, LayerNorms over 48.
REDUCTIONS = (48, 12, 9, 48, 48, 48, 96, 48) * 2


def rounded(model: Any) -> Any:
    """A copy of the original model with the weights that float16 keeps."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "embeddings" not in name:
            parameter.data = parameter.data.half().float()
    return model


def buffer_of(model: Any) -> torch.Tensor:
    return binding_of(model).packed.buffer


@pytest.mark.parametrize("name", [*BASES, "SqueezeBertForSequenceClassification"])
@torch.no_grad()
def test_outputs(name: str) -> None:
    model = small(name)
    expected = rounded(model)(IDS, attention_mask=MASK)[0]
    optimize(model, dtype=torch.float16)
    with kernels():
        got = model(IDS, attention_mask=MASK)[0]
    assert got.dtype == torch.float32
    if got.dim() == 3:
        got, expected = got[MASK.bool()], expected[MASK.bool()]
    product = _native.active_product("float16")
    bound = narrow_weights_bound(product, *REDUCTIONS, size=size_of(expected), attentions=2)
    torch.testing.assert_close(got, expected, rtol=0.0, atol=bound)


@pytest.mark.parametrize("name", BASES)
def test_weights_take_half_the_memory(name: str) -> None:
    """With groups of 64 columns, which no panel pads, and layers beside whose weights the rest is hardly anything."""
    widths = {"hidden_size": 256, "intermediate_size": 1024}
    model = small(name, **widths, **({"embedding_size": 256} if name.startswith("Squeeze") else {}))
    full = buffer_of(optimize(model)).nbytes
    assert buffer_of(optimize(model, dtype=torch.float16)).nbytes < 0.51 * full


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_bits_and_changed_weights(name: str) -> None:
    model = small(name)
    exact = optimize(model)(IDS)[0]
    optimize(model, dtype=torch.float16)
    alone = [model(IDS[:1])[0], model(IDS[1:, :4])[0]]
    batch = model(IDS, attention_mask=MASK)[0]
    assert torch.equal(batch[:1], alone[0])
    assert torch.equal(batch[1:, :4], alone[1])
    assert not torch.equal(alone[0], exact[:1])
    for parameter in model.parameters():
        parameter.mul_(0.9)
    changed = model(IDS)[0]
    assert not torch.equal(changed[:1], alone[0])
    assert torch.equal(optimize(copy.deepcopy(restore(model)), dtype=torch.float16)(IDS)[0], changed)


@torch.no_grad()
def test_compiled() -> None:
    model = optimize(small("SqueezeBertModel"), dtype=torch.float16)
    expected = model(IDS)[0]
    torch.compiler.reset()
    assert torch.equal(torch.compile(model, fullgraph=True, backend="aot_eager")(IDS)[0], expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@torch.no_grad()
def test_copies_keep_the_dtype(copied: Any) -> None:
    model = optimize(small("SqueezeBertModel"), dtype=torch.float16)
    again = copied(model)
    assert torch.equal(again(IDS)[0], model(IDS)[0])
    assert buffer_of(again).nbytes == buffer_of(model).nbytes


def test_rounded_weights_are_not_all_there_is() -> None:
    with pytest.raises(ValueError, match=r"release_weights: expected False with dtype=torch.float16, .* got True"):
        optimize(small("BertModel"), dtype=torch.float16, release_weights=True)
