"""save_packed and load_packed: the same bits, what stands in the file, and which files are refused."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import squeezebert_kernels
from paths import binding_of, kernels
from small_models import hf_config, hf_model, padding_mask, randomize, small_fields
from squeezebert_kernels import (
    SqueezeBertConfig,
    SqueezeBertModel,
    _native,
    load_packed,
    optimize,
    restore,
    save_packed,
)

FORMAT = "squeezebert_kernels.packed"
safetensors = pytest.importorskip("safetensors.torch")
HEADS = ["SqueezeBertModel", "SqueezeBertForMaskedLM", "SqueezeBertForSequenceClassification"]
IDS = torch.arange(1, 19).view(2, 9)
MASK = padding_mask([9, 4], 9)
KEEP = {"layer.1.output": torch.bfloat16, "attention": torch.float32, "layer.0.key": torch.float16}


def made(name: str, **options: Any) -> Any:
    """One of this library's models, optimized."""
    model = getattr(squeezebert_kernels, name)(SqueezeBertConfig(**small_fields()))
    randomize(model)
    return optimize(model.eval(), **options)


def header_of(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, "pt") as file:
        return json.loads(file.metadata()[FORMAT])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "packed.safetensors"


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"dtype": "int8", "keep": KEEP}, {"dtype": "bfloat16"}, {}])
@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_a_round_trip_gives_the_same_bits(name: str, options: dict[str, Any], path: Path) -> None:
    model = made(name, **options)
    with kernels():
        expected = model(IDS, attention_mask=MASK)[0]
    save_packed(model, path)
    loaded = load_packed(path)
    assert type(loaded).__name__ == name
    assert not loaded.training
    assert loaded.config.to_dict() == model.config.to_dict()
    with kernels():
        assert torch.equal(loaded(IDS, attention_mask=MASK)[0], expected)
    again = path.with_name("again")
    save_packed(loaded, again)
    assert again.read_bytes() == path.read_bytes()
    assert torch.equal(optimize(restore(loaded), **options)(IDS, attention_mask=MASK)[0], expected)


@torch.no_grad()
def test_transformers_models(path: Path) -> None:
    model = optimize(hf_model("SqueezeBertForMaskedLM", hf_config()), dtype="int8")
    expected = model(IDS)[0]
    save_packed(model, path)
    assert torch.equal(load_packed(path)(IDS)[0], expected)


def test_what_stands_in_the_file(path: Path) -> None:
    model = made("SqueezeBertForSequenceClassification", dtype="int8", keep=KEEP)
    save_packed(model, path)
    tensors = safetensors.load_file(path)
    prefix = "transformer.encoder.layers"
    weight = model.transformer.encoder.layers[1].intermediate.conv1d.weight
    values, scale = (tensors[f"{prefix}.1.intermediate.conv1d.weight.{part}"] for part in ("values", "scale"))
    assert values.dtype == torch.int8
    assert values.shape == weight.shape
    assert torch.equal(scale, weight.detach().abs().amax(1, keepdim=True) / torch.full((96, 1, 1), 127.0))
    assert tensors[f"{prefix}.1.output.conv1d.weight"].dtype == torch.bfloat16
    assert tensors[f"{prefix}.0.attention.key.weight"].dtype == torch.float16
    assert tensors["transformer.pooler.dense.weight.values"].dtype == torch.int8
    rest = {name: tensor for name, tensor in tensors.items() if "weight.values" not in name and "conv1d" not in name}
    assert torch.equal(rest["classifier.weight"], model.classifier.weight)
    header = header_of(path)
    assert header["version"] == 1
    assert header["numerics"] == _native.numerics()
    assert header["class"] == "SqueezeBertForSequenceClassification"
    assert header["config"]["hidden_size"] == 48
    assert header["dtype"] == "int8"
    assert header["keep"]["layer.1.output"] == "bfloat16"


def test_every_scale_comes_back_from_its_largest_value() -> None:
    """127 * (m / 127) divides to m / 127 again, for every float32 m: so what was quantized quantizes to itself."""
    largest = torch.arange(2**23, 2**24).float()
    levels = torch.full_like(largest, 127.0)
    for size in (1.0, 2.0**-80):
        scale = largest * size / levels
        assert torch.equal(scale * 127.0 / levels, scale)


@torch.no_grad()
def test_from_pretrained_in_another_precision(tmp_path: Path, path: Path) -> None:
    made("SqueezeBertModel").save_pretrained(tmp_path)
    model = SqueezeBertModel.from_pretrained(tmp_path, dtype="int8", keep=KEEP)
    expected = optimize(SqueezeBertModel.from_pretrained(tmp_path), dtype="int8", keep=KEEP)(IDS)[0]
    with kernels():
        assert torch.equal(model(IDS)[0], expected)
    assert binding_of(model).reading.layers[1].whole.linears[5].dtype == torch.bfloat16
    save_packed(model, path)
    assert torch.equal(load_packed(path)(IDS)[0], expected)
    with pytest.raises(ValueError, match=r"dtype: expected torch.float32, .*got 'int4'"):
        SqueezeBertModel.from_pretrained(tmp_path, dtype="int4")
    with pytest.raises(ValueError, match=r"keep: expected layer.0 to layer.1"):
        SqueezeBertModel.from_pretrained(tmp_path, keep={"layer.7": torch.int8})


def rewrite(path: Path, header: dict[str, Any] | None, **changes: Any) -> None:
    """Changes the header (None: takes it away) and tensors (None removes one)."""
    metadata = None if header is None else {FORMAT: json.dumps({**header_of(path), **header})}
    tensors = {**safetensors.load_file(path), **changes}
    kept = {key: value for key, value in tensors.items() if value is not None}
    safetensors.save_file(kept, path, metadata=metadata)


SCALE = "encoder.layers.0.attention.query.weight.scale"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is truncated, or not a safetensors file"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "is truncated, or not a safetensors file"),
        (lambda path: path.write_bytes(b""), "is truncated, or not a safetensors file"),
        (
            lambda path: rewrite(path, None),
            "expected a file that save_packed wrote, got a safetensors file",
        ),
        (lambda path: rewrite(path, {"version": 2}), "expected version 1 of the format, got 2"),
        (
            lambda path: rewrite(path, {"keep": {"output": "int4"}}),
            "its metadata are not save_packed's: keep['output']",
        ),
        (lambda path: rewrite(path, {"class": "BertModel"}), "its metadata are not save_packed's"),
        (lambda path: rewrite(path, {"config": []}), "its metadata are not save_packed's"),
        (lambda path: rewrite(path, {"dtype": "int4"}), "its metadata are not save_packed's: dtype: expected"),
        (lambda path: rewrite(path, {}, **{SCALE: None}), f"{SCALE} is missing"),
        (lambda path: rewrite(path, {}, **{"embeddings.word_embeddings.weight": None}), "embeddings.weight is missing"),
        (
            lambda path: rewrite(path, {}, **{SCALE: torch.ones(3, 1, 1)}),
            f"{SCALE}: expected float32 [48, 1, 1] beside int8 values, got",
        ),
        (lambda path: rewrite(path, {}, more=torch.ones(3)), "more: in no SqueezeBertModel"),
    ],
)
def test_files_that_are_refused(damage: Any, message: str, path: Path) -> None:
    save_packed(made("SqueezeBertModel", dtype="int8"), path)
    damage(path)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + re.escape(message)):
        load_packed(path)


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is missing: expected a file that save_packed wrote"):
        load_packed(path)


@pytest.mark.parametrize("name", ["Linear", "BertModel", "restored"])
def test_models_that_are_not_saved(name: str, path: Path) -> None:
    if name == "Linear":
        model: Any = torch.nn.Linear(2, 2)
    elif name == "restored":
        model = restore(made("SqueezeBertModel"))
    else:
        transformers = pytest.importorskip("transformers")
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        model = optimize(transformers.BertModel(transformers.BertConfig(**sizes)).eval())
    with pytest.raises(TypeError, match=r"model: expected an optimized SqueezeBert.*, got a"):
        save_packed(model, path)


def test_without_safetensors(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("SqueezeBertModel", dtype="int8")
    save_packed(model, path)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    for call in (lambda: save_packed(model, path), lambda: load_packed(path)):
        with pytest.raises(ImportError, match=r"pip install squeezebert_kernels\[hf\]"):
            call()
