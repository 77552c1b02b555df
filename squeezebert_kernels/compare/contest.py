"""What a competitor is, and what they compete on."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from .exported import ExportedModel
from .flops import EncoderShape
from .workload import Workload

RunOnce = Callable[[], Tensor]


class Contest:
    """What the competitors compete on.

    model: a Hugging Face base model in eval mode that nobody may change. folder: for exported graphs. calibration:
    batches of the same text for those that want to see some before they quantize.
    """

    def __init__(self, model: Any, folder: Path, threads: int, calibration: tuple[Workload, ...] = ()) -> None:
        self.model = model
        self.threads = threads
        self.calibration = calibration
        self.exported = ExportedModel(model, folder)
        self._folder = folder

    @cached_property
    def bert(self) -> Any:
        """The dense network that SqueezeBERT replaces: same depth and widths, no groups, seeded weights."""
        from transformers import BertConfig, BertModel

        torch.manual_seed(0)
        return BertModel(BertConfig(**{name: getattr(self.model.config, name) for name in BERT_FIELDS})).eval()

    @cached_property
    def exported_bert(self) -> ExportedModel:
        folder = self._folder / "bert"
        folder.mkdir()
        return ExportedModel(self.bert, folder)


BERT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "pad_token_id",
)


class Peer(ABC):
    """A competitor in one of its `dtypes`. Making one sets it up (export, compile, pack), which is not timed."""

    name: ClassVar[str]
    title: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    # Runs the dense network, of other weights, so that its outputs cannot be compared.
    is_bert: ClassVar[bool] = False

    @classmethod
    def reason_to_skip(cls, contest: Contest, dtype: str) -> str | None:
        """Why this peer cannot take part, such as packages that are not installed; None when it can."""
        if cls.is_bert and contest.model.config.model_type == "bert":
            return "the model is a BERT itself"
        missing = [package for package in cls.needs(dtype) if importlib.util.find_spec(package) is None]
        return f"not installed: {', '.join(missing)}" if missing else None

    @classmethod
    def needs(cls, dtype: str) -> tuple[str, ...]:
        """The packages that this peer needs to compute in `dtype`."""
        return cls.requires

    def __init__(self, contest: Contest, dtype: str) -> None:
        self.dtype = dtype

    @property
    def key(self) -> str:
        """Names this peer among all of a run."""
        return f"{self.name}/{self.dtype}"

    @abstractmethod
    def bind(self, workload: Workload) -> RunOnce:
        """One pass over this batch: gives the last hidden state, [sequences, tokens, hidden]."""

    def shape(self, contest: Contest) -> EncoderShape:
        """The encoder this peer runs, for counting its operations."""
        shape = EncoderShape.of(contest.model.config)
        return shape.dense() if self.is_bert else shape
