"""`python -m squeezebert_kernels check MODEL`: which path an optimized checkpoint takes, and why not ours."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from squeezebert_kernels import explain, optimize


def check(model: str) -> list[str]:
    """Lines to print about the checkpoint `model`, a Hub id or a folder.

    Raises ValueError for a model that is neither SqueezeBERT nor BERT, and what transformers raises for no model.
    """
    loaded = _load(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they say what the explanation says
        try:
            optimize(loaded)
        except TypeError as error:
            raise ValueError(str(error)) from error
    ids = torch.arange(16)[None] % loaded.config.vocab_size
    with torch.no_grad():
        return str(explain(loaded, input_ids=ids, attention_mask=torch.ones_like(ids))).splitlines()


def _load(model: str) -> Any:
    try:
        import transformers
    except ImportError:
        from squeezebert_kernels import SqueezeBertModel

        return SqueezeBertModel.from_pretrained(model)
    config = transformers.AutoConfig.from_pretrained(model)
    architectures = [name for name in config.architectures or () if hasattr(transformers, name)]
    kind = getattr(transformers, architectures[0]) if architectures else transformers.AutoModel
    return kind.from_pretrained(model).eval()
