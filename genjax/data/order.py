"""Which examples a step sees: a pure function of (seed, step), by arithmetic instead of a stored permutation.

Example number p of the whole run is number ``p % n`` of epoch ``p // n``, and each epoch's order is a keyed permutation
of [0, n) that gives any one of its values without the others. So there is nothing to save in a checkpoint or to keep on
the device, and a run sees the same batches wherever it starts and on however many devices it runs.

The permutation is the generalized Feistel network of Black and Rogaway (2002), "Ciphers with arbitrary finite domains",
section 5, on Z_a x Z_b with a * b >= n, with their cycle walking for values that fall outside [0, n).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.data.base import Source
from genjax.types import Array

MAX_EXAMPLES = 2**27
_ROUNDS = 8
_GOLDEN = 0x9E3779B9


def batch_indices(seed: int | Array, step: int | Array, batch_size: int, n: int, xp: Any = jnp) -> Array | np.ndarray:
    """The examples of batch number ``step``: positions ``step * batch_size + [0, batch_size)`` of the run.

    Each example comes exactly once an epoch; a batch may straddle two epochs (with ``batch_size > n``, several).

    Args:
      seed: the order's key; an int (its low 32 bits count) or a uint32 scalar, which may be traced.
      step: number of the batch, in [0, 2**31); may be traced.
      batch_size: examples a batch; static.
      n: examples in the data set, at most 2**27; static.
      xp: ``jax.numpy`` (also inside jit, scan and vmap) or ``numpy``; both give the same integers.

    Returns:
      int32 ``[batch_size]`` in ``[0, n)``.

    Raises:
      ValueError: ``n`` or ``batch_size`` out of range.
    """
    _check(n, batch_size)
    epoch, offset = _locate(_uint32(step, xp), batch_size, n)
    offset = offset + xp.arange(batch_size, dtype=xp.uint32)
    epoch = epoch + offset // np.uint32(n)
    return _permute(offset % np.uint32(n), _uint32(seed, xp), epoch, n, xp).astype(xp.int32)


def epoch_indices(seed: int | Array, epoch: int | Array, n: int, xp: Any = jnp) -> Array | np.ndarray:
    """The whole order of one epoch, int32 ``[n]``: what the batches of that epoch concatenate to."""
    _check(n, 1)
    position = xp.arange(n, dtype=xp.uint32)
    return _permute(position, _uint32(seed, xp), _uint32(epoch, xp), n, xp).astype(xp.int32)


def eval_batches(source: Source, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """All examples of ``source`` in their own order, each exactly once.

    Yields:
      ``image`` uint8 ``[B, H, W, C]``, ``label`` int32 ``[B]`` if there are classes, ``index`` int32 ``[B]`` and
      ``mask`` float32 ``[B]``. Every batch has ``batch_size`` examples: the last is padded with example 0, mask 0.

    Raises:
      ValueError: ``batch_size`` below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    for start in range(0, len(source), batch_size):
        index = np.arange(start, start + batch_size, dtype=np.int64)
        real = index < len(source)
        index = np.where(real, index, 0)
        yield {**source.gather(index), "index": index.astype(np.int32), "mask": real.astype(np.float32)}


def _check(n: int, batch_size: int) -> None:
    if not 1 <= n <= MAX_EXAMPLES:
        raise ValueError(f"n is {n}; the number of examples must be in [1, {MAX_EXAMPLES}]")
    if not 1 <= batch_size <= MAX_EXAMPLES:
        raise ValueError(f"batch_size is {batch_size}; it must be in [1, {MAX_EXAMPLES}]")


def _uint32(value: Any, xp: Any) -> Any:
    """``value`` as uint32 ``[1]``: NumPy warns of the wanted overflow on scalars, but not on arrays."""
    if isinstance(value, (int, np.integer)):
        value = np.uint32(int(value) & 0xFFFFFFFF)
    return xp.asarray(value).astype(xp.uint32).reshape(1)


def _locate(step: Any, batch_size: int, n: int) -> tuple[Any, Any]:
    """``divmod(step * batch_size, n)`` in uint32, though the product needs more: long division in base 16.

    Exact while the epoch fits: a digit's remainder is below 16 n + 15 n <= 31 * 2**27 < 2**32.
    """
    batch_epochs, batch_offset = divmod(batch_size, n)
    epoch = offset = step * np.uint32(0)
    for shift in range(28, -1, -4):
        digit = (step >> np.uint32(shift)) & np.uint32(15)
        total = offset * np.uint32(16) + digit * np.uint32(batch_offset)
        epoch = epoch * np.uint32(16) + digit * np.uint32(batch_epochs) + total // np.uint32(n)
        offset = total % np.uint32(n)
    return epoch, offset


def _hash(x: Any) -> Any:
    """A 32-bit mix with low bias: C. Wellons (2018), "Prospecting for Hash Functions", lowbias32."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


@functools.cache
def _factors(n: int) -> tuple[int, int]:
    """(a, b) of similar size with a * b >= n and as little beyond n as possible: none, often, and then no walk."""
    root = max(2, math.isqrt(n))
    a = min(range(root, max(2, root // 2) - 1, -1), key=lambda a: a * -(-n // a))
    return a, -(-n // a)


def _permute(x: Any, seed: Any, epoch: Any, n: int, xp: Any) -> Any:
    """The value at ``x`` of the permutation of [0, n) that (seed, epoch) selects; all uint32, shapes broadcast."""
    a, b = _factors(n)
    salts = [np.uint32(j * _GOLDEN & 0xFFFFFFFF) for j in range(1, _ROUNDS + 1)]
    keys = [_hash(_hash(seed + salt) ^ _hash(epoch - salt)) for salt in salts]

    def encrypt(x: Any) -> Any:
        left, right = x % np.uint32(a), x // np.uint32(a)
        for j, key in enumerate(keys):
            modulus = np.uint32(b if j % 2 else a)
            # The hash is reduced first, so that the sum can't wrap: that would not be addition modulo a.
            left, right = right, (left + _hash(right + key) % modulus) % modulus
        return left + np.uint32(a) * right

    x = encrypt(x)
    if a * b == n:
        return x
    return _while(lambda x: (x >= n).any(), lambda x: xp.where(x >= n, encrypt(x), x), x, xp)


def _while(condition: Callable, body: Callable, x: Any, xp: Any) -> Any:
    if xp is jnp:
        return jax.lax.while_loop(condition, body, x)
    while condition(x):
        x = body(x)
    return x
