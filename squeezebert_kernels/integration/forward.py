"""What an optimized module's forward does: it serves what the kernels can, and hands on the rest.

A BaseState belongs to a base model (embeddings, encoder, pooler), whose requests are three operator calls or go,
untouched, to the original forward; a HeadState to a task head, and tells the base below it how little that head reads.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks

from .. import opaque
from ..precision import Precision
from . import self_test
from .architectures import Family
from .binding import Binding
from .reading import Reading
from .request import (
    TRAINING,
    Declined,
    by_name,
    check_given,
    check_mode,
    check_surroundings,
    wants_dict,
    warn_about_padding,
)

logger = logging.getLogger("squeezebert_kernels")

STATE = "_squeezebert"
ORIGINAL = "_squeezebert_original"
NOT_CALLED = "it was not called"

_INPUTS = 5  # every head takes the base's five inputs before its labels
_LABELS = ("labels", "start_positions", "end_positions", "next_sentence_label")


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class that `module` has, or had before it was optimized."""
    return getattr(type(module), ORIGINAL, type(module))


class HeadState:
    """Of a task head over its child `base`. first_token: the head reads nothing but the pooled output."""

    def __init__(self, base: str, first_token: bool) -> None:
        self.options = (base, first_token)
        self._base, self._first_token = base, first_token

    def adopt(self, module: nn.Module) -> None:
        """Nothing of `module` is kept."""

    def __call__(self, module: Any, called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        base = getattr(module, self._base)
        state = getattr(base, STATE, None)
        if state is None:
            return called.forward(module, *args, **kwargs)
        # A loss may count padded positions too: they must then be computed, not left out.
        labelled = any(value is not None for value in args[_INPUTS:]) or any(
            kwargs.get(name) is not None for name in _LABELS
        )
        # Someone who listens to the base model is to see what it always gives.
        first_token = self._first_token and not base._forward_hooks and not _global_forward_hooks
        wanted = (first_token, labelled and not self._first_token)
        if not torch.compiler.is_compiling():
            with state.wanting(wanted):
                return called.forward(module, *args, **kwargs)
        state.traced_for = wanted
        try:
            return called.forward(module, *args, **kwargs)
        finally:
            state.traced_for = _EVERYTHING


_EVERYTHING = (False, False)  # what is wanted of a base: the first token only, values at padded positions too


class BaseState:
    """Of a base model of `family`; precision, keep_padding: as in `optimize`."""

    def __init__(self, family: Family, precision: Precision, keep_padding: bool) -> None:
        self.options = (family, precision, keep_padding)
        self.family, self.precision, self._keep_padding = family, precision, keep_padding
        self._output_class = family.output_class()
        self._handle = -1
        self.traced_for = _EVERYTHING
        self._wanted = threading.local()
        self._binding: Any = None
        self._refused: tuple[Reading, str] | None = None
        self._lock = threading.RLock()
        self._successor: BaseState | None = None
        self.has_warned = False
        self.declined: str | None = NOT_CALLED  # why the last call took the original path; None: it did not

    def adopt(self, module: nn.Module) -> None:
        """`module` is the one that this state belongs to."""
        self._handle = opaque.register(module)

    def __call__(self, module: Any, called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.compiler.is_compiling():
            return self._trace(module, called, args, kwargs)
        try:
            outputs = self._serve(module, called, args, kwargs)
        except Declined as declined:
            self._tell(module, str(declined))
        else:
            self.declined = None
            return outputs
        return called.forward(module, *args, **kwargs)

    @contextmanager
    def wanting(self, wanted: tuple[bool, bool]) -> Iterator[None]:
        """Inside the block, this thread's calls are for a head that wants just that."""
        outer = getattr(self._wanted, "now", _EVERYTHING)
        self._wanted.now = wanted
        try:
            yield
        finally:
            self._wanted.now = outer

    # ---- the binding, and its weights --------------------------------------------------------------------------------

    def bind(self, module: nn.Module) -> Any:
        """The model in the operators' form, read, packed and tested anew where it has changed. Raises Declined."""
        binding = self._binding
        if binding is not None and binding.holds() and binding.is_fresh():
            return binding
        with self._lock:
            if self._successor is not None:
                return self._successor.bind(module)
            binding = self._binding
            if binding is None or not binding.holds():
                return self._bind_anew(module)
            if binding.refresh() and not binding.reading.keeps_dtypes():
                return self._bind_anew(module)
            return binding

    @contextmanager
    def succeeded_by(self, state: BaseState) -> Iterator[None]:
        """Gives the weights back, and lets other threads' calls read none inside the block; after it, `state` serves
        those that were still on their way through this one."""
        with self._lock:
            self.give_back()
            yield
            self._successor = state

    def _bind_anew(self, module: nn.Module) -> Any:
        device = next(module.parameters()).device
        kind = _binding_on(device)
        kind.check_time(device)
        if self._refused is not None and self._refused[0].refused_still():
            raise Declined(self._refused[1])
        self.give_back()
        previous, self._binding = self._binding, None
        called: Any = original_class(module)
        reading = Reading(module, called, self.family, self.precision)
        try:
            reading.read()
            binding = kind(reading, self.precision.dtype, previous if type(previous) is kind else None)
            if previous is None or not (previous.reading.same_modules() and previous.reading.keeps_dtypes()):
                self_test.check(module, called.forward, binding, self.precision)
            else:  # other parameters in the same modules
                binding.output_dtype = previous.output_dtype
        except Declined as declined:
            reading.refuse()
            self._refused = (reading, str(declined))
            raise
        self._binding = binding
        return binding

    @property
    def released(self) -> bool:
        if self._successor is not None:
            return self._successor.released
        return self._binding is not None and self._binding.packed.released

    def refresh(self) -> None:
        """Packs every weight anew, and tests a model that was declined once more."""
        with self._lock:
            self._refused = None
            if self._binding is not None:
                self._binding.refresh(everything=True)

    def release(self) -> None:
        """Frees the originals of the packed weights."""
        with self._lock:
            if self._binding is not None:
                self._binding.packed.release()

    def released_weights(self) -> dict[int, Tensor]:
        """The values of the released weights, by the id of their parameter."""
        return self._binding.packed.released_weights() if self.released else {}

    def give_back(self) -> None:
        """The released weights get their values back, for good."""
        with self._lock:
            if self.released:
                self._binding.packed.give_back()

    def forget(self) -> None:
        """The next call reads the model anew."""
        with self._lock:
            self._binding = self._refused = None

    # ---- a call ------------------------------------------------------------------------------------------------------

    def _serve(self, module: Any, called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = by_name(module, called, args, kwargs)
        check_surroundings()
        binding = self.bind(module)
        check_mode(binding, request)
        check_given(request, binding.device)
        if self.family.warns_about_padding:
            warn_about_padding(module, request)
        return_dict = wants_dict(module, request)
        if not return_dict and not binding.has_pooler:
            raise Declined("a tuple without pooled output")  # which has one element or two, by transformers' version
        first_token, all_positions = getattr(self._wanted, "now", _EVERYTHING)
        hidden, pooled = binding.compute(module, request, first_token, all_positions or self._keep_padding)
        return self._output(hidden, pooled, return_dict)

    def _output(self, hidden: Tensor, pooled: Tensor | None, return_dict: bool) -> Any:
        if return_dict:
            return self._output_class(last_hidden_state=hidden, pooler_output=pooled)
        return hidden, pooled

    def _tell(self, module: nn.Module, reason: str) -> None:
        """The log, and the first time a warning, says why a call takes the original path."""
        if self.released:
            raise RuntimeError(
                f"the weights of this model were released (optimize(..., release_weights=True)), and this call needs "
                f"them ({reason}): call restore(model) first"
            )
        self.declined = reason
        logger.debug("original path: %s", reason)
        if reason != TRAINING and not self.has_warned:
            self.has_warned = True
            warnings.warn(
                f"an optimized {type(module).__name__} took its original, slower path: {reason} (said once; "
                "squeezebert_kernels.explain(model, **batch) tells of any call)",
                stacklevel=7,
            )

    def _trace(self, module: Any, called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What torch.compile sees: one operator where the fast path may serve, the original forward elsewhere."""
        try:
            request = by_name(module, called, args, kwargs)
        except Declined:
            return called.forward(module, *args, **kwargs)
        return_dict, has_pooler = wants_dict(module, request), module.pooler is not None
        parameters = list(module.parameters())
        dtype = module.embeddings.word_embeddings.weight.dtype
        if (
            torch.compiler._is_exporting_flag  # is_exporting() itself is always True to torch 2.10's Dynamo
            or request.get("input_ids") is None
            or request.get("inputs_embeds") is not None
            or not (return_dict or has_pooler)
            or torch.is_autocast_enabled("cpu")
            or any(p.dtype != dtype or p.device.type != "cpu" for p in parameters)
            or (torch.is_grad_enabled() and any(p.requires_grad for p in parameters))
        ):
            return called.forward(module, *args, **kwargs)
        names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
        outputs = opaque.call(self._handle, [request.get(name) for name in names], [*self.traced_for])
        return self._output(outputs[0], outputs[1] if has_pooler else None, return_dict)

    def opaque_call(self, module: Any, tensors: Sequence[Tensor | None], flags: Sequence[bool]) -> list[Tensor]:
        """The last hidden state [N, S, C] and, where there is a pooler, its output, of what `_trace` hands over."""
        ids, mask, types, positions = tensors
        with self.wanting((flags[0], flags[1])):
            outputs = module.forward(input_ids=ids, attention_mask=mask, token_type_ids=types, position_ids=positions)
        hidden, pooled = self_test.hidden_and_pooled(outputs)
        if flags[0]:
            hidden = hidden[:, :1]  # the original path computes the others too
        return [hidden] if pooled is None else [hidden, pooled]

    def opaque_like(self, module: Any, tensors: Sequence[Any], flags: Sequence[bool]) -> list[Tensor]:
        (count, length), channels = tensors[0].shape, module.config.hidden_size
        dtype = module.embeddings.word_embeddings.weight.dtype
        hidden = tensors[0].new_empty(count, 1 if flags[0] else length, channels, dtype=dtype)
        return [hidden] if module.pooler is None else [hidden, hidden.new_empty(count, channels)]


def _binding_on(device: torch.device) -> type[Any]:
    if device.type == "cpu":
        return Binding
    if device.type != "cuda":
        raise Declined(f"a model on {device}")
    from ..triton.forward import CudaBinding

    return CudaBinding
