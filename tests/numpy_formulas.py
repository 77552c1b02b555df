"""The operators in float64 NumPy, and layers of random weights that compute both ways."""

from __future__ import annotations

import math

import numpy as np

from squeezebert_kernels import numpy as kernels

EPS = 1e-12
_erf = np.vectorize(math.erf, otypes=[np.float64])


def conv1d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int) -> np.ndarray:
    """x [S, in], weight [out, in / groups, K] -> [S, out], zeros outside the sequence."""
    out_channels, in_per_group, kernel_size = weight.shape
    half, out_per_group = kernel_size // 2, out_channels // groups
    padded = np.pad(x.astype(np.float64), ((half, half), (0, 0)))
    y = np.tile(bias.astype(np.float64), (len(x), 1))
    for g in range(groups):
        rows = slice(g * out_per_group, (g + 1) * out_per_group)
        columns = slice(g * in_per_group, (g + 1) * in_per_group)
        for k in range(kernel_size):
            y[:, rows] += padded[k : k + len(x), columns] @ weight[rows, :, k].T.astype(np.float64)
    return y


def conv1x1(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int) -> np.ndarray:
    return conv1d(x.reshape(-1, x.shape[-1]), weight[:, :, None], bias, groups).reshape(*x.shape[:-1], -1)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + _erf(x / math.sqrt(2))) / 2


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS) * weight + bias


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, mask: np.ndarray | float = 0.0) -> np.ndarray:
    """q [N, Sq, C], k and v [N, Sk, C]."""

    def split(x: np.ndarray) -> np.ndarray:
        return x.astype(np.float64).reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    scores = split(q) @ split(k).swapaxes(-1, -2) / math.sqrt(q.shape[-1] // heads) + mask
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    y = scores / scores.sum(-1, keepdims=True) @ split(v)
    return y.transpose(0, 2, 1, 3).reshape(q.shape)


def floats(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * scale).astype(np.float32)


class Linear:
    """A layer with weights that keep values of order 1."""

    def __init__(self, out_channels: int, in_channels: int, groups: int, seed: int) -> None:
        depth = in_channels // groups
        self.weight = floats(out_channels, depth, seed=seed, scale=depth**-0.5)
        self.bias = floats(out_channels, seed=seed)
        self.groups = groups
        self.packed = kernels.pack(self.weight, groups)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return conv1x1(x, self.weight, self.bias, self.groups)


class Layer:
    """An encoder layer of 24 channels and 4 heads."""

    def __init__(self, seed: int, channels: int = 24, wide: int = 48) -> None:
        self.query, self.key, self.value = (Linear(channels, channels, 4, seed + i) for i in range(3))
        self.post_attention = Linear(channels, channels, 1, seed + 3)
        self.intermediate = Linear(wide, channels, 4, seed + 4)
        self.output = Linear(channels, wide, 4, seed + 5)
        self.norms = [(1 + floats(channels, seed=seed + i) / 8, floats(channels, seed=seed + i)) for i in (6, 7)]

    @property
    def params(self) -> list[kernels.PackedWeight | np.ndarray | None]:
        qkv = [p for linear in (self.query, self.key, self.value) for p in (linear.packed, linear.bias)]
        ffn = [p for linear in (self.intermediate, self.output) for p in (linear.packed, linear.bias)]
        return [*qkv, self.post_attention.packed, self.post_attention.bias, *self.norms[0], *ffn, *self.norms[1]]

    def __call__(self, x: np.ndarray, mask: np.ndarray | float = 0.0) -> np.ndarray:
        """x [N, S, C]."""
        context = attend(self.query(x), self.key(x), self.value(x), 4, mask)
        y = layer_norm(self.post_attention(context) + x, *self.norms[0])
        return layer_norm(self.output(gelu(self.intermediate(y))) + y, *self.norms[1])
