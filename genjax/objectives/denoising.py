"""What a denoising network is trained for: to undo the noise of one level.

An objective draws what an example needs at random (``draw``), gives the loss of that draw (``loss``), and says how to
read a denoiser off the trained network (``denoised``). ``MeanFlow`` and ``Consistency`` are the other two.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from genjax.processes.levels import Levels, Weighting
from genjax.processes.paths import Path, forward
from genjax.processes.predictions import Prediction
from genjax.types import Array, Key

Network = Callable[..., Array]
"""``(x_t [B, ...], t [B], s [B]) -> output [B, ...]``; without s where the objective has one time only."""

Draw = dict[str, Array]
"""Random numbers of each example: ``t [B]``, ``eps [B, ...]`` and what else the objective wants."""


class Setting(NamedTuple):
    """Where the objective acts: the path, what the network predicts, which t are drawn, and how much each counts."""

    path: Path
    prediction: Prediction
    levels: Levels | None
    weighting: Weighting | None


@dataclasses.dataclass(frozen=True)
class Objective(abc.ABC):
    """Subclasses are frozen dataclasses whose fields are settings.

    Attributes:
      times: how many numbers the network is told: the level, and for a map along the flow also how far it reaches.
      offers: the functions a sampler may take, "denoiser" and "flow_map".
      needs: which of the parts "levels" and "weighting" it reads.
    """

    times: ClassVar[int] = 1
    offers: ClassVar[tuple[str, ...]] = ("denoiser",)
    needs: ClassVar[tuple[str, ...]] = ("levels", "weighting")

    def check(self, setting: Setting) -> None:
        """Raises ValueError where the parts do not go together."""
        for name in ("levels", "weighting"):
            if (getattr(setting, name) is not None) != (name in self.needs):
                problem = "is missing" if name in self.needs else "is not read by this objective; leave it out"
                raise ValueError(f"{name} {problem}")
        setting.prediction.check(setting.path)
        if setting.levels is not None:
            setting.levels.check(setting.path)

    def draw(self, setting: Setting, key: Key, shape: tuple[int, ...], step: Array) -> Draw:
        """Random numbers of one example, whose image has ``shape``: without a batch axis."""
        assert setting.levels is not None
        level_key, noise_key = jax.random.split(key)
        return {"t": setting.levels.sample(setting.path, level_key, ()), "eps": jax.random.normal(noise_key, shape)}

    @abc.abstractmethod
    def loss(self, setting: Setting, network: Network, x0: Array, draw: Draw) -> tuple[Array, dict[str, Array]]:
        """Loss ``[B]`` and metrics ``{name: [B]}`` of images ``x0`` ``[B, ...]`` in [-1, 1]."""

    def denoised(self, setting: Setting, network: Network, x: Array, t: Array) -> Array:
        """The denoiser, ``[B, ...]``: the estimate of x_0 from ``x`` = x_t."""
        return setting.prediction.denoised(setting.path, network(x, t), x, t)

    def flow_map(self, setting: Setting, network: Network, x: Array, t: Array, s: Array) -> Array:
        """x_s from ``x`` = x_t, for an objective that offers it."""
        raise ValueError("this objective has no flow_map; accepted: mean_flow")


@dataclasses.dataclass(frozen=True)
class Denoising(Objective):
    """E w(t) |D(x_t, t) - x_0|^2, the loss of denoising score matching, diffusion and flow matching alike.

    The mean over an image's values, written with the network's own output and target (Ho et al. 2020, eq. 14; Karras et
    al. 2022, eq. 8; Lipman et al. 2023, eq. 9: they differ in path, prediction, levels and weighting only).
    """

    def loss(self, setting: Setting, network: Network, x0: Array, draw: Draw) -> tuple[Array, dict[str, Array]]:
        path, prediction, _, weighting = setting
        assert weighting is not None
        t, eps = draw["t"], draw["eps"]
        output = network(forward(path, x0, eps, t), t)
        error = mean_of(jnp.square(output - prediction.target(path, x0, eps, t)))
        scale = prediction.output_weight(path, t)
        return weighting(path, t) / scale * error, {"squared_error": error / scale}


def mean_of(values: Array) -> Array:
    """Mean over everything but the first axis."""
    return jnp.mean(values.reshape(values.shape[0], -1), axis=-1)
