"""SqueezeBertConfig: Hugging Face's fields and config.json, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from small_models import hf_config
from squeezebert_kernels.nn.config import SqueezeBertConfig


def test_defaults_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.SqueezeBertConfig()
    ours = SqueezeBertConfig()
    for name in SqueezeBertConfig.__dataclass_fields__:
        if name not in ("id2label", "label2id", "extra"):
            assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.groups == [4, 4, 4, 1, 4, 4]


def test_round_trip_through_transformers_and_json(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    labels = {0: "no", 1: "maybe", 2: "yes"}
    theirs = hf_config("different", id2label=labels, label2id={v: k for k, v in labels.items()}, hidden_act="relu")
    theirs.save_pretrained(tmp_path)
    ours = SqueezeBertConfig.from_json_file(tmp_path)
    assert ours.groups == [2, 4, 1, 3, 6, 12]
    assert (ours.num_labels, ours.id2label) == (3, labels)

    ours.to_json_file(tmp_path / "config.json")
    assert SqueezeBertConfig.from_json_file(tmp_path / "config.json") == ours
    again = transformers.SqueezeBertConfig.from_pretrained(tmp_path)
    assert again.to_diff_dict() == theirs.to_diff_dict()


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    values = {"model_type": "squeezebert", "architectures": ["SqueezeBertForMaskedLM"], "four_wheels": True}
    config = SqueezeBertConfig.from_dict(values)
    assert config.extra == {"architectures": ["SqueezeBertForMaskedLM"], "four_wheels": True}
    assert values.items() <= config.to_dict().items()
    config.to_json_file(tmp_path / "config.json")
    assert json.loads((tmp_path / "config.json").read_text())["four_wheels"] is True


def test_labels_complete_each_other() -> None:
    assert SqueezeBertConfig().num_labels == 2
    assert SqueezeBertConfig(num_labels=5).num_labels == 5
    named = SqueezeBertConfig.from_dict({"id2label": {"0": "A", "1": "B", "2": "C"}})
    assert (named.num_labels, named.label2id) == (3, {"A": 0, "B": 1, "C": 2})
    assert SqueezeBertConfig(label2id={"A": 0}).id2label == {0: "A"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embedding_size": 128}, "embedding_size: expected hidden_size, 768, got 128"),
        ({"num_attention_heads": 7}, "num_attention_heads: expected a divisor of hidden_size 768, got 7"),
        ({"q_groups": 5}, "q_groups: expected a divisor of hidden_size 768, got 5"),
        ({"post_attention_groups": 0}, "post_attention_groups: expected an integer of at least 1, below 2^31, got 0"),
        ({"intermediate_size": 3070}, "intermediate_groups: expected a divisor of intermediate_size 3070, got 4"),
        ({"hidden_size": 768.0}, "hidden_size: expected an integer of at least 1, below 2^31, got 768.0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers: expected an integer of at least 0, below 2^31, got -1"),
        ({"hidden_act": "softsign"}, "hidden_act: expected one of gelu, "),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob: expected a probability from 0 to 1, got 1.5"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps: expected a number of at least 0, got -1.0"),
        ({"initializer_range": [0.02]}, "initializer_range: expected a number of at least 0, got [0.02]"),
        ({"vocab_size": 10**30}, "vocab_size: expected an integer of at least 1, below 2^31, got 1000"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings: expected true or false, got 'no'"),
        ({"pad_token_id": 1.5}, "pad_token_id: expected None or an id below vocab_size 30522, got 1.5"),
        ({"id2label": ["A", "B"]}, "id2label: expected a mapping or None, got ['A', 'B']"),
        ({"label2id": 1}, "label2id: expected a mapping or None, got 1"),
        ({"pad_token_id": 30522}, "pad_token_id: expected None or an id below vocab_size 30522, got 30522"),
        ({"problem_type": "ranking"}, "problem_type: expected None or one of regression, "),
        ({"num_labels": 3, "id2label": {0: "A"}}, "num_labels: expected 1, the number of names in id2label, got 3"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SqueezeBertConfig(**fields)


def test_refuses_another_model_and_another_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model_type: expected 'squeezebert', got 'bert'"):
        SqueezeBertConfig.from_dict({"model_type": "bert"})
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"config\.json: expected a JSON object, got list"):
        SqueezeBertConfig.from_json_file(tmp_path)
