"""Averages of the weights that were not taken in training, rebuilt from those that were (Karras et al. 2024, "Analyzing
and improving the training dynamics of diffusion models", section 3.2 and appendix C.3).

A power-function average at step t weighs step tau by its profile ``p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)``,
and exactly so: step n of training has the integral of p from n - 1 to n. A sum of stored averages therefore is the
average whose profile is the sum of theirs, and the best sum for a wanted profile is a least-squares problem of a few
unknowns. Everything here is NumPy in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.families.averaging import LONGEST, averaged_network, power_exponent
from genjax.families.base import Family, TrainState
from genjax.io.checkpoint import Checkpoints
from genjax.types import UserError

TOLERANCE = 0.1
"""Largest relative error of a rebuilt profile that is accepted."""

_CUTOFF = 1e-13  # singular values below this share of the largest say nothing in float64


def inner_product(steps_a: Any, exponents_a: Any, steps_b: Any, exponents_b: Any) -> np.ndarray:
    """Integral of the product of two profiles, elementwise on what broadcasts, float64.

    With t the later step and s the earlier: ``(a + 1) (b + 1) / (a + b + 1) (s / t)^c / t``, where c is the exponent of
    the profile that ends at t (their appendix C.3, arranged so that nothing overflows).

    Args:
      steps_a, steps_b: where the profiles end, above 0.
      exponents_a, exponents_b: gamma, at least 0.
    """
    s, a, t, b = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (steps_a, exponents_a, steps_b, exponents_b)))
    later = np.maximum(s, t)
    exponent = np.where(s <= t, b, a)
    return (a + 1.0) * (b + 1.0) / (a + b + 1.0) * (np.minimum(s, t) / later) ** exponent / later


def profile_weights(
    steps: Sequence[int], exponents: Sequence[float], step: int, exponent: float
) -> tuple[np.ndarray, float]:
    """How much of each stored average makes the wanted one (their algorithm 3).

    The weights are held to a sum of one, which the paper leaves to the fit: it forces the norm of every weight, while a
    network that does not would notice a factor.

    Args:
      steps, exponents: where each stored profile ends, and its gamma, ``[N]``.
      step, exponent: of the wanted profile; no stored one should end later.

    Returns:
      Weights, float64 ``[N]``, and the error of their profile relative to the wanted one, both in the L2 norm.
    """
    ends, gammas = np.asarray(steps, np.float64), np.asarray(exponents, np.float64)
    norms = np.sqrt(inner_product(ends, gammas, ends, gammas))
    norm = float(np.sqrt(inner_product(step, exponent, step, exponent)))
    # Of profiles of norm one, so that early and late steps are alike to the solver.
    gram = inner_product(ends[:, None], gammas[:, None], ends, gammas) / (norms[:, None] * norms)
    target = inner_product(ends, gammas, step, exponent) / (norms * norm)
    total = norm / norms
    matrix = np.block([[gram, total[:, None]], [total, np.zeros(1)]])  # with the multiplier of the sum
    solution = np.linalg.lstsq(matrix, np.append(target, 1.0), rcond=_CUTOFF)[0][:-1]
    squared = 1.0 - 2.0 * solution @ target + solution @ gram @ solution
    return solution * total, float(np.sqrt(max(squared, 0.0)))


def rebuild(
    family: Family, state: TrainState, checkpoints: Checkpoints, length: float
) -> tuple[TrainState, dict[str, Any]]:
    """The state with averages of another length, for evaluation at its step.

    Made of the averages in the state and in the kept checkpoints before it, which are read one after the other.

    Args:
      family: with ``ema_lengths``.
      state: as restored.
      checkpoints: of the same run; those are read that ``keep_every`` keeps for good.
      length: relative, in (0, 1/sqrt(12)].

    Returns:
      The state, and what to record: the length, the steps and lengths it was made of, and the error of its profile.

    Raises:
      UserError: the family keeps no such averages, no checkpoint was kept, or the length is out of the range that the
        kept ones allow.
    """
    flag = f"--ema={length:g}"
    if not family.ema_lengths:
        raise UserError(f"{flag}: this {family.name} has no averages that others can be made of; leave the flag out")
    _exponent(flag, length)
    end = int(state.step)
    every = checkpoints.keep_every
    steps = [step for step in checkpoints.steps() if every and 0 < step < end and step % every == 0]
    stored = any(np.isclose(length, other, rtol=1e-6) for other in family.ema_lengths.values())
    if not (steps or stored):
        listed = ", ".join(f"{other:g}" for other in family.ema_lengths.values())
        raise UserError(f"{flag}: no checkpoint before step {end} was kept (checkpoint.keep); accepted: {listed}")
    steps.append(end)
    names: dict[str, list[str]] = {}  # of each network's averages
    for name in family.ema_lengths:
        names.setdefault(averaged_network(name), []).append(name)
    weights: dict[tuple[int, str], float] = {}
    error = 0.0
    for own in names.values():
        lengths = [family.ema_lengths[name] for name in own]
        found, missed = _weights_of(steps, lengths, end, length)
        if missed > TOLERANCE:
            shortest, longest = _range_of(steps, lengths, end)
            raise UserError(
                f"{flag}: the averages of steps {', '.join(map(str, steps))} can't make it; "
                f"accepted: {shortest:g} to {longest:g}"
            )
        pairs = [(step, name) for step in steps for name in own]
        weights |= dict(zip(pairs, found.tolist(), strict=True))
        error = max(error, missed)
    ema = {**state.ema, **_combined(state, checkpoints, weights)}
    used = {"length": length, "of_lengths": list(family.ema_lengths.values()), "of_steps": steps}
    return state.replace(ema=ema), {**used, "profile_error": float(f"{error:.2g}")}


def _exponent(flag: str, length: float) -> float:
    try:
        return power_exponent(length)
    except ValueError as error:
        raise UserError(f"{flag}: {error}") from error


def _weights_of(steps: Sequence[int], lengths: Sequence[float], end: int, length: float) -> tuple[np.ndarray, float]:
    """``profile_weights`` of every length at every step, step by step."""
    exponents = [power_exponent(other) for other in lengths]
    ends = [step for step in steps for _ in lengths]
    return profile_weights(ends, exponents * len(steps), end, power_exponent(length))


def _range_of(steps: Sequence[int], lengths: Sequence[float], end: int) -> tuple[float, float]:
    """The shortest and the longest length that can be rebuilt."""
    tried = {float(f"{length:.2g}") for length in np.geomspace(1e-3, LONGEST, 200)}  # so that the range can be typed
    possible = [x for x in {*tried, *lengths} if x <= LONGEST and _weights_of(steps, lengths, end, x)[1] <= TOLERANCE]
    return min(possible), max(possible)


def _combined(state: TrainState, checkpoints: Checkpoints, weights: Mapping[tuple[int, str], float]) -> dict[str, Any]:
    """The weighted sum of the averages at each (step, name), by network; whole numbers are those of ``state``."""
    totals: dict[str, Any] = {}
    for step in dict.fromkeys(step for step, _ in weights):
        part = {name: state.ema[name] for other, name in weights if other == step}
        if step != int(state.step):
            part = checkpoints.restore_partial(step, {"ema": part})[0]["ema"]
        for name, average in part.items():
            network, weight = averaged_network(name), weights[step, name]
            scaled = jax.tree.map(lambda leaf, w=weight: w * np.asarray(leaf).astype(np.float64), average)
            totals[network] = jax.tree.map(np.add, totals[network], scaled) if network in totals else scaled

    def as_before(total: np.ndarray, leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jax.device_put(total.astype(leaf.dtype), leaf.sharding)

    return {network: jax.tree.map(as_before, total, state.ema[network]) for network, total in totals.items()}
