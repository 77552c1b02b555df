"""Loads the Hugging Face base model that everybody's weights come from."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from squeezebert_kernels.nn import checkpoint

from .token_major import FAMILY_OF


def load_model(name: str | None) -> Any:
    """A `transformers` base model in float32 and eval mode.

    name: a folder with config.json and model.safetensors, a Hub id, or None for SqueezeBERT-base with seeded weights.

    Raises ImportError without `transformers`, ValueError for a model that is neither SqueezeBERT nor BERT, and what
    `from_pretrained` raises for files that are missing or damaged. Pickled weights are refused.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ImportError(
            "compare takes its weights and its reference from transformers: pip install 'squeezebert_kernels[bench]'"
        )
    from transformers import AutoConfig, AutoModel, SqueezeBertConfig, SqueezeBertModel
    from transformers.utils import logging

    if name is None:
        torch.manual_seed(0)
        return SqueezeBertModel(SqueezeBertConfig()).eval()
    folder = checkpoint.find(name)
    config = AutoConfig.from_pretrained(folder)
    if config.model_type not in FAMILY_OF:
        raise ValueError(f"model: expected the type {' or '.join(FAMILY_OF)}, got {config.model_type} in {name}")
    # A head's checkpoint has weights that the base model does not use; its loading report would say so at length.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return AutoModel.from_pretrained(folder, config=config, use_safetensors=True, dtype=torch.float32).eval()
