"""Averages of a network's variables over training: what each weighs at which step.

An average is moved towards the current variables once a step, ``average += weight(step) * (variables - average)``. A
family says which averages it keeps (``Averages``, made by one of the functions here), gives them to ``new_state`` and
to its step template, and evaluates ``TrainState.averaged(network)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from genjax import tree
from genjax.families.base import TrainState
from genjax.types import Array, check_fraction

LONGEST = 12.0**-0.5
"""Relative length of the plain mean of all steps, the longest power-function average: exponent 0."""


@dataclasses.dataclass(frozen=True)
class Average:
    """One average.

    Attributes:
      network: whose variables are averaged.
      weight: ``step -> float32 in [0, 1]``, of the variables that this step leaves; ``step`` is int32, the number of
        steps finished before it (0 in the first).
    """

    network: str
    weight: Callable[[Array], Array]


Averages = Mapping[str, Average]
"""The averages of a family, keyed like ``TrainState.ema``. One under its network's own name is what evaluation uses."""


def exponential_average(network: str, decay: float) -> Averages:
    """One average that forgets at a constant rate; none where ``decay`` is 0.

    The decay starts small, ``min(decay, (1 + step) / (10 + step))``, so that the average forgets the initialisation
    (the warm-up of TensorFlow's ``ExponentialMovingAverage``).

    Args:
      network: whose variables are averaged.
      decay: in [0, 1).

    Raises:
      ValueError: ``decay`` is out of range.
    """
    check_fraction(ema_decay=decay)

    def weight(step: Array) -> Array:
        step = step.astype(jnp.float32)
        return 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))

    return {network: Average(network, weight)} if decay else {}


def power_averages(network: str, lengths: tuple[float, ...]) -> Averages:
    """Averages whose window grows with training (Karras et al. 2024, "Analyzing and improving the training dynamics of
    diffusion models", section 3.1): after t steps, step tau weighs about ``tau^gamma``.

    The decay at step t = 1, 2, ... is ``(1 - 1/t)^(gamma + 1)``, which is 0 at the first: the initialisation has no
    weight. Any other length can be rebuilt from checkpoints that hold two of them (``genjax.train.posthoc``).

    Args:
      network: whose variables are averaged.
      lengths: of each window, the standard deviation of its profile relative to the steps so far, in (0, 1/sqrt(12)].
        The first is what evaluation uses; none gives no averages.

    Returns:
      The first under ``network``, the others under ``"network:length"``.

    Raises:
      ValueError: a length is out of range, or there twice.
    """
    names = power_lengths(network, lengths)
    return {name: Average(network, _power_weight(power_exponent(length))) for name, length in names.items()}


def power_lengths(network: str, lengths: tuple[float, ...]) -> dict[str, float]:
    """The length of each of ``power_averages(network, lengths)`` by its name, what ``Family.ema_lengths`` holds."""
    if len({f"{length:g}" for length in lengths}) < len(lengths):
        raise ValueError(f"lengths={lengths} has one twice; accepted: each once, in 6 digits")
    return {f"{network}:{length:g}" if i else network: length for i, length in enumerate(lengths)}


def averaged_network(name: str) -> str:
    """The network that the average of this name, as ``power_averages`` gives it, is of."""
    return name.partition(":")[0]


def power_exponent(length: float) -> float:
    """gamma of a relative length, the root above -0.38 of ``length^2 (gamma + 2)^2 (gamma + 3) = gamma + 1``.

    ``length`` is the standard deviation of the profile ``tau^gamma`` on [0, 1] (Karras et al. 2024, eq. 123 and
    algorithm 2). Raises ValueError where it is outside of (0, 1/sqrt(12)].
    """
    if not 0.0 < length <= LONGEST:
        raise ValueError(f"length {length:g} of an average is out of range; accepted: above 0, up to {LONGEST:.4f}")
    inverse = length**-2.0
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    # Three real roots: the exponent sought, one in (-1, -0.38), one below -3.
    return max(0.0, float(np.max(roots.real)))


def _power_weight(exponent: float) -> Callable[[Array], Array]:
    def weight(step: Array) -> Array:
        # 1 - (1 - 1/t)^(gamma + 1) without the cancellation that float32 has at a million steps.
        return -jnp.expm1((exponent + 1.0) * jnp.log1p(-1.0 / (step.astype(jnp.float32) + 1.0)))

    return weight


def update_ema(state: TrainState, averages: Averages) -> TrainState:
    """Moves every average towards the current variables of its network."""
    moved = {
        name: tree.lerp(state.ema[name], state.variables(average.network), average.weight(state.step))
        for name, average in averages.items()
    }
    return state.replace(ema=moved)
