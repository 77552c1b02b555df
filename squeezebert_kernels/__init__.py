"""SqueezeBERT near the machine's limit: operators, models, and one line for a Hugging Face model.

`ops` (which registers ``torch.ops.squeezebert.*``), the models and `optimize` are imported when first asked for, so
that `squeezebert_kernels.numpy` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ gives, for those who read instead of run
    from . import nn as nn
    from . import numpy as numpy
    from . import ops as ops
    from .integration.optimize import explain as explain
    from .integration.optimize import optimize as optimize
    from .integration.optimize import refresh as refresh
    from .integration.optimize import restore as restore
    from .nn.config import SqueezeBertConfig as SqueezeBertConfig
    from .nn.models import SqueezeBertForMaskedLM as SqueezeBertForMaskedLM
    from .nn.models import SqueezeBertForMultipleChoice as SqueezeBertForMultipleChoice
    from .nn.models import SqueezeBertForQuestionAnswering as SqueezeBertForQuestionAnswering
    from .nn.models import SqueezeBertForSequenceClassification as SqueezeBertForSequenceClassification
    from .nn.models import SqueezeBertForTokenClassification as SqueezeBertForTokenClassification
    from .nn.models import SqueezeBertModel as SqueezeBertModel
    from .nn.packed_file import load_packed as load_packed
    from .nn.packed_file import save_packed as save_packed
    from .numpy import release_memory as release_memory
    from .report import quantization_report as quantization_report

__version__ = "0.1.0"

# Public name -> the module that defines it.
_LAZY = {
    "optimize": "integration.optimize",
    "restore": "integration.optimize",
    "refresh": "integration.optimize",
    "explain": "integration.optimize",
    "quantization_report": "report",
    "save_packed": "nn.packed_file",
    "load_packed": "nn.packed_file",
    "release_memory": "numpy",
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
