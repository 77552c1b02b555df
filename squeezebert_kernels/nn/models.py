"""SqueezeBertModel and its five heads without transformers: the reference's modules, running on this library's kernels.

They have Hugging Face's parameter names and forward arguments, and load and save its checkpoints. What the kernels
cannot serve (see `squeezebert_kernels.optimize`, whose rules are theirs) runs through the reference, in plain PyTorch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..integration.optimize import attach, restore
from ..precision import Dtype, Precision
from . import checkpoint
from .config import SqueezeBertConfig
from .plain import heads as plain_heads
from .plain import model as plain_model

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "SqueezeBertConfig",
    "SqueezeBertForMaskedLM",
    "SqueezeBertForMultipleChoice",
    "SqueezeBertForQuestionAnswering",
    "SqueezeBertForSequenceClassification",
    "SqueezeBertForTokenClassification",
    "SqueezeBertModel",
]

HEADS = tuple(name for name in __all__ if name != "SqueezeBertConfig")

logger = logging.getLogger(__name__)


class _Pretrained(nn.Module):
    """What the six models share: the kernels, and checkpoints."""

    config: SqueezeBertConfig

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(config)
        attach(self)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        allow_pickle: bool = False,
        dtype: Dtype = torch.float32,
        keep: Mapping[str, Dtype] | None = None,
    ) -> Self:
        """The model in the checkpoint `model`, in eval mode, with float32 parameters, on the CPU.

        model: a folder with config.json and model.safetensors (or shards and their index), or a Hub id. revision: of a
        Hub id.
        allow_pickle: takes a pytorch_model.bin too, where there are no safetensors.
        dtype, keep: what the kernels compute in, as for `squeezebert_kernels.optimize`.

        Raises ImportError when safetensors, or for a Hub id huggingface_hub, is not installed; FileNotFoundError for a
        missing file; OSError when a download fails; ValueError, which names the file, field or tensor, for anything
        that does not fit.
        """
        precision = Precision.of(dtype, keep)
        folder = checkpoint.find(model, revision, allow_pickle)
        config = checkpoint.read_config(folder)
        tensors = checkpoint.read_tensors(folder, allow_pickle)
        with torch.device("meta"):
            loaded = cls(config)
        unused = checkpoint.load_into(loaded, tensors, config, folder)
        if unused:
            logger.info("%s: not used by %s: %s", folder, cls.__name__, ", ".join(unused))
        attach(restore(loaded), precision)
        return loaded.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors, which transformers' class of the same name reads too."""
        checkpoint.save(self, self.config, folder)


class SqueezeBertModel(_Pretrained, plain_model.SqueezeBertModel):
    """Embeddings, encoder and pooler."""


class SqueezeBertForMaskedLM(_Pretrained, plain_heads.SqueezeBertForMaskedLM):
    """Predicts the word at every position."""


class SqueezeBertForSequenceClassification(_Pretrained, plain_heads.SqueezeBertForSequenceClassification):
    """Classifies (or, with one label, regresses) whole sequences."""


class SqueezeBertForMultipleChoice(_Pretrained, plain_heads.SqueezeBertForMultipleChoice):
    """Scores several candidate sequences against each other."""


class SqueezeBertForTokenClassification(_Pretrained, plain_heads.SqueezeBertForTokenClassification):
    """Classifies every token."""


class SqueezeBertForQuestionAnswering(_Pretrained, plain_heads.SqueezeBertForQuestionAnswering):
    """Scores every token as the first and as the last of the answer."""
