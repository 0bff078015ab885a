"""Samplers that add noise on the way, and DDIM, which may."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax.processes.paths import Path, expand
from genjax.samplers.base import (
    Denoiser,
    FixedSteps,
    LinearSteps,
    Nodes,
    evaluate,
    nodes,
    run_linear,
    shorten,
    step_noise,
    transfer,
)
from genjax.samplers.deterministic import TwoStages, run_two_stages, two_stages
from genjax.types import Array, Key


def check_at_least_zero(**values: float) -> None:
    """Raises ValueError unless every value is a number from 0, infinity included."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name}={value} is out of range; accepted: at least 0")


def lost(node: Nodes) -> Array:
    """1 - r'^2 / r^2 of each step, ``[N]``: the share of the noise's variance that a step takes away."""
    ratio = node.alpha[:-1] * node.sigma[1:] / (node.alpha[1:] * node.sigma[:-1])
    return (1.0 - ratio) * (1.0 + ratio)


def ancestral_steps(path: Path, t: Array, forward_variance: bool) -> LinearSteps:
    """The posterior q(x_s | x_t, x_0) at x_0 = D; its mean is that of Ho et al. 2020, eq. 7, for any alpha and sigma.

    With ``forward_variance`` the noise has the variance of q(x_t | x_s) instead of the posterior's. The step to clean
    data adds none.
    """
    node = nodes(path, t)
    sigma, sigma_next, share = node.sigma[:-1], node.sigma[1:], lost(node)
    keep = node.alpha[:-1] * jnp.square(sigma_next) / (node.alpha[1:] * jnp.square(sigma))
    push = jnp.where(sigma_next > 0, sigma, 0.0) if forward_variance else sigma_next
    return LinearSteps(t, keep, node.alpha[1:] * share, push * jnp.sqrt(share))


@dataclasses.dataclass(frozen=True)
class Ancestral(FixedSteps):
    """DDPM's sampling: x_s ~ q(x_s | x_t, x_0 = D) (Ho et al. 2020, eq. 7 and algorithm 2), between any two points.

    "posterior" is DDIM with eta = 1. First order in distribution, ``num_steps`` evaluations.

    Attributes:
      variance: of the noise; "posterior" (their beta tilde) or "forward" (their beta, which is for many steps).

    Raises:
      ValueError: ``num_steps`` is below 1 or ``variance`` is unknown.
    """

    num_steps: int = 1000
    variance: str = "posterior"

    def __post_init__(self):
        super().__post_init__()
        if self.variance not in ("posterior", "forward"):
            raise ValueError(f"variance={self.variance!r} is unknown; accepted: forward, posterior")

    def _draw(self, function: Denoiser, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        steps = ancestral_steps(path, t, self.variance == "forward")
        return run_linear(function, shorten(steps, final), x, keys)


@dataclasses.dataclass(frozen=True)
class DDIM(FixedSteps):
    """x' = alpha' D + sqrt(sigma'^2 - v) eps + sqrt(v) z (Song et al. 2021a, eq. 12), eps = (x - alpha D) / sigma.

    v = eta^2 sigma'^2 (1 - r'^2 / r^2), their eq. 16 for any alpha and sigma. With eta = 0 it is deterministic and the
    first-order method on the ODE in r of x / alpha: order 1. ``num_steps`` evaluations.

    Attributes:
      eta: 0 for the deterministic sampler, 1 for DDPM's posterior; in [0, 1].

    Raises:
      ValueError: ``num_steps`` is below 1 or ``eta`` is out of range.
    """

    eta: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta} is out of range; accepted: 0 to 1")

    def _draw(self, function: Denoiser, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        node = nodes(path, t)
        fresh = self.eta**2 * lost(node)
        keep, pull = transfer(node.alpha[:-1], node.sigma[:-1], node.alpha[1:], node.sigma[1:] * jnp.sqrt(1.0 - fresh))
        steps = LinearSteps(t, keep, pull, node.sigma[1:] * jnp.sqrt(fresh))
        return run_linear(function, shorten(steps, final), x, keys if self.eta else None)


@dataclasses.dataclass(frozen=True)
class EDMChurn(FixedSteps):
    """Karras et al. 2022, algorithm 2: raise the noise level a little, then take a step of Heun's method in r.

    It works on z = x / alpha, whose ODE is dz/dr = (z - D) / r, so the noise level of the first point has to be finite
    (on ``Linear``, a grid that starts below t = 1). Order 2 with ``s_churn`` = 0, ``2 num_steps - 1`` evaluations.

    Attributes:
      s_churn: sum over the steps of how much the noise level grows, relatively; one step adds sqrt(2) - 1 at most.
      s_min, s_max: the noise levels between which it grows; ``s_max`` may be infinite. Raised levels may lie above
        the path's highest unless ``s_max`` prevents it.
      s_noise: standard deviation of the new noise.

    Raises:
      ValueError: ``num_steps`` is below 1, another setting negative, or ``s_max`` not above ``s_min``.
    """

    num_steps: int = 18
    s_churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_at_least_zero(s_churn=self.s_churn, s_min=self.s_min, s_noise=self.s_noise)
        if not self.s_max > self.s_min:
            raise ValueError(f"s_max={self.s_max} is out of range; accepted: above s_min={self.s_min}")

    @property
    def evaluations(self) -> int | None:
        return 2 * self.num_steps - 1

    def _draw(self, function: Denoiser, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        step, second = two_stages(self.num_steps)
        level = path.noise_level(t)
        rise = min(self.s_churn / self.num_steps, math.sqrt(2.0) - 1.0)
        gamma = jnp.where((level >= self.s_min) & (level <= self.s_max), rise, 0.0).astype(t.dtype)
        raised = level * (1.0 + gamma)
        t_raised = jnp.where(gamma > 0.0, path.t_of_noise_level(raised), t)
        push = self.s_noise * level * jnp.sqrt(gamma * (2.0 + gamma))
        width = jnp.append(level[1:], 0.0) - raised
        node = step + second
        t_stage = jnp.where(second, t[node], t_raised[step])
        level_stage = jnp.where(second, level[node], raised[step])
        stages = TwoStages(
            step=jnp.asarray(step),
            t=t_stage,
            scale=path.alpha(t_stage),
            p=1.0 / level_stage,
            q=-1.0 / level_stage,
            width=width[step],
            push=jnp.where(second, 0.0, push[step]) if self.s_churn else None,
            second=jnp.asarray(second),
        )
        z = run_two_stages(function, shorten(stages, final), x / path.alpha(t[0]), keys)
        return z if final else z * path.alpha(t[-1])


class CorrectedStep(NamedTuple):
    """One evaluation of ``PredictorCorrector``: a row of ``LinearSteps``, or a Langevin step at (alpha, sigma).

    Attributes:
      predictor: the row.
      corrects: whether this is a Langevin step.
      alpha, sigma: at the evaluation.
      factor: of the Langevin step's size.
    """

    predictor: LinearSteps
    corrects: Array
    alpha: Array
    sigma: Array
    factor: Array


@dataclasses.dataclass(frozen=True)
class PredictorCorrector(FixedSteps):
    """Steps of the reverse-time SDE, each followed by Langevin steps at its end (Song et al. 2021b, algorithm 1).

    The predictor is their reverse diffusion on paths with alpha = 1 (algorithm 2) and DDPM's mean with the forward
    variance on others, which algorithm 3 approximates. The corrector is x + e s + sqrt(2 e) z with the score s and
    e = 2 a (snr |z| / |s|)^2 (algorithms 4 and 5): a = (alpha(t) / alpha(t_next))^2, their 1 - beta, and the norms are
    of one image, not means over a batch. First order in distribution, ``(num_steps - 1) (1 + corrector_steps) + 1``
    evaluations, the last of which is the denoiser's step to clean data.

    Attributes:
      snr: r of algorithms 4 and 5, above 0.
      corrector_steps: Langevin steps after each step of the predictor but the last.

    Raises:
      ValueError: ``num_steps`` is below 1, ``corrector_steps`` below 0, or ``snr`` not above 0.
    """

    num_steps: int = 1000
    snr: float = 0.16
    corrector_steps: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_at_least_zero(corrector_steps=self.corrector_steps)
        if not 0 < self.snr < math.inf:
            raise ValueError(f"snr={self.snr} is out of range; accepted: above 0 and finite")

    @property
    def evaluations(self) -> int | None:
        return (self.num_steps - 1) * (1 + self.corrector_steps) + 1

    def _draw(self, function: Denoiser, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        predictor, node = ancestral_steps(path, t, forward_variance=True), nodes(path, t)
        assert self.evaluations is not None
        step, turn = np.divmod(np.arange(self.evaluations), 1 + self.corrector_steps)
        at = step + (turn > 0)  # a Langevin step is at the point where the predictor's step has ended
        factor = jnp.square(node.alpha[:-1] / node.alpha[1:])
        rows = CorrectedStep(
            jax.tree.map(lambda column: column[step], predictor)._replace(t=t[at]),
            jnp.asarray(turn > 0),
            node.alpha[at],
            node.sigma[at],
            factor[at],
        )

        def norm(values: Array) -> Array:
            return jnp.linalg.norm(values.reshape(values.shape[0], -1), axis=-1)

        def turn_of_scan(x: Array, indexed: tuple[Array, CorrectedStep]) -> tuple[Array, None]:
            index, row = indexed
            clean, z = evaluate(function, x, row.predictor.t), step_noise(keys, index, x)
            predicted = row.predictor.keep * x + row.predictor.pull * clean + row.predictor.push * z
            score = (row.alpha * clean - x) / jnp.square(row.sigma)
            size = expand(2.0 * row.factor * jnp.square(self.snr * norm(z) / norm(score)), x)
            corrected = x + size * score + jnp.sqrt(2.0 * size) * z
            return jnp.where(row.corrects, corrected, predicted), None

        return jax.lax.scan(turn_of_scan, x, shorten((jnp.arange(len(step)), rows), final))[0]


@dataclasses.dataclass(frozen=True)
class MultistepConsistency(FixedSteps):
    """Denoise, add noise of the next point's level, denoise again (Song et al. 2023, algorithm 1).

    For functions that map any x_t to the end of its trajectory. The algorithm adds the variance t^2 - e^2, where e is
    the level at which its trajectories end; here they end at clean data, e = 0. ``num_steps`` evaluations.
    """

    num_steps: int = 1

    def _draw(self, function: Denoiser, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        node = nodes(path, t)
        steps = LinearSteps(t, jnp.zeros_like(t), node.alpha[1:], node.sigma[1:])
        return run_linear(function, shorten(steps, final), x, keys if self.num_steps > 1 else None)
