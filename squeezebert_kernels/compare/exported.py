"""ONNX files of the compared model, made once and shared by the runtimes that read them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .token_major import TokenMajorModel

INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("last_hidden_state", "pooler_output")


class ExportedModel:
    """The model as ONNX in a folder of its own, in two forms; each is exported when first asked for."""

    def __init__(self, model: Any, folder: Path) -> None:
        self._model = model
        self._folder = folder

    def as_is(self) -> Path:
        """What `torch.onnx.export` makes of the Hugging Face model."""
        return self._export(self._model, self._folder / "as_exported.onnx")

    def token_major(self) -> Path:
        """The same weights as batched matrix products on [tokens, channels]."""
        return self._export(TokenMajorModel(self._model).eval(), self._folder / "token_major.onnx")

    def _export(self, module: nn.Module, path: Path) -> Path:
        if path.exists():
            return path
        positions = self._model.config.max_position_embeddings
        # Two tensors: the exporter takes one tensor given twice for one input.
        example = tuple(torch.ones(2, min(16, positions), dtype=torch.int64) for _ in INPUTS)
        axes = {0: torch.export.Dim("sequences"), 1: torch.export.Dim("tokens", max=positions)}
        with torch.no_grad(), _quiet():
            torch.onnx.export(
                module,
                example,
                path,
                input_names=INPUTS,
                output_names=OUTPUTS,
                dynamic_shapes=dict.fromkeys(INPUTS, axes),
                dynamo=True,
                external_data=True,
                verbose=False,
            )
        return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its steps and its missing optional packages at length; its errors still surface."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
