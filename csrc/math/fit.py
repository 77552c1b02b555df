"""Fits the polynomials of exp.h and gelu.h and prints their coefficients and bounds.

Run it as `python csrc/math/fit.py`: it needs NumPy only, takes seconds, and gives the same answer every time. The fits
are weighted minimax (Lawson's iterated weighted least squares); the coefficients are rounded to float32 one by one,
lowest degree first, and the ones after each are fitted again, which makes up for the rounding. The bounds printed at
the end come from float32 arithmetic emulated on a grid; tests/cpp/isa/math.cc measures the compiled functions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# gelu.h: q(|x|)^8 = Phi(-|x|) on [0, GELU_BOUND], where q reaches 0.
GELU_POWER = 8
GELU_DEGREE = 8
GELU_BOUND = 8.0
# exp.h: p(r) = 2^r for |r| <= 1 / 2.
EXP_DEGREE = 5
EXP_BOUND = 0.5


def float32(x: Array | float) -> Array:
    """x rounded to float32, kept as float64."""
    return np.asarray(x, dtype=np.float32).astype(np.float64)


def horner(coefficients: list[float], x: Array) -> Array:
    """The polynomial (lowest coefficient first) in float32 FMAs: float64 holds their products exactly."""
    value = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = float32(x * value + coefficient)
    return value


def minimax(basis: Array, target: Array, weight: Array) -> Array:
    """The c that minimises max |weight * (basis @ c - target)| (C. L. Lawson, 1961)."""
    scale = np.abs(basis).max(axis=0)
    lawson = np.full(len(target), 1.0 / len(target))
    best, best_error = np.zeros(basis.shape[1]), math.inf
    for _ in range(600):
        row = weight * np.sqrt(lawson)
        c = np.linalg.lstsq(basis / scale * row[:, None], target * row, rcond=None)[0] / scale
        error = np.abs(weight * (basis @ c - target))
        if error.max() < best_error:
            best, best_error = c, float(error.max())
        lawson *= error / error.max()
        lawson = lawson / lawson.sum() + 1e-14
    return best


def fit(x: Array, target: Array, weight: Array, degree: int, given: list[float]) -> list[float]:
    """Float32 coefficients, lowest first, of a polynomial that starts with the given ones."""
    coefficients = list(given)
    while len(coefficients) <= degree:
        powers = x[:, None] ** np.arange(len(coefficients), degree + 1)
        rest = minimax(powers, target - np.polynomial.polynomial.polyval(x, coefficients), weight)
        coefficients.append(float(float32(rest[0])))
    return coefficients


def upper_tail(x: Array) -> Array:
    """Phi(-x), the probability that a standard normal variable is above x."""
    return np.array([0.5 * math.erfc(value / math.sqrt(2.0)) for value in x])


def fit_exp() -> list[float]:
    """Minimises the error in ULP of the result, which is twice as fine below 1; 2^0 = 1 is given."""
    r = np.linspace(-EXP_BOUND, EXP_BOUND, 1200)
    return fit(r, np.exp2(r), np.where(r < 0, 2.0**24, 2.0**23), EXP_DEGREE, [1.0])


def fit_gelu() -> list[float]:
    """Minimises the error of Phi(-x) = q(x)^8, times x where that is more: the derivative of q^8 is the weight."""
    x = GELU_BOUND * (1.0 - np.cos(np.linspace(0.0, math.pi, 1600))) / 2.0
    root = upper_tail(x) ** (1.0 / GELU_POWER)
    weight = GELU_POWER * root ** (GELU_POWER - 1) * np.maximum(x, 0.5)
    # At the bound ask for 0 instead, so that everything beyond it, held there, is 0.
    root[-1], weight[-1] = 0.0, 1.0
    q = fit(x, root, weight, GELU_DEGREE, [float(float32(0.5 ** (1.0 / GELU_POWER)))])
    # Float32 arithmetic must give 0 there too, not 1e-7: move the coefficient of x by the few ULP that are missing.
    # The bound is a power of two, so this is exact.
    inner = horner(q[1:], np.array([GELU_BOUND]))[0]
    q[1] += -q[0] / GELU_BOUND - inner
    assert float32(q[1]) == q[1], q
    assert horner(q, np.array([GELU_BOUND]))[0] == 0.0, q
    return q


def measure_exp(p: list[float]) -> float:
    """Largest error of p in ULP of the result."""
    r = float32(np.linspace(-EXP_BOUND, EXP_BOUND, 400_000))
    return float(np.max(np.abs(horner(p, r) - np.exp2(r)) * np.where(r < 0, 2.0**24, 2.0**23)))


def measure_gelu(q: list[float]) -> tuple[float, float]:
    """Largest errors of |x| Phi(-|x|) and, relative, of Phi(-|x|) for |x| <= 1."""
    x = float32(np.linspace(0.0, GELU_BOUND, 400_000))
    power = horner(q, x)
    for _ in range(3):
        power = float32(power * power)
    error, exact = np.abs(power - upper_tail(x)), upper_tail(x)
    return float(np.max(x * error)), float(np.max(error[x <= 1] / exact[x <= 1]))


def show(name: str, coefficients: list[float]) -> None:
    print(f"{name}, lowest degree first:")
    for coefficient in coefficients:
        print(f"  {coefficient.hex():>26}f  // {coefficient:.9g}")


def main() -> None:
    p, q = fit_exp(), fit_gelu()
    show("exp", p)
    print(f"  polynomial in float32: {measure_exp(p):.3f} ULP")
    show("gelu", q)
    absolute, relative = measure_gelu(q)
    print(f"  |x| Phi(-|x|) in float32: absolute {absolute:.3g}; Phi relative, |x| <= 1: {relative:.3g}")


if __name__ == "__main__":
    main()
