"""Floating-point operations of a step: what XLA counts, and what it leaves out.

XLA counts in the program it has compiled, but the body of a loop once, however often it runs, and nothing in a call of
a library (on a GPU, matrix products and convolutions may be that). Both can be told from the traced program.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

_SEEN = 0.7  # XLA may drop operations, a quarter of them if it undoes all rematerialisation, but hardly more


def step_flops(counted: float, traced: Any, steps: int, platform: str) -> float:
    """Operations of one step: ``counted`` as it is where a step has no loop, in proportion where it has.

    Where XLA can't have seen everything, the closed form of ``operations`` takes the place of ``counted``.

    Args:
      counted: by XLA, on all devices together, with every loop's body once.
      traced: the jaxpr of the program.
      steps: that the program makes, in its outermost loop.
      platform: it is compiled for.
    """
    once, total = operations(traced, platform)
    if counted < _SEEN * once:
        counted = once
    return counted * total / (once * steps) if once else counted


def operations(traced: Any, platform: str) -> tuple[float, float]:
    """What a jaxpr computes with the body of each loop counted once, and counted as often as the loop runs.

    Two operations are counted for each product in a convolution or matrix product, and one for each number that an
    element-wise operation gives. A loop of unknown length counts once, and of two branches the larger one.
    """
    once = total = 0.0
    for equation in getattr(traced, "jaxpr", traced).eqns:
        parts = [operations(part, platform) for part in _parts(equation, platform)]
        if not parts:
            here = runs = _direct(equation)
        else:
            here, runs = (np.max if equation.primitive.name == "cond" else np.sum)(parts, axis=0)
        once += here
        total += runs * (equation.params["length"] if equation.primitive.name == "scan" else 1)
    return float(once), float(total)


def _parts(equation: Any, platform: str) -> Iterator[Any]:
    """The jaxprs inside of an operation; of ``lax.platform_dependent`` the one for the platform."""
    params = dict(equation.params)
    named = params.get("branches_platforms")
    if named is not None:
        index = next(i for i, platforms in enumerate(named) if platforms is None or platform in platforms)
        params["branches"] = params["branches"][index]
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(part, "jaxpr", part), "eqns"):
                yield part


def _direct(equation: Any) -> float:
    """Operations of a primitive."""
    shapes = [variable.aval.shape for variable in equation.invars if hasattr(variable.aval, "shape")]
    if len(equation.outvars) != 1 or not shapes:
        return 0.0
    result = equation.outvars[0].aval
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2.0 * math.prod(result.shape) * math.prod(shapes[0][axis] for axis in contracted)
    if equation.primitive.name == "conv_general_dilated":
        return 2.0 * _products(shapes[0], shapes[1], result.shape, equation.params)
    element_wise = result.shape in shapes and all(shape in ((), result.shape) for shape in shapes)
    return float(math.prod(result.shape)) if element_wise and jnp.issubdtype(result.dtype, jnp.floating) else 0.0


def _products(images: tuple, kernel: tuple, result: tuple, params: Any) -> float:
    """Multiplications in a convolution, without those by padding and by zeros between spread-out pixels, as in XLA."""
    axes = params["dimension_numbers"]
    total = images[axes.lhs_spec[0]] * kernel[axes.rhs_spec[0]] * kernel[axes.rhs_spec[1]] / params["batch_group_count"]
    windows = zip(
        *(spec[2:] for spec in (axes.lhs_spec, axes.rhs_spec, axes.out_spec)),
        *(params[name] for name in ("window_strides", "padding", "lhs_dilation", "rhs_dilation")),
        strict=True,
    )
    for i, k, o, stride, (low, _), spread, apart in windows:
        seen = np.arange(result[o])[:, None] * stride + np.arange(kernel[k]) * apart - low
        total *= np.count_nonzero((seen >= 0) & (seen <= (images[i] - 1) * spread) & (seen % spread == 0))
    return float(total)
