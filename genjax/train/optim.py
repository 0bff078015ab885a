"""Optimizers by name. The learning rate stays out of the optax chain: it is in ``state.hparams``, where a sweep is."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from genjax.families.base import Optimizer
from genjax.types import Array, UserError, lookup


def _constant(progress: Array) -> Array:
    return jnp.ones_like(progress)


def _cosine(progress: Array) -> Array:
    return 0.5 * (1.0 + jnp.cos(jnp.pi * progress))


def _linear(progress: Array) -> Array:
    return 1.0 - progress


SCHEDULES = {"constant": _constant, "cosine": _cosine, "linear": _linear}


def make_schedule(name: str, total_steps: int, warmup_steps: int) -> Callable[[Array], Array]:
    """Multiplier of the learning rate: linear from near 0 over ``warmup_steps``, then the decay to ``total_steps``."""
    decay = lookup(SCHEDULES, name, "optim.schedule")
    if not 0 <= warmup_steps < max(total_steps, 1):
        raise UserError(
            f"optim.warmup_steps={warmup_steps} must be at least 0 and less than the {total_steps} steps of the run"
        )

    def schedule(step: Array) -> Array:
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((step - warmup_steps) / (total_steps - warmup_steps), 0.0, 1.0)
        return jnp.minimum(1.0, (step + 1.0) / (warmup_steps + 1.0)) * decay(progress)

    return schedule


def _optimizer(
    direction: optax.GradientTransformation,
    learning_rate: float,
    weight_decay: float,
    clip_norm: float,
    schedule: Callable[[Array], Array],
) -> Optimizer:
    if not 0 < learning_rate < math.inf:
        raise UserError(f"optim.learning_rate={learning_rate} must be positive and finite")
    for name, value in {"weight_decay": weight_decay, "clip_norm": clip_norm}.items():
        if value < 0:
            raise UserError(f"optim.{name}={value} must not be negative; 0 turns it off")
    chain = [direction]
    if clip_norm:
        chain.insert(0, optax.clip_by_global_norm(clip_norm))
    if weight_decay:
        # Matrices and kernels only: decaying a bias or a normalisation's scale towards zero has no purpose.
        chain.append(optax.add_decayed_weights(weight_decay, mask=_kernels))
    return Optimizer(optax.chain(*chain), learning_rate, schedule)


def _kernels(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def adam(
    learning_rate: float,
    total_steps: int,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    schedule: str = "constant",
    warmup_steps: int = 0,
) -> Optimizer:
    """Adam (Kingma & Ba 2015), with decoupled weight decay (Loshchilov & Hutter 2019) where that is not 0."""
    direction = optax.scale_by_adam(b1, b2, eps)
    return _optimizer(
        direction, learning_rate, weight_decay, clip_norm, make_schedule(schedule, total_steps, warmup_steps)
    )


def sgd(
    learning_rate: float,
    total_steps: int,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    schedule: str = "constant",
    warmup_steps: int = 0,
) -> Optimizer:
    """Stochastic gradient descent with momentum; ``momentum=0`` for none."""
    direction = optax.trace(momentum, nesterov) if momentum else optax.identity()
    return _optimizer(
        direction, learning_rate, weight_decay, clip_norm, make_schedule(schedule, total_steps, warmup_steps)
    )


OPTIMIZERS = {"adam": adam, "sgd": sgd}
