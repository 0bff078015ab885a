"""The only ways to derive random keys.

Every random number is a function of (seed, step, stream name), so that a run draws the same numbers whether it was
interrupted, how many steps one call takes, or how many devices it ran on; and adding a stream leaves the others alone.
"""

from __future__ import annotations

import zlib

import jax
from jax.typing import ArrayLike

from genjax.types import Array, Key


def root(seed: int | Array) -> Key:
    """The key of a run. ``seed`` may be traced: a population maps over it."""
    return jax.random.key(seed)


def step_key(root_key: Key, step: int | Array) -> Key:
    """The key of one training step."""
    return jax.random.fold_in(root_key, step)


def stream(key: Key, name: str) -> Key:
    """An independent key for the named purpose ("dropout", "latent", ...)."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def example_keys(key: Key, index: ArrayLike) -> Key:
    """One key per example, ``[B]``, from its index ``[B]``: the same at any batch size."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
