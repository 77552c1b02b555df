"""The contract of an operator's derivatives: the reference's, in reverse and forward mode and under torch.func."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from exactness import assert_close, exact, map_tensors, tensors
from python_ref import ops as reference
from squeezebert_kernels.ops import formulas
from tolerances import LITERAL


class DerivativesContract:
    """What `op_testing.OperatorContract` is derived from; it says what these are.

    operator: the function of squeezebert_kernels.ops. reductions: the lengths of its chained reductions, for the bound.
    """

    operator: Callable[..., Tensor]
    reductions: tuple[int, ...]

    def arguments(self, tokens: int) -> dict[str, Any]:
        """Arguments by name, with plain weights; their outputs have `tokens` rows per sequence."""
        raise NotImplementedError

    def pack(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as inference gives them: with packed weights, where there are weights."""
        return arguments

    def call(self, arguments: dict[str, Any]) -> Tensor:
        return type(self).operator(**arguments)

    def differentiable(self, tokens: int) -> dict[str, Any]:
        def leaf(tensor: Tensor) -> Tensor:
            return tensor.requires_grad_() if tensor.is_floating_point() else tensor

        return map_tensors(leaf, self.arguments(tokens))

    def test_formula_is_the_reference(self) -> None:
        """The function that gradients are taken of, in float64, beside the one that they are held against."""
        wide = map_tensors(lambda t: t.double() if t.dtype == torch.float32 else t, self.arguments(5))
        output = getattr(formulas, self.operator.__name__)(**wide)
        torch.testing.assert_close(output, exact(self.operator, wide), **LITERAL)

    def test_gradients_are_those_of_the_reference(self) -> None:
        arguments = self.differentiable(5)
        leaves = [t for t in tensors(arguments) if t.requires_grad]
        output = self.call(arguments)
        grad_output = torch.randn_like(output)
        actual = torch.autograd.grad(output, leaves, grad_output)

        wide = map_tensors(lambda t: t.detach().double().requires_grad_() if t.requires_grad else t, arguments)
        wide_leaves = [t for t in tensors(wide) if t.requires_grad]
        expected = torch.autograd.grad(exact(self.operator, wide), wide_leaves, grad_output.double())
        for got, want in zip(actual, expected, strict=True):
            assert got.shape == want.shape
            assert_close(got, want, *self.reductions, *self.reductions)

    def test_forward_mode_gives_the_tangent_of_the_reference(self) -> None:
        """For tangents of all floating tensors, with and without a reverse mode that records as well."""
        arguments = self.arguments(5)
        floating = [t for t in tensors(arguments) if t.is_floating_point()]
        tangents = [torch.randn_like(t) for t in floating]

        def tangent(function: Callable[..., Tensor], dtype: torch.dtype, requires_grad: bool) -> Tensor:
            steps = iter(tangents)

            def dual(tensor: Tensor) -> Tensor:
                if not tensor.is_floating_point():
                    return tensor
                primal = tensor.to(dtype, copy=True).requires_grad_(requires_grad)
                return forward_ad.make_dual(primal, next(steps).to(dtype))

            with forward_ad.dual_level():
                return forward_ad.unpack_dual(function(**map_tensors(dual, arguments))).tangent

        reference_operator = getattr(reference, self.operator.__name__)
        expected = tangent(reference_operator, torch.float64, False)
        for requires_grad in (False, True):
            result = tangent(type(self).operator, torch.float32, requires_grad).detach()
            assert_close(result, expected, *self.reductions, *self.reductions)

    def test_torch_func(self) -> None:
        """jvp, grad, a second derivative, and vmap around a gradient: those of the reference."""
        arguments = self.arguments(3)
        name = next(name for name, t in arguments.items() if isinstance(t, Tensor) and t.is_floating_point())
        direction = torch.randn_like(arguments[name])

        def results(function: Callable[..., Tensor], given: dict[str, Any], along: Tensor) -> list[Tensor]:
            rest = {key: value for key, value in given.items() if key != name}

            def loss(leaf: Tensor) -> Tensor:
                return function(**{name: leaf}, **rest).square().mean()

            slopes = torch.func.grad(loss)
            return [
                torch.func.jvp(loss, (given[name],), (along,))[1],
                slopes(given[name]),
                torch.func.jvp(slopes, (given[name],), (along,))[1],
                torch.func.vmap(slopes)(torch.stack([given[name], along])),
            ]

        wide = map_tensors(lambda t: t.double() if t.dtype == torch.float32 else t, arguments)
        expected = results(getattr(reference, self.operator.__name__), wide, direction.double())
        for got, want in zip(results(type(self).operator, arguments, direction), expected, strict=True):
            assert_close(got, want, *self.reductions, *self.reductions, *self.reductions)

    def test_vmap_gives_the_bits_of_single_calls(self) -> None:
        operator, given = type(self).operator, self.pack(self.arguments(3))
        others = self.pack(self.arguments(3))
        both = [torch.stack(pair) for pair in zip(tensors(given), tensors(others), strict=True)]

        def call(*slices: Tensor) -> Tensor:
            replacements = iter(slices)
            return operator(**map_tensors(lambda _: next(replacements), given))

        if any(t.dtype == torch.int32 for t in both):
            both = [pair for pair in both if pair.dtype != torch.int32]
        output = torch.vmap(call)(*both)
        assert torch.equal(output[0], self.call(given))
        assert torch.equal(output[1], self.call(others))

    def test_batched_gradients(self) -> None:
        """vmap over a backward pass, which computes a Jacobian row by row."""
        arguments = self.differentiable(3)
        leaves = [t for t in tensors(arguments) if t.requires_grad]
        output = self.call(arguments)
        rows = torch.randn(2, *output.shape)
        batched = torch.vmap(lambda row: torch.autograd.grad(output, leaves, row, retain_graph=True))(rows)
        for index, row in enumerate(rows):
            for got, want in zip(batched, torch.autograd.grad(output, leaves, row, retain_graph=True), strict=True):
                assert torch.equal(got[index], want)

    def test_gradient_of_one_argument_alone(self) -> None:
        arguments = self.arguments(3)
        leaf = [t for t in tensors(arguments) if t.is_floating_point()][-1].requires_grad_()
        self.call(arguments).sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.shape == leaf.shape

    def test_second_derivative_raises(self) -> None:
        arguments = self.differentiable(3)
        leaf = next(t for t in tensors(arguments) if t.requires_grad)
        (gradient,) = torch.autograd.grad(self.call(arguments).square().sum(), leaf, create_graph=True)
        with pytest.raises(RuntimeError, match=rf"squeezebert::{self.operator.__name__}: .*second derivative"):
            gradient.sum().backward()
