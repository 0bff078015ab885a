"""MeanFlow (Geng et al. 2025): learn the average velocity between two times; one evaluation then crosses the flow."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from genjax.objectives.denoising import Draw, Network, Objective, Setting, mean_of
from genjax.processes.paths import expand, forward, velocity
from genjax.processes.predictions import Velocity
from genjax.types import Array, Key, check_fraction


def identity(network: Network, x: Array, v: Array, t: Array, s: Array) -> tuple[Array, Array]:
    """Both sides of eq. 6, u(x, s, t) and v - (t - s) du/dt, ``[B, ...]``: equal for the average of the velocity ``v``.

    du/dt = v . grad_x u + d_t u is one directional derivative in forward mode, which costs about one more evaluation.
    """
    u, slope = jax.jvp(lambda x, t: network(x, t, s), (x, t), (v, jnp.ones_like(t)))
    return u, v - expand(t - s, x) * slope


@dataclasses.dataclass(frozen=True)
class MeanFlow(Objective):
    """The network gives u(x_t, s, t), the mean of the velocity v on the flow from s to t: x_s = x_t - (t - s) u.

    Differentiating (t - s) u = integral of v gives the MeanFlow identity (eq. 6), u = v - (t - s) du/dt with du/dt the
    derivative along the flow, a directional one: the loss is |u - sg(v - (t - s) du/dt)|^2 with the conditional
    velocity for v (eq. 9), divided by its own value (section 4.3, adaptive weighting).

    Attributes:
      ratio: share of the examples with s < t; the others have s = t, where u is v (table 1a: 0.25).
      power: of the adaptive weight (table 1e); 0 for the plain squared error.
      constant: added to the squared error in the weight.

    Raises:
      ValueError: a setting is out of its range; the prediction is not the velocity.
    """

    times: ClassVar[int] = 2
    offers: ClassVar[tuple[str, ...]] = ("denoiser", "flow_map")
    needs: ClassVar[tuple[str, ...]] = ("levels",)

    ratio: float = 0.25
    power: float = 1.0
    constant: float = 1e-3

    def __post_init__(self):
        check_fraction(ratio=self.ratio)
        for name in ("power", "constant"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} is out of range; accepted: at least 0")

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if not isinstance(setting.prediction, Velocity):
            raise ValueError('mean_flow learns a velocity; accepted: prediction.name="velocity"')

    def draw(self, setting: Setting, key: Key, shape: tuple[int, ...], step: Array) -> Draw:
        """As ``Objective.draw``, and s <= t of the same distribution."""
        level_key, other_key, pair_key = jax.random.split(key, 3)
        drawn = super().draw(setting, level_key, shape, step)
        assert setting.levels is not None
        other = setting.levels.sample(setting.path, other_key, ())
        other = jnp.where(jax.random.bernoulli(pair_key, self.ratio), other, drawn["t"])
        return {**drawn, "t": jnp.maximum(drawn["t"], other), "s": jnp.minimum(drawn["t"], other)}

    def loss(self, setting: Setting, network: Network, x0: Array, draw: Draw) -> tuple[Array, dict[str, Array]]:
        t, s, eps = draw["t"], draw["s"], draw["eps"]
        x, v = forward(setting.path, x0, eps, t), velocity(setting.path, x0, eps, t)
        u, target = identity(network, x, v, t, s)
        square = jnp.square(u - jax.lax.stop_gradient(target))
        total = jnp.sum(square.reshape(square.shape[0], -1), axis=-1)
        weight = jax.lax.stop_gradient((total + self.constant) ** -self.power)
        return weight * total, {"squared_error": mean_of(square)}

    def denoised(self, setting: Setting, network: Network, x: Array, t: Array) -> Array:
        return setting.prediction.denoised(setting.path, network(x, t, t), x, t)

    def flow_map(self, setting: Setting, network: Network, x: Array, t: Array, s: Array) -> Array:
        return x - expand(t - s, x) * network(x, t, s)
