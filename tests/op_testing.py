"""What the tests of the operators share: inputs, layouts, and the contracts that the operators keep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from derivative_testing import DerivativesContract
from exactness import exact, map_tensors, tensors
from squeezebert_kernels import _native, ops
from tolerances import narrow_weights_bound, size_of

# What a weight may be packed as beside float32.
NARROW = (torch.float16, torch.bfloat16)

# Around the edges of every register tile in use (6, 8, 12 and 14 rows, 16 and 32 lanes) and of a block of 128.
TOKEN_COUNTS = (0, 1, 2, 5, 6, 7, 8, 12, 13, 14, 15, 16, 17, 27, 28, 29, 30, 31, 32, 33, 127, 128, 129)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape)


def conv(out_channels: int, in_channels: int, groups: int, kernel_size: int | None = None) -> tuple[Tensor, Tensor]:
    """A weight that keeps the size of activations, and a bias. kernel_size None: the 2-D form."""
    fan_in = in_channels // groups * (kernel_size or 1)
    shape = (
        (out_channels, in_channels // groups)
        if kernel_size is None
        else (out_channels, in_channels // groups, kernel_size)
    )
    return randn(*shape) * fan_in**-0.5, randn(out_channels) * 0.3


def layer_norm(channels: int) -> tuple[Tensor, Tensor]:
    return 1.0 + randn(channels) * 0.3, randn(channels) * 0.3


def layer_params(channels: int, inner: int, groups: Sequence[int], layers: int = 1) -> list[Tensor]:
    """The `params` of `encoder`, with Conv1d-shaped weights, as Hugging Face's checkpoints have them."""
    params: list[Tensor] = []
    for _ in range(layers):
        for i in range(3):
            params += conv(channels, channels, groups[i], kernel_size=1)
        params += (*conv(channels, channels, groups[3], kernel_size=1), *layer_norm(channels))
        params += conv(inner, channels, groups[4], kernel_size=1)
        params += (*conv(channels, inner, groups[5], kernel_size=1), *layer_norm(channels))
    return params


def pack_params(params: Sequence[Tensor], groups: Sequence[int]) -> list[Tensor]:
    """`params` with its weights packed."""
    group_of_slot = {0: 0, 2: 1, 4: 2, 6: 3, 10: 4, 12: 5}
    return [
        ops.pack_grouped_conv1x1(param, groups[group_of_slot[i % 16]]) if i % 16 in group_of_slot else param
        for i, param in enumerate(params)
    ]


def layouts(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same values behind other strides: rows far apart, channels far apart, every second row, an odd offset."""
    yield "contiguous", tensor.contiguous()
    wide = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] + 5)
    wide[..., 2:-3] = tensor
    yield "rows far apart, offset by two", wide[..., 2:-3]
    yield "channels first", tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    doubled = tensor.repeat_interleave(2, dim=-1)
    yield "every second channel", doubled[..., ::2]
    if tensor.dim() > 1:
        yield "every second row", tensor.repeat_interleave(2, dim=-2)[..., ::2, :]
    if tensor.dim() > 2:
        yield "tokens first", tensor.transpose(0, 1).contiguous().transpose(0, 1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class OperatorContract(DerivativesContract):
    """The contract of one operator; each test_<op>.py derives from it.

    operator: the function of squeezebert_kernels.ops. reductions: the lengths of its chained reductions, for the bound.
    """

    @property
    def overload(self) -> Any:
        return getattr(torch.ops.squeezebert, self.operator.__name__).default

    def test_output_is_fresh_and_contiguous(self) -> None:
        arguments = self.arguments(7)
        before = map_tensors(Tensor.clone, arguments)
        output = self.call(arguments)
        assert output.is_contiguous()
        assert output.dtype == torch.float32
        assert not output.requires_grad
        for now, then in zip(tensors(arguments), tensors(before), strict=True):
            assert torch.equal(now, then)

    def test_thread_counts_give_the_same_bits(self) -> None:
        arguments = self.pack(self.arguments(33))
        outputs = []
        for count in (1, 2, 4):
            with threads(count):
                outputs.append(self.call(arguments))
        assert torch.equal(outputs[0], outputs[1])
        assert torch.equal(outputs[0], outputs[2])

    def test_opcheck(self) -> None:
        torch.library.opcheck(self.overload, tuple(self.differentiable(5).values()))

    def test_opcheck_of_the_backward(self) -> None:
        given = self.arguments(5)
        positional, needs_grad = [], []
        for argument in self.overload._schema.arguments:
            value = given.get(argument.name, argument.default_value)
            positional.append(value)
            if "Tensor" in str(argument.type):
                for tensor in value if isinstance(value, list) else [value]:
                    needs_grad.append(tensor is not None and tensor.is_floating_point())
        backward = getattr(torch.ops.squeezebert, f"{self.operator.__name__}_backward").default
        torch.library.opcheck(backward, (torch.randn_like(self.call(given)), *positional, needs_grad))

    def test_compile_with_dynamic_shapes(self) -> None:
        torch._dynamo.reset()
        compiled = torch.compile(type(self).operator, fullgraph=True, dynamic=True, backend="aot_eager")
        for tokens in (5, 9):
            arguments = self.differentiable(tokens)
            with torch._dynamo.config.patch(error_on_recompile=True):
                output = compiled(**arguments)
            assert torch.equal(output, self.call(arguments))
        output.sum().backward()
        gradients = [t.grad for t in tensors(arguments) if t.requires_grad]
        eager = torch.autograd.grad(self.call(arguments).sum(), [t for t in tensors(arguments) if t.requires_grad])
        for got, want in zip(gradients, eager, strict=True):
            assert torch.equal(got, want)

    def test_export(self) -> None:
        operator, arguments = type(self).operator, self.pack(self.arguments(5))
        rest = {name: value for name, value in arguments.items() if not isinstance(value, Tensor)}

        class Module(torch.nn.Module):
            def forward(self, given: dict[str, Tensor]) -> Tensor:
                return operator(**given, **rest)

        given = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
        program = torch.export.export(Module(), (given,))
        assert torch.equal(program.module()(given), self.call(arguments))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast_computes_in_float32(self, dtype: torch.dtype) -> None:
        arguments = self.arguments(5)
        lowered = map_tensors(lambda t: t.to(dtype) if t.is_floating_point() else t, arguments)
        raised = map_tensors(lambda t: t.float() if t.is_floating_point() else t, lowered)
        with torch.autocast("cpu"):
            output = self.call(lowered)
        assert output.dtype == torch.float32
        assert torch.equal(output, self.call(raised))

    def test_autocast_gradients_have_the_dtype_of_the_arguments(self) -> None:
        lowered = map_tensors(lambda t: t.bfloat16() if t.is_floating_point() else t, self.arguments(5))
        leaves = [t.requires_grad_() for t in tensors(lowered) if t.is_floating_point()]
        with torch.autocast("cpu"):
            self.call(lowered).sum().backward()
        raised = [t.detach().float().requires_grad_() for t in leaves]
        again = iter(raised)
        arguments = map_tensors(lambda t: next(again) if t.is_floating_point() else t, lowered)
        for leaf, want in zip(leaves, torch.autograd.grad(self.call(arguments).sum(), raised), strict=True):
            assert leaf.grad is not None
            assert torch.equal(leaf.grad, want.bfloat16())

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_other_dtypes_are_refused(self, dtype: torch.dtype) -> None:
        packed = self.pack(self.arguments(3))
        for name, value in self.arguments(3).items():
            if isinstance(value, Tensor) and value.dtype == torch.float32:
                if dtype in NARROW and packed[name].dtype == torch.uint8:
                    continue  # a weight
                arguments = {**self.arguments(3), name: value.to(dtype)}
                with pytest.raises(ValueError, match=rf"{name}: expected .*torch\.float32.*, got a {dtype} tensor"):
                    self.call(arguments)

    def test_devices_are_not_mixed(self) -> None:
        arguments = self.arguments(3)
        names = [name for name, value in arguments.items() if isinstance(value, Tensor)]
        if len(names) == 1:
            pytest.skip("one tensor cannot be on two devices")
        arguments[names[-1]] = arguments[names[-1]].to("meta")
        with pytest.raises(ValueError, match=rf"{names[-1]}: expected a tensor on cpu, .*got one on meta"):
            self.call(arguments)

    def test_meta_tensors_give_the_shape(self) -> None:
        arguments = self.arguments(3)
        output = self.call(map_tensors(lambda t: t if t.dtype == torch.int32 else t.to("meta"), arguments))
        assert output.device.type == "meta"
        assert output.shape == self.call(arguments).shape


class PackedWeightsContract(OperatorContract):
    """The contract of an operator that has weights. attentions: how many it computes one after the other."""

    attentions = 0

    def pack(self, arguments: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def test_packed_weights_give_the_same_bits(self) -> None:
        arguments = self.arguments(13)
        assert torch.equal(self.call(self.pack(arguments)), self.call(arguments))

    def narrow(self, arguments: dict[str, Any], dtype: torch.dtype, every: int = 1) -> dict[str, Any]:
        """The arguments with every `every`-th of their weights (what `pack` changes) in a 16-bit dtype."""
        packed, weights = iter(tensors(self.pack(arguments))), itertools.count()

        def narrowed(tensor: Tensor) -> Tensor:
            is_weight = next(packed).dtype == torch.uint8
            return tensor.to(dtype) if is_weight and next(weights) % every == 0 else tensor

        return map_tensors(narrowed, arguments)

    @pytest.mark.parametrize("dtype", NARROW)
    @pytest.mark.parametrize("every", [1, 2])
    def test_narrow_weights(self, dtype: torch.dtype, every: int) -> None:
        arguments = self.narrow(self.arguments(13), dtype, every)
        expected = exact(type(self).operator, map_tensors(lambda t: t.float() if t.dtype == dtype else t, arguments))
        output = self.call(arguments)
        assert output.dtype == torch.float32
        product = _native.active_product(str(dtype).removeprefix("torch."))
        size, attentions = size_of(expected), self.attentions
        bound = narrow_weights_bound(product, *self.reductions, size=size, attentions=attentions)
        torch.testing.assert_close(output.double(), expected, rtol=0.0, atol=bound)
        assert torch.equal(self.call(self.pack(arguments)), output)

    @pytest.mark.parametrize("dtype", NARROW)
    def test_opcheck_with_narrow_weights(self, dtype: torch.dtype) -> None:
        arguments = self.narrow(self.arguments(5), dtype)
        torch.library.opcheck(self.overload, tuple(arguments.values()))
        torch.library.opcheck(self.overload, tuple(self.pack(arguments).values()))

    @pytest.mark.parametrize("dtype", NARROW)
    @pytest.mark.parametrize("every", [1, 2])
    def test_gradients_of_narrow_weights(self, dtype: torch.dtype, every: int) -> None:
        """They are of the weights' dtype, as PyTorch's are, and those of the same values in float32, rounded."""
        narrowed = self.narrow(self.arguments(5), dtype, every)
        leaves = [t.requires_grad_() for t in tensors(narrowed) if t.is_floating_point()]
        wide = map_tensors(lambda t: t.detach().float() if t.is_floating_point() else t, narrowed)
        wide_leaves = [t.requires_grad_() for t in tensors(wide) if t.is_floating_point()]
        actual = torch.autograd.grad(self.call(narrowed).sum(), leaves)
        expected = torch.autograd.grad(self.call(wide).sum(), wide_leaves)
        for got, want, leaf in zip(actual, expected, leaves, strict=True):
            assert torch.equal(got, want.to(leaf.dtype))

    def test_opcheck_with_packed_weights(self) -> None:
        torch.library.opcheck(self.overload, tuple(self.pack(self.arguments(5)).values()))

    def test_packed_weights_are_not_differentiated(self) -> None:
        """But inference does not have to switch gradients off."""
        arguments = self.pack(self.arguments(3))
        leaf = next(t for t in tensors(arguments) if t.is_floating_point()).requires_grad_()
        output = self.call(arguments)
        message = rf"squeezebert::{self.operator.__name__}: .*: expected a plain weight"
        with pytest.raises(RuntimeError, match=message):
            output.sum().backward()
        assert leaf.grad is None
        with forward_ad.dual_level(), pytest.raises(RuntimeError, match=message):
            self.call(map_tensors(lambda t: forward_ad.make_dual(t, t) if t is leaf else t, arguments))
