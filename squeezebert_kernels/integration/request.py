"""What is asked of a base model, and whether the kernels can serve it: what says no raises Declined, and why."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..padding import RealTokens, real_tokens

# Arguments of the base model that the fast path understands, or need not; any other goes to the original forward.
_KNOWN = frozenset(
    [
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "position_ids",
        "inputs_embeds",
        "return_dict",
        "use_cache",
        "num_items_in_batch",
    ]
)
# What configs call what they record, by transformers' version; as an argument, without the underscore.
_RECORDING = ("output_hidden_states", "_output_attentions", "output_attentions")
_RECORDED = frozenset(name.removeprefix("_") for name in _RECORDING)
TRAINING = "training mode"


class Declined(Exception):
    """The fast path cannot serve this request. The message says why; the caller takes the original path."""


@functools.cache
def _arguments_of(model_class: Any) -> tuple[list[str], bool, frozenset[str]]:
    """Of its forward: the names that it takes, in order; whether it takes others by keyword; what of them is known."""
    parameters = list(inspect.signature(model_class.forward).parameters.values())[1:]
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return names, takes_more, _KNOWN if takes_more else _KNOWN.intersection(names)


def by_name(module: Any, model_class: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name. Raises Declined for those that do not fit or are not known, and where something of the
    original is to be recorded."""
    names, takes_more, known = _arguments_of(model_class)
    request = {**dict(zip(names, args, strict=False)), **kwargs} if args else kwargs
    if len(request) != len(args) + len(kwargs):
        raise Declined("arguments that do not fit the signature")
    if not known.issuperset(request):
        for name, value in request.items():
            idle = value is None or (name in _RECORDED and value is False)
            if name not in known and not (idle and (takes_more or name in names)):
                raise Declined(name)
    config = vars(module.config)
    for name in _RECORDING:
        if config.get(name) and request.get(name.removeprefix("_")) is None:
            raise Declined(f"config.{name.removeprefix('_')}")
    if module.training:
        raise Declined(TRAINING)
    return request


def wants_dict(module: Any, request: dict[str, Any]) -> bool:
    return_dict = request.get("return_dict")
    return vars(module.config).get("return_dict", True) if return_dict is None else return_dict


def check_surroundings() -> None:
    """Nothing but the results of the original is to be seen or differentiated."""
    if torch.jit.is_tracing():
        raise Declined("tracing")
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        raise Declined("a transform of torch.func, or forward-mode differentiation")
    if torch._C._len_torch_dispatch_stack():
        raise Declined("a TorchDispatchMode, which is to see the model's own operators")


def check_mode(binding: Any, request: dict[str, Any]) -> None:
    """The bypassed modules do nothing but compute, in the model's own dtype, and no gradient is wanted."""
    reading = binding.reading
    if reading.in_training():
        raise Declined("a dropout is in training mode")
    if reading.hooked():
        raise Declined("a hook listens to a bypassed module")
    if torch.is_autocast_enabled(binding.device_type):
        raise Declined("autocast")
    if torch.is_grad_enabled():
        embeds = request.get("inputs_embeds")
        if reading.requires_grad() or (isinstance(embeds, Tensor) and embeds.requires_grad):
            raise Declined("gradients are wanted; call it under torch.no_grad() or torch.inference_mode()")


def check_given(request: dict[str, Any], device: torch.device) -> None:
    """The tensors are of the kinds and shapes that the kernels take, on `device`."""
    ids: Any = request.get("input_ids")
    embeds: Any = request.get("inputs_embeds")
    if (ids is None) == (embeds is None):
        raise Declined("input_ids and inputs_embeds")
    given = ids if embeds is None else embeds
    if type(given) is not Tensor or given.device != device or not given.numel():
        raise Declined(f"an input that is no tensor on {device}, or an empty batch")
    if ids is None:
        if embeds.dim() != 3 or not embeds.dtype.is_floating_point:
            raise Declined("inputs_embeds: not floating point [N, S, C]")
    elif ids.dim() != 2 or not _are_ids(ids):
        raise Declined("input_ids: not integers [N, S]")
    for name in ("token_type_ids", "position_ids"):
        values = request.get(name)
        if values is not None and not (
            type(values) is Tensor
            and _are_ids(values)
            and values.device == device
            and values.shape in (given.shape[:2], (1, given.shape[1]), (given.shape[1],))
        ):
            raise Declined(f"{name}: not integers like input_ids")


def tokens_of(attention_mask: Any, shape: tuple[int, ...]) -> RealTokens | None:
    """The real tokens that a mask leaves, None where it masks nothing."""
    try:
        return real_tokens(attention_mask, shape)
    except ValueError as error:
        raise Declined(str(error)) from error


def warn_about_padding(module: Any, request: dict[str, Any]) -> None:
    """transformers' own warning of padding without a mask, without its cost when there is nothing to warn of."""
    pad, ids = module.config.pad_token_id, request.get("input_ids")
    if pad is None or ids is None or request.get("attention_mask") is not None or ids.is_cuda:
        return
    if (ids.numpy()[:, :: max(ids.shape[1] - 1, 1)] == pad).any():
        module.warn_if_padding_and_no_attention_mask(ids, None)


def _are_ids(ids: Tensor) -> bool:
    return ids.dtype in (torch.int64, torch.int32)
