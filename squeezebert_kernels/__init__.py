"""SqueezeBERT near the machine's limit: operators, models, and one line for a Hugging Face model.

`ops` (which registers ``torch.ops.squeezebert.*``), the models and `optimize` are imported when first asked for, so
that `squeezebert_kernels.numpy` needs no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that defines it.
_LAZY = {
    "optimize": "integration.optimize",
    "restore": "integration.optimize",
    "refresh": "integration.optimize",
    "explain": "integration.optimize",
    "SqueezeBertConfig": "nn.config",
    "SqueezeBertModel": "nn.models",
    "SqueezeBertForMaskedLM": "nn.models",
    "SqueezeBertForSequenceClassification": "nn.models",
    "SqueezeBertForMultipleChoice": "nn.models",
    "SqueezeBertForTokenClassification": "nn.models",
    "SqueezeBertForQuestionAnswering": "nn.models",
}
_MODULES = ("nn", "numpy", "ops")

__all__ = ["__version__", *_LAZY, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _LAZY:
        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
