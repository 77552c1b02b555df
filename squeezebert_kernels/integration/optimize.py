"""optimize(model): one line that makes a Hugging Face model run on the kernels, and the four that go with it."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from .. import _native
from ..packed import FLOATS
from ..precision import Dtype, Precision
from .architectures import FAMILIES, Family
from .classes import attach as attach_state
from .classes import detach, state_of
from .forward import NOT_CALLED, BaseState, HeadState, original_class
from .request import Declined

Model = TypeVar("Model", bound=nn.Module)

_FLOAT32 = Precision()


def optimize(
    model: Model,
    dtype: Dtype = torch.float32,
    release_weights: bool = False,
    keep_padding: bool = False,
    training: bool = False,
    recompute: bool = False,
    keep: Mapping[str, Dtype] | None = None,
) -> Model:
    """Makes `model` run on this library's kernels, in place, and returns it. `restore(model)` undoes it.

    model: a transformers SqueezeBERT or BERT model, bare or with any head, or any module that holds such models. It
    gets a subclass of its class, of the same name; forward signature, outputs and their dtype, parameters, `state_dict`
    and `save_pretrained` stay. What the kernels compute is first compared with what the model does, on a few tokens.
    `explain(model)` says what runs where. For BERT-base on one core this takes half a second and the memory of the
    packed weights, which is that of the encoder in `dtype`.

    Weights may change afterwards: what PyTorch counts (optimizers, in-place writes, `load_state_dict`, other parameters
    or storages) is noticed at the next call, and packed again in place. Writes through `.data` or NumPy, and those into
    tensors made in inference mode, it does not count: call `refresh(model)` after them. A model optimized under
    SQUEEZEBERT_CHECK_WEIGHTS=1 compares every byte at every call, and raises RuntimeError where that was forgotten.

    A model on CUDA runs in `dtype` as one CUDA graph for each bucket of shapes, at most 32 of them; outputs keep the
    model's own dtype. Calls may come from any thread and stream; they follow each other. An id outside its table is
    seen by the GPU after the call has returned: its sequence comes out as NaN, and one of the next calls raises
    IndexError, or, under CUDA_LAUNCH_BLOCKING=1, the call itself. While another graph is captured, the kernels are
    launched one by one, padding included, for that graph, in whose replays such an id gives NaN alone; an
    attention_mask on the host is a ValueError there.

    The kernels serve inference: eval mode, and gradients off (`torch.no_grad()`) or no parameter that requires them.
    Whatever else is asked (training, attentions, hidden states, other masks, autocast; on CUDA, inputs_embeds and
    torch.compile) runs the original forward; the first time, but for training, a warning says why. Linear layers of
    another kind (LoRA, quantized) run as they are, between our kernels. Padding (a 0/1 `attention_mask` [N, S], zeros
    anywhere) is not computed: hidden states there are zeros, where the original has values without meaning. Heads that
    read only the first token do not compute the others' last layer.

    dtype: what the kernels compute in, whatever the model's own dtype: torch.float32, torch.float16 or torch.bfloat16,
    on the CPU also torch.int8, or the name of one ("int8"). On the CPU it is what weights and attention's keys and
    values are packed as, in a half or a quarter of the memory. Cores that multiply 16-bit formats faster than float32
    do; others widen. float16 makes infinite what exceeds 65504. int8 quantizes activations too, each token's channels
    of a group and each query with a scale of its own, found on the way: nothing is to be calibrated, and results are
    the same bits on every CPU, in any batch. NaN or infinity in such a row makes all that it gives NaN. Softmax, GELU,
    LayerNorm, residuals, embeddings, inputs and outputs stay float32. `quantization_report` tells what it costs.
    keep: parts of layers in another dtype than that, by name: {"layer.11.output": torch.bfloat16}. The parts are
    query, key, value, attention, post_attention, intermediate and output; a name without its layer is of all layers
    ({"attention": torch.float32}), "layer.0" is all of a layer, "pooler" the pooler, and `*` and `?` stand for others
    as in file names. Where several fit, the last counts.
    release_weights: frees the originals of the packed weights. Their parameters then read as NaN; `state_dict`,
    `save_pretrained`, copies and pickles still have the values. What needs the originals raises RuntimeError, which
    says `restore(model)`; loading a state_dict, moving to another dtype or device, and changed layers bring them back
    for good. On the CPU and wholly in float32 only.
    keep_padding: computes padded positions as the original does, for who reads them.
    training: the encoder's layers run forward and backward on the kernels, in train and eval mode, on the CPU in
    float32, with the model's own parameters, so nothing is packed ahead or can be stale; embeddings, pooler and head
    stay PyTorch's. What is frozen gets no gradient computed. Dropout draws one seed for each layer and call from
    torch's generator; without it the loss is the original's to rounding, with it in distribution. Gradients do not
    depend on the number of threads. A loss over padded positions (labels other than -100 there, question answering)
    has them computed. For deployment call optimize(model) again.
    recompute: with training, keeps of each layer nothing but its input, and computes the forward pass again in the
    backward pass: a third more time. (`gradient_checkpointing_enable()` of BERT does the same.)

    Raises TypeError when `model` holds no such model, ValueError for another dtype, for names in `keep` that fit
    nothing, for a forward that something else has replaced, and for weights that cannot be released; `model` is then as
    it was before. Warns when a model stays on its original path (an activation other than the exact GELU, a decoder, a
    machine without SIMD kernels).
    """
    precision = Precision.of(dtype, keep)
    if training:
        _check_training(precision, release_weights)
    elif recompute:
        raise ValueError("recompute: expected False without training=True, got True")
    bases = list(bases_of(model))
    if not bases:
        raise TypeError(
            "model: expected a transformers SqueezeBERT or BERT model, or a module that holds one, got a "
            f"{type(model).__name__}"
        )
    _check_options(bases, precision, release_weights)
    if _only_scalar():
        warnings.warn(
            f"{type(model).__name__} stays on its original path: this machine has no SIMD kernels, and the scalar ones "
            "are slower (SQUEEZEBERT_FORCE_ISA=scalar runs them all the same)",
            stacklevel=2,
        )
        return restore(model)
    if training:
        from ..training.attach import optimize_for_training

        optimize_for_training(model, recompute, keep_padding)
        return model
    for module in model.modules():
        if not isinstance(state_of(module), (BaseState, HeadState)):  # optimized for training before, if at all
            detach(module)
    _check_forwards(model)
    states = [BaseState(family, precision, keep_padding) for _, family in bases]
    with ExitStack() as stack:
        for (base, _), state in zip(bases, states, strict=True):
            if state_of(base) is not None:
                stack.enter_context(state_of(base).succeeded_by(state))
        for (base, _), state in zip(bases, states, strict=True):
            try:
                binding = state.bind(base)
            except Declined as declined:
                state.has_warned = True
                warnings.warn(f"{type(base).__name__} stays on its original path: {declined}", stacklevel=2)
            else:
                if release_weights:
                    _check_shared(base)
                    binding.packed.check_releasable()
        # In place of the states that are there: a call in another thread does not meet the original path in between,
        # whose weights may be about to go.
        _attach(model, bases, states)
        if release_weights:
            for state in states:
                state.release()
    return model


def restore(model: Model) -> Model:
    """Gives `model` its original class back, and its weights if they were released. Leaves other models alone."""
    for module in model.modules():
        detach(module)
    return model


def refresh(model: Model) -> Model:
    """Packs the weights of an optimized `model` anew, and tests again what was declined. For writes that PyTorch does
    not count (`optimize` says which). Leaves other models alone."""
    for module in model.modules():
        state = state_of(module)
        if isinstance(state, BaseState):
            state.refresh()
    return model


def attach(model: nn.Module, precision: Precision = _FLOAT32) -> None:
    """As `optimize`, but reads nothing yet: weights are packed, and the model tested, at the first call."""
    bases = list(bases_of(model))
    _check_options(bases, precision, release_weights=False)
    if not _only_scalar():
        _attach(model, bases, [BaseState(family, precision, False) for _, family in bases])


@dataclass(frozen=True)
class Explanation:
    """What `explain` found: for each base model its class and why the kernels do not serve it, None where they do; and
    for each of its layers what runs as its own module."""

    models: list[tuple[str, str | None, dict[str, str]]]

    @property
    def served(self) -> bool:
        """Everything runs on the kernels."""
        return all(reason is None for _, reason, _ in self.models)

    def __str__(self) -> str:
        lines = []
        for name, reason, layers in self.models:
            lines.append(f"{name}: the kernels" if reason is None else f"{name}: the original path: {reason}")
            lines += [f"  {layer}: {way}" for layer, way in layers.items()]
        return "\n".join(lines)


def explain(model: nn.Module, **batch: Any) -> Explanation:
    """Says which path `model` takes, and why not ours, layer by layer. `print(explain(model))` is meant to be read.

    batch: arguments of the model: it is called with them, once, and what it did is told. Without any: whether ordinary
    inference is served.
    """
    if batch:
        for state in filter(None, map(state_of, model.modules())):
            state.declined = NOT_CALLED
        model(**batch)
    return Explanation([(type(base).__name__, *_explained(base, bool(batch))) for base, _ in bases_of(model)])


def _explained(base: nn.Module, called: bool) -> tuple[str | None, dict[str, str]]:
    state = state_of(base)
    if state is None:
        trains = state_of(getattr(base, "encoder", base)) is not None
        return (None if trains else "it is not optimized"), {}
    reason = state.declined if called else None
    try:
        return reason, state.bind(base).layers()
    except Declined as declined:
        return str(declined), {}


def _attach(model: nn.Module, bases: list[tuple[nn.Module, Family]], states: list[BaseState]) -> None:
    for (base, family), state in zip(bases, states, strict=True):
        for head in model.modules():
            name = next((name for name, child in head.named_children() if child is base), None)
            first_token = family.computes(original_class(head), family.first_token_heads)
            if name is not None and (first_token or family.computes(original_class(head), family.token_heads)):
                attach_state(head, HeadState(name, first_token))
        attach_state(base, state)


def _check_training(precision: Precision, release_weights: bool) -> None:
    for dtype in (precision.dtype, *(dtype for _, dtype in precision.keep)):
        if dtype != torch.float32:
            raise ValueError(f"dtype: expected torch.float32 with training=True, whose weights change, got {dtype}")
    if release_weights:
        raise ValueError("release_weights: expected False with training=True, which needs the originals, got True")


def _check_options(bases: list[tuple[nn.Module, Family]], precision: Precision, release_weights: bool) -> None:
    on_cuda = any(_is_on_cuda(base) for base, _ in bases)
    if on_cuda and precision.dtype not in FLOATS:
        raise ValueError(f"dtype: expected {' or '.join(map(str, FLOATS))} on CUDA, got {precision.dtype}")
    if on_cuda and precision.keep:
        raise ValueError("keep: expected None for a model on CUDA, which computes in one dtype, got names")
    if on_cuda and release_weights:
        raise ValueError("release_weights: expected False for a model on CUDA, whose weights are not packed, got True")
    for base, family in bases:
        precision.check(len(_layers(base, family)), getattr(base, "pooler", None) is not None)
    if release_weights and precision.dtypes != {torch.float32}:
        dtype = next(dtype for dtype in (precision.dtype, *precision.dtypes) if dtype != torch.float32)
        raise ValueError(
            f"release_weights: expected False with dtype={dtype}, whose packed weights are rounded, got True"
        )


def _layers(base: nn.Module, family: Family) -> Any:
    try:
        return base.get_submodule(family.layers)
    except AttributeError:  # whoever took them away; the model will be declined
        return ()


def _is_on_cuda(base: nn.Module) -> bool:
    return any(parameter.is_cuda for parameter in base.parameters())


def _check_forwards(model: nn.Module) -> None:
    for module in model.modules():
        known = any(
            family.computes(original_class(module), (family.base, *family.first_token_heads, *family.token_heads))
            for family in FAMILIES
        )
        if known and "forward" in vars(module):
            raise ValueError(
                f"model: expected modules with the forward of their class, got a {type(module).__name__} whose "
                "forward was replaced; undo that first"
            )


def _check_shared(base: nn.Module) -> None:
    """Raises ValueError where another model has layers of `base`: released, they would read as NaN there."""
    inside = {id(module) for module in base.modules()}
    below = inside - {id(base)}
    for module in gc.get_objects():
        if issubclass(type(module), nn.Module) and id(module) not in inside:
            children = vars(module).get("_modules", {}).values()
            if any(id(child) in below for child in children):
                raise ValueError(
                    f"release_weights: expected a {type(base).__name__} whose modules are its own, got one that shares "
                    f"some with a {type(module).__name__}"
                )


def _only_scalar() -> bool:
    return _native.isas() == ["scalar"] and "SQUEEZEBERT_FORCE_ISA" not in os.environ


def bases_of(model: nn.Module) -> Iterator[tuple[nn.Module, Family]]:
    """The base models in `model` and their families."""
    for module in model.modules():
        for family in FAMILIES:
            if family.computes(original_class(module), (family.base,)):
                yield module, family
