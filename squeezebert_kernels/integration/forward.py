"""BaseForward and HeadForward: what `optimize` puts in the place of a model's `forward`.

A BaseForward serves the base model (embeddings, encoder, pooler) with three operator calls, or hands the request,
untouched, to the original forward. A HeadForward runs a task head's original forward and tells the base below it how
little that head reads.
"""

from __future__ import annotations

import inspect
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from . import compiled
from .architectures import Family
from .binding import Binding
from .padding import Declined, RealTokens, real_tokens

logger = logging.getLogger("squeezebert_kernels")

# Arguments of the base model that the fast path understands; any other that is given goes to the original forward.
_SERVED = frozenset(
    {"input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds", "return_dict", "use_cache"}
)
_TRACED = _SERVED - {"inputs_embeds"}
_RECORDED = ("output_attentions", "output_hidden_states")
_INPUTS = 5  # every head takes the base's five inputs before its labels
_LABELS = ("labels", "start_positions", "end_positions")

_RELEASED = "the weights of this model were released (optimize(..., release_weights=True))"

# What a head wants of its base: (the first token only, values at padded positions too).
_EVERYTHING = (False, False)

# Of the head that is running on this thread: its BaseForward and what it wants.
_wanted = threading.local()


class _Forward:
    """A callable that stands in for `module.forward`, with its signature. Copies and pickles along with the module."""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module

    @property
    def original(self) -> Callable[..., Any]:
        return partial(type(self.module).forward, self.module)  # not __get__: Dynamo of torch 2.10 cannot trace that

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.original)

    @property
    def __code__(self) -> CodeType:  # torch.export reports where a forward was written
        return inspect.unwrap(type(self.module).forward).__code__

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name. Raises Declined where they do not fit: the original forward then says so."""
        if not args:
            return kwargs
        names = _positional_names(type(self.module))
        request = {**dict(zip(names, args, strict=False)), **kwargs}
        if len(request) != len(args) + len(kwargs):
            raise Declined("arguments that do not fit the signature")
        return request


class HeadForward(_Forward):
    """The forward of a task head over `base`. first_token: the head reads nothing but the pooled output."""

    def __init__(self, module: nn.Module, base: BaseForward, first_token: bool) -> None:
        super().__init__(module)
        self._base = base
        self._first_token = first_token

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # A loss may count padded positions too: they must then be computed, not left out.
        labelled = any(value is not None for value in args[_INPUTS:]) or any(
            kwargs.get(name) is not None for name in _LABELS
        )
        all_positions = labelled and not self._first_token
        if torch.compiler.is_compiling():
            return self._trace(all_positions, *args, **kwargs)
        with self._base.wanting(self._first_token, all_positions):
            return self.original(*args, **kwargs)

    def _trace(self, all_positions: bool, *args: Any, **kwargs: Any) -> Any:
        self._base.traced_for = (self._first_token, all_positions)
        try:
            return self.original(*args, **kwargs)
        finally:
            self._base.traced_for = _EVERYTHING


class BaseForward(_Forward):
    """The forward of a base model of `family`; release_weights and dtype: as in `optimize`."""

    device_type = "cpu"

    def __init__(self, module: nn.Module, family: Family, release_weights: bool, dtype: torch.dtype) -> None:
        super().__init__(module)
        self.family = family
        self._release_weights = release_weights
        self._dtype = dtype
        self._start()

    def _start(self) -> None:
        self._output_class = self.family.output_class()
        self._names = _positional_names(type(self.module))
        parameters = inspect.signature(self.original).parameters.values()
        self._takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        self.traced_for = _EVERYTHING
        self.handle = compiled.register(self)
        self._binding: Binding | None = None
        self._lock = threading.RLock()
        self._hooks: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        if self._released:
            raise TypeError(
                f"{_RELEASED}: call restore(model) before copying or pickling it, or save it with save_pretrained"
            )
        return {"module": self.module, "family": self.family, "_release_weights": False, "_dtype": self._dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return self._trace(*args, **kwargs)
        try:
            return self._serve(self._by_name(args, kwargs))
        except Declined as declined:
            logger.debug("original path: %s", declined)
        with self._readable():
            return self.original(*args, **kwargs)

    @contextmanager
    def wanting(self, first_token: bool, all_positions: bool) -> Iterator[None]:
        """Inside the block, this thread's calls of this forward are for a head that wants just that."""
        outer = getattr(_wanted, "now", (self, _EVERYTHING))
        _wanted.now = (self, (first_token, all_positions))
        try:
            yield
        finally:
            _wanted.now = outer

    def bind(self) -> Binding:
        """The model in the operators' form, bound and packed anew where it has changed. Raises Declined."""
        binding = self._binding
        if binding is None or not binding.holds():
            with self._lock:
                binding = self._binding
                if binding is None or not binding.holds():
                    self._check_rebinding(binding)
                    self.restore_weights()
                    self._binding = None
                    self._binding = binding = self._bind_anew()
        binding.packed.refresh()
        if self._release_weights and not binding.packed.released:
            self._release(binding)
        return binding

    def _check_rebinding(self, binding: Binding | None) -> None:
        """Raises Declined where this is no time to let go of `binding` and make another."""

    def _bind_anew(self) -> Binding:
        return Binding(self.module, self.family, self._dtype)

    def restore_weights(self) -> None:
        """Undoes `release_weights` until the model is bound again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._binding is not None:
            self._binding.packed.reclaim()

    @property
    def _released(self) -> bool:
        return self._binding is not None and self._binding.packed.released

    def _release(self, binding: Binding) -> None:
        binding.packed.release()
        if not self._hooks:
            self._hooks = [
                # torch sets an attribute on this hook, which a method does not take: hence the partial.
                self.module.register_state_dict_post_hook(partial(self._fill_state_dict)),
                self.module.register_load_state_dict_pre_hook(self._reclaim),
            ]

    def _fill_state_dict(self, module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        """Puts the values of the released weights into a state_dict."""
        assert self._binding is not None
        packed = self._binding.packed
        positions = {id(linear.weight): index for index, linear in enumerate(packed.linears)}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if id(parameter) in positions and prefix + name in state:
                state[prefix + name] = packed.unpack(positions[id(parameter)])

    def _reclaim(self, module: nn.Module, *args: Any) -> None:
        """Makes room for the weights that a state_dict brings."""
        assert self._binding is not None
        self._binding.packed.reclaim()

    def _readable(self) -> Any:
        """A context in which the original forward finds its weights."""
        if not self._released:
            return nullcontext()
        assert self._binding is not None
        if torch.is_grad_enabled():  # a graph would keep the weights that are taken away again
            raise RuntimeError(
                f"{_RELEASED}, so no gradient flows through them: call restore(model) first, or torch.no_grad()"
            )
        return self._binding.packed.reclaimed()

    def _serve(self, request: dict[str, Any]) -> Any:
        config = self.module.config
        for name, value in request.items():
            if value is not None and name not in _SERVED and not (name in _RECORDED and value is False):
                raise Declined(name)
            if name not in self._names and not self._takes_more:
                raise Declined(f"{name} is no argument of {type(self.module).__name__}")
        for name in _RECORDED:
            if request.get(name) is None and getattr(config, name, False):
                raise Declined(f"config.{name}")
        if self.module.training:
            raise Declined("training mode")
        if torch.is_autocast_enabled(self.device_type):
            raise Declined("autocast")
        if torch.jit.is_tracing():
            raise Declined("tracing")
        binding = self.bind()
        binding.check_quiet()
        if torch.is_grad_enabled() and binding.requires_grad():
            _advise_no_grad()
            raise Declined("gradients are wanted")
        return_dict = request.get("return_dict")
        if return_dict is None:
            return_dict = getattr(config, "return_dict", True)
        if not return_dict and binding.pooler is None:
            raise Declined("a tuple without pooled output")  # which has one element or two, by transformers' version
        hidden, pooled = self._compute(binding, request)
        return self._output(hidden, pooled, return_dict)

    def _output(self, hidden: Tensor, pooled: Tensor | None, return_dict: bool) -> Any:
        if return_dict:
            return self._output_class(last_hidden_state=hidden, pooler_output=pooled)
        return hidden, pooled

    def _compute(self, binding: Binding, request: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Last hidden state [N, S, C] ([N, 1, C] when only the first token is wanted) and pooled output [N, C]."""
        first_token, all_positions = self._wants()
        given = self._given(request)
        shape = (given.shape[0], given.shape[1])
        attention_mask: Any = request.get("attention_mask")
        tokens = None if attention_mask is None else real_tokens(attention_mask, shape)
        mask = None
        if tokens is not None and (all_positions or (binding.pooler is not None and not tokens.first_is_real)):
            # Someone reads a padded position: compute them all, as the original does.
            tokens, mask = None, attention_mask.bool()[:, None, None, :]
        rows = torch.ops.squeezebert.encoder.default(
            self._embed(binding, request, tokens),
            binding.params,
            binding.num_heads,
            binding.groups,
            binding.eps,
            mask,
            None if tokens is None else tokens.cu_seqlens,
            first_token,
        )
        if first_token:
            rows, tokens = rows.unsqueeze(1), None
        hidden = rows if tokens is None else tokens.put_back(rows)
        if binding.pooler is None:
            return hidden, None
        pooled = torch.ops.squeezebert.grouped_conv1x1.default(hidden[:, 0], *binding.pooler, 1)
        return hidden, pooled.tanh_()

    def _wants(self) -> tuple[bool, bool]:
        """What the head that is calling, if any, reads: (the first token only, values at padded positions too)."""
        base, wanted = getattr(_wanted, "now", (self, _EVERYTHING))
        return wanted if base is self else _EVERYTHING

    def _trace(self, *args: Any, **kwargs: Any) -> Any:
        """What torch.compile sees: one operator where the fast path may serve, the original forward elsewhere."""
        request: dict[str, Any] = {**dict(zip(self._names, args, strict=False)), **kwargs}
        config = self.module.config
        ids = request.get("input_ids")
        return_dict = request.get("return_dict")
        if return_dict is None:
            return_dict = getattr(config, "return_dict", True)
        has_pooler = self.module.pooler is not None
        if (
            torch.compiler._is_exporting_flag  # is_exporting() itself is always True to torch 2.10's Dynamo
            or len(args) + len(kwargs) != len(request)
            or ids is None
            or not (return_dict or has_pooler)
            or any(v is not None and v is not False and k not in _TRACED for k, v in request.items())
            or not (self._takes_more or set(self._names).issuperset(request))
            or any(request.get(k) is None and getattr(config, k, False) for k in _RECORDED)
            or self.module.training
            or torch.is_autocast_enabled("cpu")
            or any(p.dtype != torch.float32 or p.device.type != "cpu" for p in self.module.parameters())
            or (torch.is_grad_enabled() and any(p.requires_grad for p in self.module.parameters()))
        ):
            return self.original(*args, **kwargs)
        hidden, pooled = compiled.base_model(
            self.handle,
            ids,
            request.get("attention_mask"),
            request.get("token_type_ids"),
            request.get("position_ids"),
            config.hidden_size,
            has_pooler,
            *self.traced_for,
        )
        return self._output(hidden, pooled if has_pooler else None, return_dict)

    def _given(self, request: dict[str, Any]) -> Tensor:
        """input_ids or inputs_embeds, whichever was given, when the kernels can take it."""
        ids: Any = request.get("input_ids")
        embeds: Any = request.get("inputs_embeds")
        if (ids is None) == (embeds is None):
            raise Declined("input_ids and inputs_embeds")
        if ids is not None:
            if not _is_ids(ids) or ids.dim() != 2:
                raise Declined("input_ids: not integers [N, S] on the CPU")
            if request.get("attention_mask") is None and self.family.warns_about_padding:
                self._warn_about_padding(ids)
        elif type(embeds) is not Tensor or embeds.device.type != "cpu" or embeds.dtype != torch.float32:
            raise Declined("inputs_embeds: not float32 on the CPU")
        elif embeds.dim() != 3 or (embeds.requires_grad and torch.is_grad_enabled()):
            raise Declined("inputs_embeds: not [N, S, C], or a gradient is wanted")
        given: Tensor = ids if ids is not None else embeds
        if not given.numel():
            raise Declined("an empty batch")
        return given

    def _embed(self, binding: Binding, request: dict[str, Any], tokens: RealTokens | None) -> Tensor:
        """The embeddings' output: [N, S, C], or of the real tokens only [T, C]."""
        embeds = request.get("inputs_embeds")
        if embeds is not None:
            hidden = self.module.embeddings(
                inputs_embeds=embeds,
                token_type_ids=request.get("token_type_ids"),
                position_ids=request.get("position_ids"),
            )
            return hidden if tokens is None else tokens.take(hidden)
        ids = request["input_ids"]
        types = _expanded(request, "token_type_ids", ids)
        positions = _expanded(request, "position_ids", ids)
        if tokens is not None:
            ids = tokens.take(ids)
            types = None if types is None else tokens.take(types)
            positions = tokens.positions if positions is None else tokens.take(positions)
        return torch.ops.squeezebert.embedding_layer_norm.default(ids, types, positions, *binding.embedding)

    def _warn_about_padding(self, ids: Tensor) -> None:
        """transformers' own warning of padding without a mask, without its cost when there is nothing to warn of."""
        pad = self.module.config.pad_token_id
        if pad is not None and (ids.numpy()[:, :: max(ids.shape[1] - 1, 1)] == pad).any():
            self.module.warn_if_padding_and_no_attention_mask(ids, None)


def _positional_names(model_class: type[nn.Module]) -> list[str]:
    if model_class not in _names:
        parameters = list(inspect.signature(model_class.forward).parameters.values())[1:]
        _names[model_class] = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return _names[model_class]


_names: dict[type[nn.Module], list[str]] = {}


def _is_ids(ids: Any) -> bool:
    return type(ids) is Tensor and ids.device.type == "cpu" and ids.dtype in (torch.int64, torch.int32)


def _expanded(request: dict[str, Any], name: str, ids: Tensor) -> Tensor | None:
    """The ids given as `name`, in the shape of `ids`."""
    values = request.get(name)
    if values is None or (_is_ids(values) and values.shape == ids.shape):
        return values
    if not _is_ids(values) or values.shape != (1, ids.shape[1]):
        raise Declined(f"{name}: not integers like input_ids")
    return values.expand(ids.shape)


def _advise_no_grad() -> None:
    warnings.warn(
        "this optimized model was called with gradients enabled, so it takes its original, slower path: call it under "
        "torch.no_grad() or torch.inference_mode()",
        stacklevel=6,
    )
