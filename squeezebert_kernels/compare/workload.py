"""What the competitors compute: real text in the real vocabulary, as fixed shapes and as one padded batch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FIXED_SHAPES = ((1, 8), (1, 32), (1, 128), (8, 128), (1, 512))


@dataclass(frozen=True)
class Workload:
    """One batch: `input_ids` and `attention_mask` are int64 [sequences, tokens], padded on the right.

    `lengths` are the real tokens of each sequence.
    """

    name: str
    input_ids: Tensor
    attention_mask: Tensor
    lengths: tuple[int, ...]


def shipped_text() -> str:
    """The English text that ships with the package: eight sentences of 9, 17, 24, 31, 40, 52, 77 and 128 tokens."""
    return resources.files("squeezebert_kernels").joinpath("data", "sentences.txt").read_text(encoding="utf-8")


def read_text(path: Path | None) -> str:
    """The text to run on; raises ValueError when the file holds no words."""
    text = shipped_text() if path is None else path.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError(f"text: expected a file with words in it, got {path}, which is empty")
    return text


def split_sentences(text: str) -> list[str]:
    """Cuts after a full stop, an exclamation or a question mark that white space follows."""
    return re.split(r"(?<=[.!?])\s+", " ".join(text.split()))


def fixed_shape(tokenizer: Tokenizer, text: str, batch: int, tokens: int) -> Workload:
    """`batch` sequences of exactly `tokens` tokens: the running text, repeated as needed, between [CLS] and [SEP]."""
    if batch < 1 or tokens < 3:
        raise ValueError(
            f"shape: expected at least 1 sequence of 3 tokens ([CLS], a word, [SEP]), got {batch}x{tokens}"
        )
    first, *words, last = tokenizer.encode(" ".join(text.split())).ids
    if not words:
        raise ValueError("text: expected at least one token besides [CLS] and [SEP], got none")
    needed = batch * (tokens - 2)
    running = (words * (needed // len(words) + 1))[:needed]
    rows = [[first, *running[start : start + tokens - 2], last] for start in range(0, needed, tokens - 2)]
    return pad(f"{batch}x{tokens}", rows)


def sentence_batch(tokenizer: Tokenizer, text: str, sentences: int, max_tokens: int) -> Workload:
    """The first `sentences` sentences of the text as one batch, each cut to `max_tokens` tokens (its [SEP] stays)."""
    rows = []
    for sentence in split_sentences(text)[:sentences]:
        ids = tokenizer.encode(sentence).ids
        rows.append(ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]])
    return pad("text", rows)


def one_by_one(batch: Workload) -> tuple[Workload, ...]:
    """The sequences of a batch, each alone and without padding."""
    rows = [batch.input_ids[index, :length].tolist() for index, length in enumerate(batch.lengths)]
    return tuple(pad(batch.name, [row]) for row in rows)


def pad(name: str, rows: Sequence[Sequence[int]]) -> Workload:
    """Stacks token rows of any lengths, filling with [PAD] = 0 on the right."""
    lengths = tuple(len(row) for row in rows)
    input_ids = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = torch.tensor(row)
    attention_mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).to(torch.int64)
    return Workload(name, input_ids, attention_mask, lengths)
