"""Consistency training (Song et al. 2023), with the improvements of Song & Dhariwal 2024: one evaluation denoises."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from genjax.objectives.denoising import Draw, Network, Objective, Setting, mean_of
from genjax.processes.paths import EDM, expand, forward
from genjax.processes.predictions import EDMPrediction
from genjax.types import Array, Key, check_positive


@dataclasses.dataclass(frozen=True)
class Consistency(Objective):
    """f(x_t, t) is the same for all points of one trajectory of the ODE, and f(x, t_min) = x.

    f = c_skip x + c_out F with c_skip = sd^2 / ((t - t_min)^2 + sd^2) and c_out = sd (t - t_min) / sqrt(sd^2 + t^2)
    (Song et al. 2023, appendix C). The loss is the pseudo-Huber distance between f at neighbouring points t_(i+1) and
    t_i of a grid, for one noise eps, the latter without gradient, over their distance (Song & Dhariwal 2024, sections
    3.2 to 3.5); the grid, Karras's with rho = 7, doubles its points during training (section 3.4).

    Attributes:
      total_steps: of the run.
      start_points, end_points: of the grid, at the start and at most.
      mean, std: log t ~ N(mean, std^2), cut to the grid's range (section 3.5).

    Raises:
      ValueError: a setting is out of its range; path or prediction is not "edm".
    """

    needs: ClassVar[tuple[str, ...]] = ()

    total_steps: int
    start_points: int = 10
    end_points: int = 1280
    mean: float = -1.1
    std: float = 2.0

    def __post_init__(self):
        check_positive(total_steps=self.total_steps)
        if not 2 <= self.start_points <= self.end_points:
            raise ValueError(f"start_points={self.start_points}: accepted: from 2 to end_points={self.end_points}")
        if not 0 < self.std < math.inf:
            raise ValueError(f"std={self.std} is out of range; accepted: positive and finite")

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if not isinstance(setting.path, EDM) or not isinstance(setting.prediction, EDMPrediction):
            raise ValueError('consistency needs path.name="edm" and prediction.name="edm"')

    def points(self, step: Array) -> Array:
        """Intervals of the grid at a step, a float: start_points 2^floor(k / K'), at most end_points (eq. 13)."""
        doublings = math.floor(math.log2(self.end_points / self.start_points)) + 1
        stage = jnp.floor(step / max(1, self.total_steps // doublings))
        return jnp.minimum(self.start_points * 2.0**stage, float(self.end_points))

    def draw(self, setting: Setting, key: Key, shape: tuple[int, ...], step: Array) -> Draw:
        """eps, and t and s, neighbours t > s of the grid."""
        level_key, noise_key = jax.random.split(key)
        low, high = setting.path.t_min, setting.path.t_max
        lower, upper = ((math.log(value) - self.mean) / self.std for value in (low, high))
        t = jnp.exp(self.mean + self.std * jax.random.truncated_normal(level_key, lower, upper))
        rho, intervals = 7.0, self.points(jnp.asarray(step, jnp.float32))
        first, last = low ** (1 / rho), high ** (1 / rho)
        # The grid's interval around a continuous draw: its probability is the draw's mass there, which is eq. 10.
        place = jnp.floor((t ** (1 / rho) - first) / (last - first) * intervals)
        place = jnp.clip(place, 0.0, intervals - 1.0)
        ends = [(first + (place + i) / intervals * (last - first)) ** rho for i in (0, 1)]
        return {"t": ends[1], "s": ends[0], "eps": jax.random.normal(noise_key, shape)}

    def loss(self, setting: Setting, network: Network, x0: Array, draw: Draw) -> tuple[Array, dict[str, Array]]:
        t, s, eps = draw["t"], draw["s"], draw["eps"]
        ahead = self.denoised(setting, network, forward(setting.path, x0, eps, t), t)
        behind = jax.lax.stop_gradient(self.denoised(setting, network, forward(setting.path, x0, eps, s), s))
        square = jnp.square(ahead - behind)
        total = jnp.sum(square.reshape(square.shape[0], -1), axis=-1)
        constant = 0.00054 * math.sqrt(math.prod(x0.shape[1:]))  # section 3.3
        return (jnp.sqrt(total + constant**2) - constant) / (t - s), {"squared_error": mean_of(square)}

    def denoised(self, setting: Setting, network: Network, x: Array, t: Array) -> Array:
        prediction = setting.prediction
        past, variance = t - setting.path.t_min, prediction.sigma_data**2
        skip = variance / (jnp.square(past) + variance)
        out = prediction.sigma_data * past / jnp.sqrt(variance + jnp.square(t))
        return expand(skip, x) * x + expand(out, x) * network(x, t)
