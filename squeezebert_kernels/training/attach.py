"""Which encoders of a model run on the training kernels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..integration.architectures import FAMILIES, Family
from ..integration.classes import attach, detach
from ..integration.forward import original_class
from .encoder import EncoderState, TokenHeadState
from .reading import Untrainable, read_layers

# The encoder and the kernels may differ by half of float32's digits (integration/self_test.py says why).
_ALLOWED = torch.finfo(torch.float32).eps ** 0.5


def optimize_for_training(model: nn.Module, recompute: bool, keep_padding: bool) -> None:
    """Makes the encoders in `model` run on the kernels of `encoder_layer_training`, in place.

    Warns where one stays on its original path. Raises TypeError when `model` holds none.
    """
    for module in model.modules():
        detach(module)
    encoders = list(_encoders(model))
    if not encoders:
        raise TypeError(
            "model: expected a transformers SqueezeBERT or BERT model, or a module that holds one, got a "
            f"{type(model).__name__}"
        )
    for encoder, family in encoders:
        state = EncoderState(family, recompute, keep_padding)
        try:
            _check(encoder, family, state)
        except Untrainable as reason:
            warnings.warn(f"{type(encoder).__name__} stays on its original path: {reason}", stacklevel=3)
            continue
        attach(encoder, state)
        for head in model.modules():
            if family.computes(original_class(head), family.token_heads):
                path = next((path for path, module in head.named_modules() if module is encoder), None)
                if path is not None:
                    attach(head, TokenHeadState(path))


def _encoders(model: nn.Module) -> Iterator[tuple[nn.Module, Family]]:
    for module in model.modules():
        for family in FAMILIES:
            if family.computes(original_class(module), (family.base,)):
                encoder: Any = module.encoder
                if family.knows(type(encoder)) and family.modules[0].startswith("transformers."):
                    yield encoder, family


def _check(encoder: Any, family: Family, state: EncoderState) -> None:
    """Raises Untrainable unless both forwards give the same, without dropout, on two sequences, one of them padded."""
    modes = {module: module.training for module in encoder.modules()}
    with torch.no_grad(), torch.random.fork_rng([]), torch.autocast("cpu", enabled=False), torch.device("cpu"):
        encoder.eval()
        try:
            layers = read_layers(encoder, family)
            if not layers:
                raise Untrainable("an encoder without layers")
            if any(parameter.is_meta for parameter in encoder.parameters()):
                raise Untrainable("an encoder on meta: load its weights first")
            hidden = torch.randn(2, 4, layers[0].params[8].shape[0], generator=torch.Generator().manual_seed(0))
            mask = torch.zeros(2, 1, 1, 4)
            mask[1, ..., 2:] = torch.finfo(torch.float32).min
            theirs: Tensor = encoder(hidden, attention_mask=mask)[0]
            ours = state.run(hidden, mask, layers)
        finally:
            for module, mode in modes.items():
                module.training = mode
    real = mask[:, 0, 0] == 0
    difference = (ours - theirs)[real].abs().max() / theirs[real].abs().max().clamp_min(1.0)
    if not difference <= _ALLOWED:
        raise Untrainable(f"the kernels differ from it by {float(difference):.1e} of its largest output")
