"""The competitors, one class each: how to set it up, and what one pass of it is.

Every peer gets the same batch (token ids and mask, padded) and gives the base model's two outputs, the last hidden
state and the pooler's, on the same number of threads, set up as its own manual recommends. A peer that computes in
several formats takes part once for each that is asked for.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from squeezebert_kernels.machine import cpu_flags

from .contest import Contest, Peer, RunOnce
from .precisions import DTYPES, TORCH_DTYPES
from .runtimes import (
    OnnxRuntime,
    OnnxRuntimeBert,
    OnnxRuntimeTokenMajor,
    OpenVino,
    OpenVinoBert,
    OpenVinoTokenMajor,
)
from .token_major import FAMILY_OF
from .workload import Workload


class TorchPeer(Peer):
    """A `transformers` model, called as its users call it."""

    model: Any

    def bind(self, workload: Workload) -> RunOnce:
        return lambda: self.model(workload.input_ids, attention_mask=workload.attention_mask).last_hidden_state


class HuggingFace(TorchPeer):
    name = "huggingface"
    title = "Hugging Face eager"
    dtypes = ("float32", "bfloat16")

    @classmethod
    def reason_to_skip(cls, contest: Contest, dtype: str) -> str | None:
        if dtype == "bfloat16" and not cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"}:
            return "no bfloat16 in this CPU; PyTorch would emulate it"
        return super().reason_to_skip(contest, dtype)

    def __init__(self, contest: Contest, dtype: str) -> None:
        super().__init__(contest, dtype)
        self.model = _in_dtype(contest.bert if self.is_bert else contest.model, dtype)


class BertBase(HuggingFace):
    name = "bert"
    title = "BERT, Hugging Face eager"
    is_bert = True


class TorchCompile(TorchPeer):
    """`torch.compile` of every encoder layer, with dynamic shapes.

    The layers share one compilation, for a batch of 1 and another for larger ones, which takes seconds where compiling
    the whole model for each shape takes minutes; the passes take the same time.
    """

    name = "compile"
    title = "torch.compile"

    def __init__(self, contest: Contest, dtype: str) -> None:
        super().__init__(contest, dtype)
        self.model = copy.deepcopy(contest.model)
        family = FAMILY_OF[contest.model.config.model_type]
        for layer in self.model.get_submodule(family.layers).children():
            layer.forward = torch.compile(layer.forward, dynamic=True)


class SqueezebertKernels(TorchPeer):
    """This library, by its one line."""

    name = "squeezebert_kernels"
    title = "squeezebert_kernels"
    dtypes = DTYPES

    def __init__(self, contest: Contest, dtype: str) -> None:
        from squeezebert_kernels import optimize

        super().__init__(contest, dtype)
        self.model = copy.deepcopy(contest.model)
        optimize(self.model, dtype=TORCH_DTYPES[dtype])


def _in_dtype(model: Any, dtype: str) -> Any:
    return model if dtype == "float32" else copy.deepcopy(model).to(TORCH_DTYPES[dtype])


PEERS: tuple[type[Peer], ...] = (
    HuggingFace,
    BertBase,
    TorchCompile,
    OnnxRuntime,
    OnnxRuntimeTokenMajor,
    OnnxRuntimeBert,
    OpenVino,
    OpenVinoTokenMajor,
    OpenVinoBert,
    SqueezebertKernels,
)
OURS = SqueezebertKernels
REFERENCE = HuggingFace
# In float32 these are in every run, as what a lower precision is held against.
ALWAYS = (HuggingFace, BertBase, SqueezebertKernels)
