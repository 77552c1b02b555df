"""SqueezeBERT near the machine's limit: operators, models, and one line for a Hugging Face model.

Importing this package registers ``torch.ops.squeezebert.*``. Models and `optimize` are imported when first asked for,
so that ``import squeezebert_kernels`` costs little more than ``import torch``.
"""

from importlib import import_module
from typing import Any

from . import ops

__version__ = "0.1.0"

# Public name -> the module that defines it.
_LAZY = {
    "optimize": "integration.optimize",
    "restore": "integration.optimize",
    "refresh": "integration.optimize",
    "explain": "integration.optimize",
    "SqueezeBertConfig": "models",
    "SqueezeBertModel": "models",
    "SqueezeBertForMaskedLM": "models",
    "SqueezeBertForSequenceClassification": "models",
    "SqueezeBertForMultipleChoice": "models",
    "SqueezeBertForTokenClassification": "models",
    "SqueezeBertForQuestionAnswering": "models",
}

__all__ = ["__version__", "ops", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
