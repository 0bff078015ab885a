"""Runge-Kutta methods of fixed steps on the probability-flow ODE, and maps along it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax.processes.paths import Path
from genjax.samplers.base import (
    Denoiser,
    FixedSteps,
    FlowMap,
    LinearSteps,
    evaluate,
    run_linear,
    shorten,
    slope,
    step_noise,
)
from genjax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class Euler(FixedSteps):
    """Euler's method in t on the probability-flow ODE (Song et al. 2021b, eq. 13).

    On ``EDM`` it is DDIM; on ``Linear`` the usual sampler of flow matching (Lipman et al. 2023; Liu et al. 2023). Order
    1, ``num_steps`` evaluations.
    """

    def _draw(self, function: Denoiser, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        p, q = slope(path, t[:-1])
        width = jnp.diff(t)
        steps = LinearSteps(t, jnp.append(1.0 + width * p, 0.0), jnp.append(width * q, 1.0), jnp.zeros_like(t))
        return run_linear(function, shorten(steps, final), x, None)


class TwoStages(NamedTuple):
    """Evaluations of Heun's method with noise, each field ``[2 N - 1]``; see ``run_two_stages``.

    Attributes:
      step: its number.
      t: of the evaluation.
      scale: of x where the denoiser sees it.
      p, q: dx = p x + q D.
      width: of the step.
      push: standard deviation of the noise added before the evaluation, or None.
      second: whether this is the second evaluation of a step.
    """

    step: Array
    t: Array
    scale: Array
    p: Array
    q: Array
    width: Array
    push: Array | None
    second: Array


def run_two_stages(function: Denoiser, stages: TwoStages, x: Array, keys: Key) -> Array:
    """Heun's method: a stage is one evaluation, and the second of a step starts again with the mean of both slopes."""

    def stage(carry: tuple[Array, Array, Array], row: TwoStages) -> tuple[tuple[Array, Array, Array], None]:
        start, at, first_slope = carry
        if row.push is not None:
            # Most stages add nothing, and drawing nothing is cheaper than multiplying by zero.
            at = at + jax.lax.cond(
                row.push > 0.0,
                lambda step, push: push * step_noise(keys, step, x),
                lambda step, push: jnp.zeros_like(x),
                row.step,
                row.push,
            )
        now = row.p * at + row.q * evaluate(function, row.scale * at, row.t)
        start = jnp.where(row.second, start, at)
        moved = start + row.width * jnp.where(row.second, 0.5 * (first_slope + now), now)
        return (jnp.where(row.second, moved, start), moved, now), None

    return jax.lax.scan(stage, (x, x, jnp.zeros_like(x)), stages)[0][1]


def two_stages(num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(index of the step, whether it is the second stage) of each evaluation; the last step has a single one."""
    stage = np.arange(2 * num_steps - 1)
    return stage // 2, stage % 2 == 1


@dataclasses.dataclass(frozen=True)
class Heun(FixedSteps):
    """Heun's method in t on the probability-flow ODE; the last step takes the denoiser's value.

    Karras et al. 2022, algorithm 1, whose s(t) and sigma(t) are alpha and the noise level here. Order 2,
    ``2 num_steps - 1`` evaluations.
    """

    num_steps: int = 18

    @property
    def evaluations(self) -> int | None:
        return 2 * self.num_steps - 1

    def _draw(self, function: Denoiser, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        step, second = two_stages(self.num_steps)
        t_stage = t[step + second]
        p, q = slope(path, t_stage)
        # The last stage is x + 1 (D - x), the step to clean data.
        p, q, width = p.at[-1].set(-1.0), q.at[-1].set(1.0), jnp.append(jnp.diff(t), 1.0)[step]
        stages = TwoStages(jnp.asarray(step), t_stage, jnp.ones_like(t_stage), p, q, width, None, jnp.asarray(second))
        return run_two_stages(function, shorten(stages, final), x, keys)


@dataclasses.dataclass(frozen=True)
class FlowMapSteps(FixedSteps):
    """Jumps along the flow, x_s = f(x_t, t, s), from point to point and last to s = 0.

    MeanFlow's sampling (Geng et al. 2025, algorithm 2), whose f is x - (t - s) u(x, s, t), and that of any other model
    of the ODE's solution. An exact map makes no error at any number of steps. ``num_steps`` evaluations.
    """

    takes: ClassVar[str] = "flow_map"

    num_steps: int = 1

    def _draw(self, function: FlowMap, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        def step(x: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
            start, end = (jnp.broadcast_to(value, x.shape[:1]) for value in row)
            return function(x, start, end).astype(x.dtype), None

        return jax.lax.scan(step, x, shorten((t, jnp.append(t[1:], 0.0)), final))[0]
