"""optimize(model): one line that makes a Hugging Face model run on the kernels. restore(model) undoes it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import nn

from .architectures import FAMILIES, Family
from .forward import BaseForward, HeadForward, _Forward
from .padding import Declined

Model = TypeVar("Model", bound=nn.Module)


def optimize(model: Model, dtype: torch.dtype = torch.float32, release_weights: bool = False) -> Model:
    """Makes `model` run on this library's kernels, in place, and returns it. `restore(model)` undoes it.

    model: a transformers SqueezeBERT or BERT model, bare or with any head, or any module that holds such models. It
    keeps its class, forward signature, outputs, parameters, `state_dict` and `save_pretrained`. Weights may change
    afterwards: the next call notices and packs them again. (PyTorch does not count writes through `.data` or NumPy:
    those that rewrite a whole weight are noticed; after one to single elements, call optimize again.)

    A model on CUDA runs in `dtype` as one CUDA graph for each bucket of shapes, at most 32 of them; outputs keep the
    model's own dtype, and changed weights are noticed where PyTorch counts the write. Calls may come from any thread
    and stream; they follow each other. An id outside its table is seen by the GPU after the call has returned: its
    sequence comes out as NaN, and one of the next calls raises IndexError, or, under CUDA_LAUNCH_BLOCKING=1, the call
    itself. While another graph is captured, the kernels are launched one by one, padding included, for that graph, in
    whose replays such an id gives NaN alone; an attention_mask on the host is a ValueError there.

    The kernels serve inference: eval mode, and gradients off (`torch.no_grad()`) or no parameter that requires them.
    Padding (a 0/1 `attention_mask` [N, S], zeros anywhere) is not computed: hidden states there are zeros, where the
    original has values without meaning. Heads that read only the first token do not compute the others' last layer.
    Whatever else is asked (training, attentions, hidden states, other masks, autocast, another device; on CUDA,
    inputs_embeds and torch.compile) runs the original forward; the logger `squeezebert_kernels` says why
    at level DEBUG.

    dtype: what the kernels compute in: torch.float32 or torch.float16, on CUDA torch.bfloat16 too. On the CPU float16
    is what weights are packed as, in half the memory, and what attention's keys and values are rounded to; Arm cores
    with float16 arithmetic multiply in it too. What exceeds 65504 there becomes infinite, as after `.half()`. The model
    itself, its activations and its outputs stay float32.
    release_weights: frees the originals of the packed weights. Their parameters then read as NaN, though `state_dict`
    and `save_pretrained` still give their values, and requests for the original forward unpack them for the call.
    Training, moving, copying and pickling need restore(model) first. On the CPU in float32 only.

    Raises TypeError when `model` holds no such model, ValueError for another dtype, for a forward that something else
    has replaced, and for weights that cannot be released. Warns when a model stays on its original path (an activation
    other than the exact GELU, a decoder).
    """
    if not any(_bases(model)):
        raise TypeError(
            "model: expected a transformers SqueezeBERT or BERT model, or a module that holds one, got a "
            f"{type(model).__name__}"
        )
    _check_options(model, dtype, release_weights)
    restore(model)
    replaced = [module for module in model.modules() if "forward" in vars(module)]
    if replaced:
        raise ValueError(
            f"model: expected modules with the forward of their class, got a {type(replaced[0]).__name__} whose "
            "forward was replaced; undo that first"
        )
    for forward in attach(model, release_weights, dtype):
        try:
            forward.bind()
        except Declined as declined:
            warnings.warn(f"{type(forward.module).__name__} stays on its original path: {declined}", stacklevel=2)
    return model


def attach(model: nn.Module, release_weights: bool = False, dtype: torch.dtype = torch.float32) -> list[BaseForward]:
    """Replaces the forward of the base models in `model` and of their heads; weights are packed at the first call."""
    forwards = []
    for base, family in _bases(model):
        base.forward = forward = _forward_of(base, family, release_weights, dtype)
        forwards.append(forward)
        for head in model.modules():
            if any(child is base for child in head.children()):
                first_token = family.computes(head, family.first_token_heads)
                if first_token or family.computes(head, family.token_heads):
                    head.forward = HeadForward(head, forward, first_token)
    return forwards


def restore(model: Model) -> Model:
    """Gives `model` its original forward back, and its weights if they were released. Leaves other models alone."""
    for module in model.modules():
        forward = vars(module).get("forward")
        if isinstance(forward, BaseForward):
            forward.restore_weights()
        if isinstance(forward, _Forward):
            del module.forward
    return model


def _check_options(model: nn.Module, dtype: torch.dtype, release_weights: bool) -> None:
    on_cuda = any(_is_on_cuda(base) for base, _ in _bases(model))
    dtypes = (torch.float32, torch.float16, torch.bfloat16) if on_cuda else (torch.float32, torch.float16)
    if dtype not in dtypes:
        where = " on CUDA" if on_cuda else ""
        raise ValueError(f"dtype: expected {' or '.join(map(str, dtypes))}{where}, got {dtype}")
    if on_cuda and release_weights:
        raise ValueError("release_weights: expected False for a model on CUDA, whose weights are not packed, got True")
    if release_weights and dtype != torch.float32:
        raise ValueError(
            f"release_weights: expected False with dtype={dtype}, whose packed weights are rounded, got True"
        )


def _is_on_cuda(base: nn.Module) -> bool:
    return any(parameter.is_cuda for parameter in base.parameters())


def _forward_of(base: nn.Module, family: Family, release_weights: bool, dtype: torch.dtype) -> BaseForward:
    if not _is_on_cuda(base):
        return BaseForward(base, family, release_weights, dtype)
    from ..triton.registration import operator

    operator("encoder")  # says so where Triton is missing
    from ..triton.forward import CudaForward

    return CudaForward(base, family, release_weights, dtype)


def _bases(model: nn.Module) -> Iterator[tuple[nn.Module, Family]]:
    """The base models in `model` and their families."""
    for module in model.modules():
        for family in FAMILIES:
            if family.computes(module, (family.base,)):
                yield module, family
