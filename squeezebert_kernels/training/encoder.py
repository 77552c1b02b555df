"""What the forward of an encoder does that is optimized for training: a node of autograd for each layer."""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from typing import Any

import torch
from torch import Tensor

from ..integration.architectures import Family
from ..ops import encoder_layer_training
from .padding import packing_of
from .reading import TrainedLayer, Untrainable, read_layers

logger = logging.getLogger("squeezebert_kernels")

_IGNORED_LABEL = -100
_IDLE = ("return_dict", "use_cache", "num_items_in_batch", "position_ids", "cache_position")


class EncoderState:
    """Of an encoder of `family`. recompute, keep_padding: as in `optimize`."""

    def __init__(self, family: Family, recompute: bool, keep_padding: bool) -> None:
        self.options = (family, recompute, keep_padding)
        self._family, self._recompute = family, recompute
        self.keep_padding = keep_padding
        self.has_warned = False

    def adopt(self, module: Any) -> None:
        """Nothing of `module` is kept."""

    def __call__(self, module: Any, called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            hidden, mask, return_dict = _request(called, args, kwargs)
            layers = read_layers(module, self._family)
        except Untrainable as reason:
            self._tell(module, str(reason))
            return called.forward(module, *args, **kwargs)
        output = self.run(hidden, mask, layers)
        if return_dict is False:
            return (output,)
        return _output_class(called)(last_hidden_state=output)

    def run(self, hidden: Tensor, mask: Tensor | None, layers: list[TrainedLayer]) -> Tensor:
        """The last hidden state [N, S, C]."""
        packing = None
        if mask is not None and not self.keep_padding and not torch.compiler.is_compiling():
            packing = packing_of(mask)
        cu_seqlens = None
        if packing is not None:
            mask, cu_seqlens = None, packing.cu_seqlens
        elif mask is not None and mask.dim() == 2:
            mask = mask.bool()[:, None, None]
        elif mask is not None and mask.dtype != torch.bool:
            mask = mask.float()
        rows = hidden.float() if packing is None else packing.take(hidden.float())
        seeds: Any = [None] * len(layers)
        if any(layer.hidden_dropout or layer.attention_dropout for layer in layers):
            seeds = torch.randint(-(2**63), 2**63 - 1, (len(layers),)).unbind()
        keeps_nothing = not torch.is_grad_enabled()
        for layer, seed in zip(layers, seeds, strict=True):
            rows = encoder_layer_training(
                rows,
                layer.params,
                layer.heads,
                layer.groups,
                layer.eps,
                mask,
                cu_seqlens,
                layer.hidden_dropout,
                layer.attention_dropout,
                seed,
                self._recompute or layer.recompute or keeps_nothing,
            )
        return rows if packing is None else packing.put_back(rows, hidden)

    def _tell(self, module: Any, reason: str) -> None:
        logger.debug("original path: %s", reason)
        if not self.has_warned:
            self.has_warned = True
            warnings.warn(
                f"a {type(module).__name__} optimized for training took its original, slower path: {reason} (said "
                "once)",
                stacklevel=6,
            )


class TokenHeadState:
    """Of a head over every token, whose loss may count padded positions: they are then computed, not left out.

    path: that of the encoder below it.
    """

    def __init__(self, path: str) -> None:
        self.options = (path,)
        self._path = path

    def adopt(self, module: Any) -> None:
        """Nothing of `module` is kept."""

    def __call__(self, module: Any, called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        state = vars(module.get_submodule(self._path)).get("_squeezebert")
        if not isinstance(state, EncoderState) or torch.compiler.is_compiling():
            return called.forward(module, *args, **kwargs)
        given = inspect.signature(called.forward).bind(module, *args, **kwargs).arguments
        before, state.keep_padding = state.keep_padding, state.keep_padding or _counts_padding(given)
        try:
            return called.forward(module, *args, **kwargs)
        finally:
            state.keep_padding = before


def _counts_padding(given: dict[str, Any]) -> bool:
    """A loss is wanted whose sum runs over positions that the attention mask hides."""
    if given.get("start_positions") is not None:  # a softmax over all positions
        return True
    labels, mask = given.get("labels"), given.get("attention_mask")
    if labels is None or mask is None:
        return False
    if labels.shape != mask.shape:
        return True
    return bool(((labels != _IGNORED_LABEL) & (mask == 0)).any())


def _request(called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | None, Any]:
    """Hidden states, mask and return_dict. Raises Untrainable where something else is asked for."""
    bound = inspect.signature(called.forward).bind(None, *args, **kwargs).arguments
    given = {name: value for name, value in bound.items() if name not in ("self", "kwargs")} | bound.get("kwargs", {})
    hidden, mask = given.pop("hidden_states"), given.pop("attention_mask", None)
    return_dict = given.get("return_dict")
    for name, value in given.items():
        if value is not None and value is not False and name not in _IDLE:
            raise Untrainable(name)
    if not isinstance(hidden, Tensor) or hidden.dim() != 3 or hidden.device.type != "cpu":
        raise Untrainable("hidden states that are no batch on the CPU")
    if mask is not None and not isinstance(mask, Tensor):
        raise Untrainable(f"an attention mask of class {type(mask).__name__}")
    return hidden, mask, return_dict


def _output_class(called: Any) -> Any:
    names = vars(sys.modules[called.__module__])
    return names.get("BaseModelOutputWithPastAndCrossAttentions") or names["BaseModelOutput"]
