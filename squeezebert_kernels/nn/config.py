"""SqueezeBertConfig: the model's hyper-parameters, with Hugging Face's field names, defaults and config.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any

from ..checks import check
from .activations import ACTIVATIONS

MODEL_TYPE = "squeezebert"
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

_LARGEST = 2**31 - 1  # of a size

# The encoder's LayerNorms use this epsilon whatever the config says: Hugging Face's blocks never pass theirs on, and
# every published checkpoint was trained so. `layer_norm_eps` is that of the embeddings and of the masked-LM head.
BLOCK_LAYER_NORM_EPS = 1e-12


@dataclass
class SqueezeBertConfig:
    """Hyper-parameters of SqueezeBERT; the defaults are squeezebert-uncased. All group counts 1 make it BERT.

    Where `id2label` names the labels, `num_labels` is their number and may be left at its default. Fields that are
    unknown here (say `architectures`) are kept in `extra` and written back.
    Raises ValueError, naming the field, for a value that cannot be.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    embedding_size: int = 768
    q_groups: int = 4
    k_groups: int = 4
    v_groups: int = 4
    post_attention_groups: int = 1
    intermediate_groups: int = 4
    output_groups: int = 4
    tie_word_embeddings: bool = True
    num_labels: int = 2
    id2label: dict[int, str] | None = None
    label2id: dict[str, int] | None = None
    problem_type: str | None = None
    output_attentions: bool = False
    output_hidden_states: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._set_labels()
        self._check_sizes()
        self._check_groups()
        check(
            self.hidden_act in ACTIVATIONS,
            f"hidden_act: expected one of {', '.join(sorted(ACTIVATIONS))}, got {self.hidden_act!r}",
        )
        check(
            self.problem_type is None or self.problem_type in PROBLEM_TYPES,
            f"problem_type: expected None or one of {', '.join(PROBLEM_TYPES)}, got {self.problem_type!r}",
        )

    @property
    def groups(self) -> list[int]:
        """The six group counts in the operators' order: query, key, value, post_attention, intermediate, output."""
        return [
            self.q_groups,
            self.k_groups,
            self.v_groups,
            self.post_attention_groups,
            self.intermediate_groups,
            self.output_groups,
        ]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SqueezeBertConfig:
        """The config that a parsed config.json describes. Raises ValueError for another model_type."""
        model_type = values.get("model_type", MODEL_TYPE)
        check(model_type == MODEL_TYPE, f"model_type: expected {MODEL_TYPE!r}, got {model_type!r}")
        known = {f.name for f in fields(cls)} - {"extra"}
        extra = {name: value for name, value in values.items() if name not in known and name != "model_type"}
        return cls(**{name: value for name, value in values.items() if name in known}, extra=extra)

    @classmethod
    def from_json_file(cls, path: str | Path) -> SqueezeBertConfig:
        """Reads `path`: a config.json, or the folder that holds one."""
        path = Path(path)
        path = path / "config.json" if path.is_dir() else path
        values = json.loads(path.read_text(encoding="utf-8"))
        check(isinstance(values, dict), f"{path}: expected a JSON object, got {type(values).__name__}")
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """All fields with `extra` among them, ready for JSON (whose keys are strings, so id2label's are too)."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        if self.id2label is not None:
            values["id2label"] = {str(index): label for index, label in self.id2label.items()}
        return {**self.extra, **values, "model_type": MODEL_TYPE}

    def to_json_file(self, path: str | Path) -> None:
        """Writes a config.json that Hugging Face reads too."""
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def _set_labels(self) -> None:
        """Label names in both directions where one is given, and their number."""
        for name in ("id2label", "label2id"):
            names = getattr(self, name)
            check(names is None or isinstance(names, Mapping), f"{name}: expected a mapping or None, got {names!r}")
        if self.id2label is None and self.label2id is not None:
            self.id2label = {index: label for label, index in self.label2id.items()}
        if self.id2label is not None:
            self.id2label = {int(index): label for index, label in self.id2label.items()}
            if self.label2id is None:
                self.label2id = {label: index for index, label in self.id2label.items()}
            count = len(self.id2label)
            check(
                self.num_labels in (SqueezeBertConfig.num_labels, count),
                f"num_labels: expected {count}, the number of names in id2label, got {self.num_labels}",
            )
            self.num_labels = count

    def _check_sizes(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        ):
            self._check_at_least(name, 1)
        self._check_at_least("type_vocab_size", 1)
        self._check_at_least("num_labels", 1)
        self._check_at_least("num_hidden_layers", 0)
        check(
            self.embedding_size == self.hidden_size,
            f"embedding_size: expected hidden_size, {self.hidden_size}, got {self.embedding_size}",
        )
        check(
            self.hidden_size % self.num_attention_heads == 0,
            f"num_attention_heads: expected a divisor of hidden_size {self.hidden_size}, "
            f"got {self.num_attention_heads}",
        )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            probability = getattr(self, name)
            check(0.0 <= probability <= 1.0, f"{name}: expected a probability from 0 to 1, got {probability}")
        for name in ("layer_norm_eps", "initializer_range"):
            value = getattr(self, name)
            finite = isinstance(value, (int, float)) and 0.0 <= value < math.inf
            check(finite, f"{name}: expected a number of at least 0, got {value!r}")
        for name in ("tie_word_embeddings", "output_attentions", "output_hidden_states"):
            value = getattr(self, name)
            check(isinstance(value, (bool, int, NoneType)), f"{name}: expected true or false, got {value!r}")
        pad = self.pad_token_id
        check(
            pad is None or (_is_integer(pad) and 0 <= pad < self.vocab_size),
            f"pad_token_id: expected None or an id below vocab_size {self.vocab_size}, got {pad!r}",
        )

    def _check_groups(self) -> None:
        for name in (
            "q_groups",
            "k_groups",
            "v_groups",
            "post_attention_groups",
            "intermediate_groups",
            "output_groups",
        ):
            self._check_at_least(name, 1)
            groups = getattr(self, name)
            check(
                self.hidden_size % groups == 0,
                f"{name}: expected a divisor of hidden_size {self.hidden_size}, got {groups}",
            )
        for name in ("intermediate_groups", "output_groups"):
            groups = getattr(self, name)
            check(
                self.intermediate_size % groups == 0,
                f"{name}: expected a divisor of intermediate_size {self.intermediate_size}, got {groups}",
            )

    def _check_at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        fits = _is_integer(value) and least <= value <= _LARGEST
        check(fits, f"{name}: expected an integer of at least {least}, below 2^31, got {value!r}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
