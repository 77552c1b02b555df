"""The models and batches of gpu-bench. Weights and ids are random: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import squeezebert_kernels
from squeezebert_kernels.nn.config import SqueezeBertConfig

LAYERS, CHANNELS, INNER, VOCABULARY = 12, 768, 3072, 30528
GROUPS = {"squeezebert": (4, 4, 4, 1, 4, 4), "bert": (1,) * 6}
SETS = 4  # of inputs, in turn


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right to `longest` tokens."""

    name: str
    lengths: tuple[int, ...]
    longest: int

    @property
    def padded(self) -> bool:
        return any(length < self.longest for length in self.lengths)

    def inputs(self) -> list[dict[str, Tensor]]:
        """A few sets of ids, and a mask where there is padding."""
        count = len(self.lengths)
        sets = []
        for _ in range(SETS):
            given = {"input_ids": torch.randint(1, VOCABULARY, (count, self.longest), device="cuda")}
            if self.padded:
                real = torch.arange(self.longest) < torch.tensor(self.lengths).unsqueeze(1)
                given["attention_mask"] = real.long().cuda()
            sets.append(given)
        return sets


def batches() -> list[Batch]:
    """The shapes of the comparison; in the last, every length from 1 to 128, so half of it is padding."""
    uniform = [(1, 128), (8, 128), (32, 128), (32, 384), (128, 128)]
    made = [Batch(f"({count}, {length})", (length,) * count, length) for count, length in uniform]
    return [*made, Batch("mixed lengths to 128", tuple(1 + 37 * i % 128 for i in range(128)), 128)]


def flops(model: str, lengths: tuple[int, ...]) -> float:
    """Floating-point operations of the encoder, two for a multiply-add, on these lengths."""
    q, k, v, post_attention, intermediate, output = GROUPS[model]
    square = CHANNELS * CHANNELS
    per_token = 2 * (square / q + square / k + square / v + square / post_attention)
    per_token += 2 * CHANNELS * INNER * (1 / intermediate + 1 / output)
    return LAYERS * sum(length * (per_token + 4 * length * CHANNELS) for length in lengths)


def least_bytes(model: str, tokens: int, dtype: torch.dtype) -> float:
    """What any implementation has to move: each weight once, each row in and out."""
    q, k, v, post_attention, intermediate, output = GROUPS[model]
    square = CHANNELS * CHANNELS
    weights = square * (1 / q + 1 / k + 1 / v + 1 / post_attention) + CHANNELS * INNER * (1 / intermediate + 1 / output)
    return dtype.itemsize * (LAYERS * weights + 2 * tokens * CHANNELS)


def hugging_face(model: str, dtype: torch.dtype, attention: str | None = None) -> Any:
    """transformers' model of the published shape."""
    import transformers

    common = {"vocab_size": VOCABULARY, "hidden_size": CHANNELS, "num_hidden_layers": LAYERS}
    common |= {"num_attention_heads": 12, "intermediate_size": INNER}
    if model == "squeezebert":
        made = transformers.SqueezeBertModel(transformers.SqueezeBertConfig(embedding_size=CHANNELS, **common))
    else:
        config = transformers.BertConfig(**common)
        config._attn_implementation = attention or "sdpa"
        made = transformers.BertModel(config)
    return made.eval().to("cuda", dtype)


class PlainBert(nn.Module):
    """BERT-base of PyTorch's own layers, which attend by SDPA."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(VOCABULARY, CHANNELS), nn.Embedding(512, CHANNELS)
        self.norm = nn.LayerNorm(CHANNELS)
        layer = nn.TransformerEncoderLayer(CHANNELS, 12, INNER, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """input_ids, attention_mask: [N, S] -> [N, S, C]."""
        x = self.norm(self.words(input_ids) + self.positions.weight[: input_ids.shape[1]])
        return self.encoder(x, src_key_padding_mask=None if attention_mask is None else attention_mask == 0)


def plain_pytorch(model: str, dtype: torch.dtype) -> Any:
    """The published shape without transformers: the reference's SqueezeBERT, or BERT of PyTorch's own layers."""
    made: nn.Module = PlainBert()
    if model == "squeezebert":
        config = SqueezeBertConfig(vocab_size=VOCABULARY)
        made = squeezebert_kernels.restore(squeezebert_kernels.SqueezeBertModel(config))
    return made.eval().to("cuda", dtype)


def peers(dtype: torch.dtype) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Name -> (architecture, function that makes the model). Without transformers, the same shapes in plain PyTorch."""

    def compiled(model: Any) -> Any:
        return torch.compile(model, mode="max-autotune")

    if find_spec("transformers") is None:
        return {
            "plain PyTorch SqueezeBERT, eager": ("squeezebert", lambda: plain_pytorch("squeezebert", dtype)),
            "plain PyTorch SqueezeBERT, torch.compile": (
                "squeezebert",
                lambda: compiled(plain_pytorch("squeezebert", dtype)),
            ),
            "plain PyTorch BERT-base": ("bert", lambda: plain_pytorch("bert", dtype)),
            "plain PyTorch BERT-base, torch.compile": ("bert", lambda: compiled(plain_pytorch("bert", dtype))),
        }

    found: dict[str, tuple[str, Callable[[], Any]]] = {
        "Hugging Face SqueezeBERT, eager": ("squeezebert", lambda: hugging_face("squeezebert", dtype)),
        "Hugging Face SqueezeBERT, torch.compile": (
            "squeezebert",
            lambda: compiled(hugging_face("squeezebert", dtype)),
        ),
        "BERT-base, SDPA": ("bert", lambda: hugging_face("bert", dtype)),
        "BERT-base, SDPA, torch.compile": ("bert", lambda: compiled(hugging_face("bert", dtype))),
    }
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        return found
    found["BERT-base, FlashAttention"] = ("bert", lambda: hugging_face("bert", dtype, "flash_attention_2"))
    return found
