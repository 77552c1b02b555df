"""optimize(model, dtype=..., keep=...) in low precision on the CPU, and quantization_report: what each part is computed
in, the same bits everywhere, what is refused."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from paths import binding_of, kernels
from python_ref import formats
from python_ref import ops as reference
from small_models import hf_config, hf_model, layers_of, padding_mask, small
from squeezebert_kernels import _native, explain, optimize, quantization_report, restore
from squeezebert_kernels.precision import PARTS
from tolerances import FORMAT_SHARES

BASES = ["SqueezeBertModel", "BertModel"]
DTYPES = [torch.float16, torch.bfloat16, torch.int8]
IDS = torch.arange(1, 19).view(2, 9)
MASK = padding_mask([9, 4], 9)


def error(got: Tensor, exact: Tensor) -> float:
    """Root mean square, relative."""
    return float((got - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@pytest.mark.parametrize("dtype", [*DTYPES, "int8", "torch.bfloat16"])
@pytest.mark.parametrize("name", [*BASES, "SqueezeBertForSequenceClassification"])
@torch.no_grad()
def test_outputs(name: str, dtype: torch.dtype | str) -> None:
    model = small(name)
    exact = model(IDS, attention_mask=MASK)[0]
    optimize(model, dtype=dtype)
    with kernels():
        got = model(IDS, attention_mask=MASK)[0]
    assert got.dtype == torch.float32
    if got.dim() == 3:
        got, exact = got[MASK.bool()], exact[MASK.bool()]
    assert 0.0 < error(got, exact) < FORMAT_SHARES[str(dtype).removeprefix("torch.")]


@torch.no_grad()
def test_int8_is_the_reference_s() -> None:
    """The encoder of the model, packed by optimize, beside python_ref's, far nearer than either is to float32."""
    model = optimize(small("SqueezeBertModel"), dtype="int8")
    binding = binding_of(model)
    hidden = model.embeddings(IDS)
    params = [tensor for layer in binding.reading.layers for tensor in layer.whole.tensors]
    quantized = [formats.quantize_weight(p) if p.dim() > 1 else p for p in params]
    groups = binding.reading.layers[0].whole.groups
    expected = reference.encoder(hidden, quantized, 4, groups, 1e-12)
    exact = reference.encoder(hidden, params, 4, groups, 1e-12)
    assert error(model(IDS)[0], expected) < 0.1 * error(expected, exact)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_the_same_bits_alone_batched_padded_and_threaded(dtype: torch.dtype) -> None:
    model = optimize(small("SqueezeBertModel"), dtype=dtype)
    batch = model(IDS, attention_mask=MASK)[0]
    assert torch.equal(batch[:1], model(IDS[:1])[0])
    assert torch.equal(batch[1:, :4], model(IDS[1:, :4])[0])
    torch.set_num_threads(2)
    assert torch.equal(model(IDS, attention_mask=MASK)[0], batch)
    padded = optimize(model, dtype=dtype, keep_padding=True)(IDS, attention_mask=MASK)[0]
    assert torch.equal(padded[MASK.bool()], batch[MASK.bool()])


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_int8_has_the_same_bits_on_every_instruction_set_and_product(name: str) -> None:
    model, outputs = small(name), []
    products = [product for product in _native.products() if product.startswith("int8_")]
    try:
        for isa in _native.isas():
            for product in products:
                _native.force_isa(isa)
                _native.force_product(product)
                optimize(model, dtype="int8")
                with kernels():
                    outputs.append(model(IDS, attention_mask=MASK).last_hidden_state)
                restore(model)
    finally:
        _native.force_product(None)
        _native.force_isa(None)
    assert len(outputs) > 1
    assert all(torch.equal(output, outputs[0]) for output in outputs)


@torch.no_grad()
def test_the_packed_encoder_is_at_most_28_mb_at_base_size() -> None:
    transformers = pytest.importorskip("transformers")
    model = hf_model("SqueezeBertModel", transformers.SqueezeBertConfig(num_hidden_layers=1, vocab_size=61))
    layer = binding_of(optimize(model, dtype="int8")).packed.packed[0]
    assert 12 * layer.nbytes <= 28e6


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_changed_weights_copies_and_graphs(dtype: torch.dtype) -> None:
    model = optimize(small("SqueezeBertModel"), dtype=dtype, keep={"attention": torch.float32})
    before = model(IDS)[0]
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(IDS)[0], before)
        assert binding_of(copied).packed.buffer.nbytes == binding_of(model).packed.buffer.nbytes
    torch.compiler.reset()
    assert torch.equal(torch.compile(model, fullgraph=True, backend="aot_eager")(IDS)[0], before)
    for parameter in model.parameters():
        parameter.mul_(0.9)
    changed = model(IDS)[0]
    assert not torch.equal(changed, before)
    fresh = optimize(copy.deepcopy(restore(model)), dtype=dtype, keep={"attention": torch.float32})
    assert torch.equal(fresh(IDS)[0], changed)


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_kept_parts(name: str) -> None:
    keep = {
        "attention": torch.float32,
        "layer.1": "bfloat16",
        "layer.1.out*": torch.float32,
        "pooler": torch.float16,
    }
    binding = binding_of(optimize(small(name), dtype="int8", keep=keep))
    first, second = (layer.whole for layer in binding.reading.layers)
    assert [linear.dtype for linear in first.linears] == [torch.int8] * 6
    assert first.attention == torch.float32
    assert [linear.dtype for linear in second.linears] == [torch.bfloat16] * 5 + [torch.float32]
    assert second.attention == torch.bfloat16
    assert binding.reading.pooler.dtype == torch.float16


@torch.no_grad()
def test_everything_kept_in_float32_is_float32() -> None:
    model = small("SqueezeBertModel")
    expected = optimize(model)(IDS)[0]
    assert torch.equal(optimize(model, dtype="int8", keep={"*": torch.float32})(IDS)[0], expected)
    for part in PARTS:
        kept = optimize(model, dtype=torch.float32, keep={part: torch.int8})(IDS)[0]
        assert 0.0 < error(kept, expected) < FORMAT_SHARES["int8"]


@torch.no_grad()
def test_modules_between_the_kernels() -> None:
    """A layer with a linear of another kind runs its others, and attention, in the dtype asked for."""

    class Own(torch.nn.Linear):
        pass

    model = small("BertModel")
    layer = layers_of(model)[0]
    own = Own(48, 96)
    own.load_state_dict(layer.intermediate.dense.state_dict())
    layer.intermediate.dense = own
    exact = model.eval()(IDS)[0]
    optimize(model, dtype="int8")
    with kernels():
        whole = model(IDS)[0]
    assert 0.0 < error(whole, exact) < FORMAT_SHARES["int8"]
    optimize(model, dtype="int8", keep={"layer.0.attention": torch.float32})
    assert not torch.equal(model(IDS)[0], whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.float64}, "dtype: expected torch.float32, torch.float16, torch.bfloat16 or torch.int8, got"),
        ({"dtype": "int4"}, "dtype: expected torch.float32, torch.float16, torch.bfloat16 or torch.int8, got 'int4'"),
        ({"keep": {"output": torch.int16}}, "keep['output']: expected torch.float32, torch.float16, torch.bfloat16 or"),
        (
            {"keep": {"layer.2.output": torch.float32}},
            "keep: expected layer.0 to layer.1, a part of one (layer.0.output) or of all of them (query, key, value, "
            "post_attention, intermediate, output, attention), pooler, or a pattern of such names, got ",
        ),
        ({"keep": {"ffn": torch.float32}}, "got 'ffn'"),
        ({"dtype": "int8", "release_weights": True}, "release_weights: expected False with dtype=torch.int8, whose"),
        (
            {"keep": {"output": "bfloat16"}, "release_weights": True},
            "release_weights: expected False with dtype=torch.bfloat16, whose packed weights are rounded, got True",
        ),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    model = small("BertModel")
    with pytest.raises(ValueError, match=re.escape(message)):
        optimize(model, **options)
    assert not explain(model).served


@torch.no_grad()
def test_a_model_without_a_pooler_has_none_to_keep() -> None:
    transformers = pytest.importorskip("transformers")
    model = small("BertModel")
    model.pooler = None
    with pytest.raises(ValueError, match=r"attention\), or a pattern of such names, got 'pooler'"):
        optimize(model, dtype="int8", keep={"pooler": torch.float32})
    assert transformers


# ---- quantization_report ----


@pytest.mark.parametrize("name", [*BASES, "SqueezeBertForSequenceClassification"])
@torch.no_grad()
def test_report(name: str) -> None:
    model = small(name)
    batch = {"input_ids": IDS, "attention_mask": MASK}
    before = model(**batch)[0]
    report = quantization_report(model, batch)
    assert torch.equal(model(**batch)[0], before)
    assert [layer.name for layer in report.layers] == ["layer.0", "layer.1"]
    first, second = report.layers
    assert first.alone == first.accumulated
    for layer in report.layers:
        assert set(layer.parts) == set(PARTS)
        assert 0.0 < min(layer.parts.values()) <= max(layer.parts.values()) < FORMAT_SHARES["int8"]
        assert 0.5 * layer.alone < sum(value**2 for value in layer.parts.values()) ** 0.5 < 2.0 * layer.alone
    base = getattr(model, "transformer", model)
    exact, lower = base(**batch)[0], optimize(copy.deepcopy(base), dtype="int8")(**batch)[0]
    real = MASK.bool()
    assert second.accumulated == pytest.approx(error(lower[real], exact[real]), rel=1e-3)
    text = str(report)
    assert f"{type(base).__name__} in int8" in text
    assert f"{100.0 * second.accumulated:.2f}" in text.splitlines()[-1]
    assert all(part in text.splitlines()[1] for part in PARTS)
    assert quantization_report(model, [batch, batch]).layers[1].alone == pytest.approx(second.alone, rel=1e-6)


@torch.no_grad()
def test_report_of_what_the_model_was_optimized_with() -> None:
    model = optimize(small("SqueezeBertModel"), dtype="bfloat16", keep={"layer.1": torch.float32, "attention": "int8"})
    report = quantization_report(model, {"input_ids": IDS})
    assert "SqueezeBertModel in bfloat16, layer.1 in float32, attention in int8" in str(report)
    assert report.layers[1].parts["output"] == 0.0
    assert report.layers[1].parts["attention"] > 0.0
    rounded = quantization_report(model, {"input_ids": IDS}, dtype=torch.float16)
    assert "in float16:" in str(rounded)
    assert rounded.layers[0].alone < report.layers[0].alone


def test_report_of_texts() -> None:
    calls = []

    def tokenizer(text: str, **options: Any) -> dict[str, Tensor]:
        calls.append((text, options))
        return {"input_ids": torch.tensor([[1, 2, len(text)]])}

    model = small("SqueezeBertModel")
    report = quantization_report(model, ["short", "longer"], tokenizer=tokenizer)
    assert [text for text, _ in calls] == ["short", "longer"]
    assert calls[0][1] == {"truncation": True, "return_tensors": "pt"}
    batches = [{"input_ids": torch.tensor([[1, 2, length]])} for length in (5, 6)]
    assert report == quantization_report(model, batches)
    with pytest.raises(TypeError, match="tokenizer: expected one of transformers beside texts, got None"):
        quantization_report(model, "short")
    with pytest.raises(TypeError, match=r"inputs: expected batches .* or texts, got int"):
        quantization_report(model, [3])


def test_report_refuses_what_it_cannot_read() -> None:
    with pytest.raises(
        TypeError, match="model: expected a module that holds one SqueezeBERT or BERT model, got one with 0"
    ):
        quantization_report(torch.nn.Linear(2, 2), {"input_ids": IDS})
    with pytest.raises(ValueError, match=r"model: expected one that the kernels serve, got one they do not: .*GELU"):
        quantization_report(hf_model("SqueezeBertModel", hf_config(hidden_act="relu")), {"input_ids": IDS})
    with pytest.raises(ValueError, match=r"keep: expected layer.0 to layer.1"):
        quantization_report(small("BertModel"), {"input_ids": IDS}, keep={"layer.9": torch.float32})
