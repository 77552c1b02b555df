"""A small SqueezeBERT that tells good reviews from bad ones, trained here from scratch, one model for each fold."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from squeezebert_kernels import SqueezeBertConfig, SqueezeBertForSequenceClassification
from squeezebert_kernels.compare.workload import pad
from squeezebert_kernels.nn.tokenizer import load_tokenizer

from .minilm import load_minilm
from .snippets import Fold, Snippet
from .sources import cache_folder

PUBLISHED_GROUPS = {"q_groups": 4, "k_groups": 4, "v_groups": 4, "post_attention_groups": 1} | {
    "intermediate_groups": 4,
    "output_groups": 4,
}


@dataclass(frozen=True)
class Recipe:
    """What decides a trained model; another recipe has its own folder in the cache.

    The widths are MiniLM's, whose embeddings the model starts from and keeps (word pieces are too many for so few
    sentences); everything else is drawn by `seed`.
    """

    layers: int = 3
    hidden: int = 384
    heads: int = 12
    intermediate: int = 1536
    epochs: int = 2
    batch: int = 32
    rate: float = 5e-4
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0


def trained(fold: Fold, name: str, recipe: Recipe, report: Callable[[str], None]) -> Any:
    """transformers' model of this fold, in eval mode: out of the cache, or trained now and put there."""
    import transformers

    digest = hashlib.sha256(repr((asdict(recipe), fold)).encode()).hexdigest()[:16]
    folder = cache_folder("classifier") / f"{name}-{digest}"
    if not folder.exists():
        model = train(fold.train, recipe, lambda line: report(f"{name}: {line}"))
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        model.save_pretrained(unfinished)
        unfinished.rename(folder)
    return transformers.SqueezeBertForSequenceClassification.from_pretrained(folder).eval()


def train(
    snippets: Sequence[Snippet], recipe: Recipe, report: Callable[[str], None]
) -> SqueezeBertForSequenceClassification:
    """A model trained on these snippets, the same for the same recipe on the same machine."""
    torch.manual_seed(recipe.seed)
    model = untrained(recipe).train()
    batches = list(encode(snippets, recipe.batch))
    steps = recipe.epochs * len(batches)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=recipe.weight_decay)
    warmup = max(1, round(recipe.warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / (steps - warmup + 1))
    )
    order = random.Random(recipe.seed)
    for epoch in range(recipe.epochs):
        order.shuffle(batches)
        total = 0.0
        for input_ids, mask, labels in batches:
            loss = F.cross_entropy(model(input_ids, attention_mask=mask).logits, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            total += loss.item()
        report(f"epoch {epoch + 1} of {recipe.epochs}, mean loss {total / len(batches):.3f}")
    return model.eval()


def untrained(recipe: Recipe) -> SqueezeBertForSequenceClassification:
    """SqueezeBERT's layers with drawn weights above MiniLM's embeddings, which are not to be trained."""
    teacher = load_minilm()
    config = SqueezeBertConfig(
        vocab_size=teacher.config.vocab_size,
        hidden_size=recipe.hidden,
        embedding_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate,
        num_labels=2,
        **PUBLISHED_GROUPS,
    )
    model = SqueezeBertForSequenceClassification(config)
    embeddings = model.transformer.embeddings
    embeddings.load_state_dict(teacher.embeddings.state_dict())
    embeddings.requires_grad_(False)
    return model


def encode(snippets: Sequence[Snippet], batch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of ids, masks and labels, of sentences of like length."""
    tokenizer = load_tokenizer(None)
    rows = [(encoded.ids, snippet.label) for encoded, snippet in zip(
        tokenizer.encode_batch([snippet.text for snippet in snippets]), snippets, strict=True
    )]  # fmt: skip
    rows.sort(key=lambda row: len(row[0]))
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        padded = pad("batch", [ids for ids, _ in part])
        yield padded.input_ids, padded.attention_mask, torch.tensor([label for _, label in part])


@torch.inference_mode()
def logits(model: Any, snippets: Sequence[Snippet], batch: int = 32) -> tuple[Tensor, Tensor]:
    """The model's logits [snippets, 2] and the labels, in the order of `encode`."""
    outputs, labels = [], []
    for input_ids, mask, label in encode(snippets, batch):
        outputs.append(model(input_ids, attention_mask=mask).logits)
        labels.append(label)
    return torch.cat(outputs), torch.cat(labels)
