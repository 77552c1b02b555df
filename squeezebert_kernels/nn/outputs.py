"""What the reference models return: Hugging Face's field names, in plain dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor


@dataclass
class ModelOutput:
    """Fields every model's output has.

    hidden_states: the embeddings' output and each layer's, [N, S, C] each, when they were asked for.
    attentions: one [N, heads, S, S] for each layer, when asked for: the masked scores before the softmax, as Hugging
    Face's SqueezeBERT gives them, or the probabilities.
    """

    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set, by name, in Hugging Face's order: loss, the head's own, then the common ones."""
        common = ("hidden_states", "attentions")
        own = [f.name for f in fields(self) if f.name not in ("loss", *common)]
        values = {name: getattr(self, name, None) for name in ("loss", *own, *common)}
        return {name: value for name, value in values.items() if value is not None}

    def __getitem__(self, key: int | slice | str) -> Any:
        """`output["logits"]`, `output[0]`: as Hugging Face's outputs, among the fields that are set."""
        values = self.to_dict()
        return values[key] if isinstance(key, str) else tuple(values.values())[key]


@dataclass(kw_only=True)
class BaseModelOutput(ModelOutput):
    """last_hidden_state: [N, S, C]. pooler_output: [N, C]."""

    last_hidden_state: Tensor
    pooler_output: Tensor


@dataclass(kw_only=True)
class LogitsOutput(ModelOutput):
    """logits: their shape is the model's. loss: a scalar, when labels were given."""

    logits: Tensor
    loss: Tensor | None = None


@dataclass(kw_only=True)
class QuestionAnsweringOutput(ModelOutput):
    """start_logits, end_logits: [N, S]. loss: a scalar, when both positions were given."""

    start_logits: Tensor
    end_logits: Tensor
    loss: Tensor | None = None
