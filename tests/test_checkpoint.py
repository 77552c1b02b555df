"""Checkpoints that are sharded, old, broken or foreign: read, or refused with what is wrong with them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from small_models import hf_config, hf_model
from squeezebert_kernels import SqueezeBertForMaskedLM, SqueezeBertForSequenceClassification, SqueezeBertModel

load_file = pytest.importorskip("safetensors.torch").load_file
save_file = pytest.importorskip("safetensors.torch").save_file
QUERY = "transformer.encoder.layers.1.attention.query.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """transformers' checkpoint of a masked-LM model."""
    hf_model("SqueezeBertForMaskedLM", hf_config()).save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder: Path, **changes: Any) -> None:
    """Replaces tensors (None removes one) of the checkpoint."""
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    save_file({key: value for key, value in tensors.items() if value is not None}, folder / "model.safetensors")


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def shard(folder: Path) -> dict[str, str]:
    """Splits model.safetensors in two, with the index that transformers writes; returns its weight_map."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def same_state(model: Any, expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(model.state_dict()[name], value) for name, value in expected.items())


def test_shards(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    shard(folder)
    assert same_state(SqueezeBertForMaskedLM.from_pretrained(folder), tensors)


def test_shards_that_do_not_fit_their_index(folder: Path) -> None:
    places = shard(folder)
    first, second = sorted(set(places.values()))
    (folder / first).rename(folder / "hidden")
    with pytest.raises(FileNotFoundError, match=f"{first} is missing: .*index.json names it"):
        SqueezeBertForMaskedLM.from_pretrained(folder)
    (folder / second).rename(folder / first)
    (folder / "hidden").rename(folder / second)
    places["unknown"] = second
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ValueError, match=r"index.json: unknown is not in model-0000"):
        SqueezeBertForMaskedLM.from_pretrained(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {QUERY: "../model.safetensors"}}))
    with pytest.raises(ValueError, match="expected file names"):
        SqueezeBertForMaskedLM.from_pretrained(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a JSON object with a weight_map"):
        SqueezeBertForMaskedLM.from_pretrained(folder)


def test_base_from_a_heads_checkpoint_and_back(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    tensors = load_file(folder / "model.safetensors")
    base = SqueezeBertModel.from_pretrained(folder)
    assert torch.equal(base.encoder.layers[1].attention.query.weight, tensors[QUERY])
    other = tmp_path_factory.mktemp("base")
    base.save_pretrained(other)
    with pytest.raises(ValueError, match=r"classifier.weight is missing; classifier.bias is missing$"):
        SqueezeBertForSequenceClassification.from_pretrained(other)


def test_other_precisions_become_float32(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    rewrite(folder, **{name: value.bfloat16() for name, value in tensors.items()})
    model = SqueezeBertForMaskedLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert same_state(model, {name: value.bfloat16().float() for name, value in tensors.items()})


def test_the_file_may_change_once_it_is_loaded(folder: Path) -> None:
    model = SqueezeBertForMaskedLM.from_pretrained(folder)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * (path.stat().st_size // 2))
    assert same_state(model, expected)


def test_a_tensor_is_missing(folder: Path) -> None:
    rewrite(folder, **{QUERY: None})
    with pytest.raises(ValueError, match=rf"SqueezeBertForMaskedLM: {QUERY} is missing$"):
        SqueezeBertForMaskedLM.from_pretrained(folder)


def test_a_tensor_too_many(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewrite(folder, **{"cls.other.weight": torch.ones(2)})
    with caplog.at_level("INFO"):
        SqueezeBertForMaskedLM.from_pretrained(folder)
    assert "cls.other.weight" in caplog.text
    rewrite(folder, **{"transformer.encoder.layers.2.attention.query.weight": torch.ones(2)})
    with pytest.raises(ValueError, match=r"layers.2.attention.query.weight is in no SqueezeBertForMaskedLM"):
        SqueezeBertForMaskedLM.from_pretrained(folder)


def test_wrong_shapes_and_dtypes(folder: Path) -> None:
    rewrite(folder, **{"transformer.pooler.dense.bias": torch.ones(7)})
    with pytest.raises(ValueError, match=r"transformer.pooler.dense.bias: expected shape \[48\], got \[7\]"):
        SqueezeBertForMaskedLM.from_pretrained(folder)
    rewrite(folder, **{"transformer.pooler.dense.bias": torch.ones(48, dtype=torch.int32)})
    with pytest.raises(ValueError, match=r"dense.bias: expected floating point, got torch.int32"):
        SqueezeBertForMaskedLM.from_pretrained(folder)


def test_other_group_counts(folder: Path) -> None:
    edit_config(folder, q_groups=2)
    message = (
        r"query.weight: expected shape \[48, 24, 1\], got \[48, 12, 1\] \(q_groups is 2 in config.json; .* 4 groups"
    )
    with pytest.raises(ValueError, match=message):
        SqueezeBertForMaskedLM.from_pretrained(folder)


def test_bad_configs(folder: Path) -> None:
    edit_config(folder, model_type="bert")
    with pytest.raises(ValueError, match=r"config.json: model_type: expected 'squeezebert', got 'bert'"):
        SqueezeBertModel.from_pretrained(folder)
    edit_config(folder, model_type="squeezebert", q_groups=5)
    with pytest.raises(ValueError, match=r"config.json: q_groups: expected a divisor of hidden_size 48, got 5"):
        SqueezeBertModel.from_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: "):
        SqueezeBertModel.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config.json is missing"):
        SqueezeBertModel.from_pretrained(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_truncated_files(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model.safetensors is truncated, or not a safetensors file"):
        SqueezeBertForMaskedLM.from_pretrained(folder)


def test_foreign_files(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04" * 1000)
    with pytest.raises(ValueError, match=r"model.safetensors is truncated, or not a safetensors file"):
        SqueezeBertForMaskedLM.from_pretrained(folder)
    save_file({"some.weight": torch.ones(3)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"word_embeddings.weight is missing; .*; and \d+ more"):
        SqueezeBertForMaskedLM.from_pretrained(folder)


class Malicious:
    def __reduce__(self) -> Any:
        return (sys.exit, (3,))


def test_pickle_files(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors is missing"):
        SqueezeBertForMaskedLM.from_pretrained(folder)
    pickle_file = folder / "pytorch_model.bin"
    torch.save(tensors, pickle_file)
    with pytest.raises(ValueError, match=r"pytorch_model.bin: a pickle file is refused.* allow_pickle=True"):
        SqueezeBertForMaskedLM.from_pretrained(folder)
    assert same_state(SqueezeBertForMaskedLM.from_pretrained(folder, allow_pickle=True), tensors)
    torch.save({"weight": Malicious()}, pickle_file)
    with pytest.raises(ValueError, match=r"pytorch_model.bin is truncated, or not a checkpoint"):
        SqueezeBertForMaskedLM.from_pretrained(folder, allow_pickle=True)
    torch.save([torch.ones(1)], pickle_file)
    with pytest.raises(ValueError, match=r"expected a state_dict, names and tensors, got list"):
        SqueezeBertForMaskedLM.from_pretrained(folder, allow_pickle=True)


def test_hub_ids(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched by huggingface_hub, named when that fails or is not there; a path is never taken for one."""
    hub = pytest.importorskip("huggingface_hub")
    asked: list[Any] = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    SqueezeBertForMaskedLM.from_pretrained("someone/squeezebert", revision="v1")
    SqueezeBertForMaskedLM.from_pretrained("someone/squeezebert", allow_pickle=True)
    assert [(name, revision) for name, revision, _ in asked] == [
        ("someone/squeezebert", "v1"),
        ("someone/squeezebert", None),
    ]
    assert ["pytorch_model.bin" in patterns for *_, patterns in asked] == [False, True]

    def fail(*args: Any, **kwargs: Any) -> str:
        raise RuntimeError("no network")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(
        OSError, match=r"'someone/squeezebert' is no folder, and could not be fetched from the Hub: no net"
    ):
        SqueezeBertModel.from_pretrained("someone/squeezebert")
    with pytest.raises(FileNotFoundError, match=r"expected a folder .*, or a Hub id, got './no/such/folder'"):
        SqueezeBertModel.from_pretrained("./no/such/folder")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install squeezebert_kernels\[hf\]"):
        SqueezeBertModel.from_pretrained("someone/squeezebert")
