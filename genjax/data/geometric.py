"""Geometric augmentation that a network is told of, so that its samples show none (Karras et al. 2022, "Elucidating the
design space of diffusion-based generative models", appendix F.2).

Each image gets one affine change of its own, made of those of their table 6, and a label of nine numbers that says
which. A network that is given the label learns p(image | change); in sampling the label is zero. Pure functions for use
in a compiled step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from genjax import rng
from genjax.types import Array, Key

LABELS = 9
"""Numbers in an augmentation label; see ``labels_of``."""

_SCALE = 0.2  # standard deviation of the binary logarithm of scale and stretch
_SHIFT = 0.125  # standard deviation of a translation, in widths and heights


def geometric(key: Key, images: Array, probability: float | Array) -> tuple[Array, Array]:
    """Images changed at random, and what was done to each.

    Args:
      key: a typed key. Image i is a function of the key, i and itself alone.
      images: floating point ``[B, H, W, C]``.
      probability: in [0, 1], with which each change is made, independently of the others. Flipping left to right is
        always among them: half of the images are, at any probability. Of those whose turn it is to be flipped upside
        down, half are.

    Returns:
      Images, float32 ``[B, H, W, C]`` in the range of ``images``, and labels, float32 ``[B, 9]``. An untouched image
      comes back bit for bit, with a label of zeros.
    """
    keys = rng.example_keys(key, jnp.arange(images.shape[0]))
    changes = jax.vmap(draw, (0, None))(keys, probability)
    labels = jax.vmap(labels_of)(changes)
    images = images.astype(jnp.float32)
    warped = jax.vmap(lambda image, change: warp(image, *source_map(change, *image.shape[:2])))(images, changes)
    touched = jnp.any(labels != 0.0, axis=-1)
    return jnp.where(touched[:, None, None, None], warped, images), labels


def draw(key: Key, probability: float | Array) -> dict[str, Array]:
    """One change: float32 scalars, each 0 where that part was not drawn.

    ``flip_x`` and ``flip_y`` are 0 or 1; ``scale``, ``stretch``, ``shift_x`` and ``shift_y`` are in standard
    deviations; ``angle`` and ``axis`` in radians.
    """

    def normal(name: str) -> Array:
        return jax.random.normal(rng.stream(key, name))

    def angle(name: str) -> Array:
        return jax.random.uniform(rng.stream(key, name), minval=-jnp.pi, maxval=jnp.pi)

    def coin(name: str) -> Array:
        return jax.random.bernoulli(rng.stream(key, name)).astype(jnp.float32)

    def gate(name: str) -> Array:
        return jax.random.bernoulli(rng.stream(key, f"whether {name}"), probability).astype(jnp.float32)

    shift, stretch = gate("shift"), gate("stretch")
    return {
        "flip_x": coin("flip_x"),
        "flip_y": gate("flip_y") * coin("flip_y"),
        "scale": gate("scale") * normal("scale"),
        "angle": gate("angle") * angle("angle"),
        "axis": stretch * angle("axis"),
        "stretch": stretch * normal("stretch"),
        "shift_x": shift * normal("shift_x"),
        "shift_y": shift * normal("shift_y"),
    }


def labels_of(change: dict[str, Array]) -> Array:
    """What the network is told, float32 ``[9]``; zeros say that nothing was done.

    In order: flipped left to right, flipped upside down, scale, cos(angle) - 1, sin(angle), stretch cos(2 axis),
    stretch sin(2 axis), shift right, shift down. A change has one label and shares it with no other. Hence twice the
    angle of the axis, where the paper has once: half a turn of it changes nothing, a quarter the sign of the stretch.
    """
    angle, axis, stretch = change["angle"], change["axis"], change["stretch"]
    return jnp.stack(
        [
            change["flip_x"],
            change["flip_y"],
            change["scale"],
            jnp.cos(angle) - 1.0,
            jnp.sin(angle),
            stretch * jnp.cos(2.0 * axis),
            stretch * jnp.sin(2.0 * axis),
            change["shift_x"],
            change["shift_y"],
        ]
    )


def source_map(change: dict[str, Array], height: int, width: int) -> tuple[Array, Array]:
    """Where each pixel of the changed image comes from: ``matrix [2, 2]`` and ``shift [2]`` for ``warp``.

    The image is flipped, scaled by ``2^(0.2 scale)``, turned counter-clockwise by ``angle``, stretched by
    ``2^(0.2 stretch)`` along ``axis`` and shrunk as much across it, and moved by ``shift_x / 8`` widths and
    ``shift_y / 8`` heights, in that order; this is the inverse of all that.
    """
    size = jnp.exp2(-_SCALE * change["scale"])
    flips = jnp.stack([1.0 - 2.0 * change["flip_x"], 1.0 - 2.0 * change["flip_y"]])
    narrower = jnp.exp2(-_SCALE * change["stretch"])
    along = _turn(change["axis"])
    stretch = _product(along * jnp.stack([narrower, 1.0 / narrower]), along.T)
    matrix = (flips * size)[:, None] * _product(_turn(-change["angle"]), stretch)
    shift = _SHIFT * jnp.stack([width * change["shift_x"], height * change["shift_y"]])
    return matrix, shift


def _turn(angle: Array) -> Array:
    """Matrix of a counter-clockwise turn, for (right, down)."""
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cosine, sine]), jnp.stack([-sine, cosine])])


def _product(a: Array, b: Array) -> Array:
    """``a @ b`` of two small matrices, in float32 also where an accelerator multiplies matrices in less."""
    return jnp.sum(a[:, :, None] * b[None], axis=1)


def warp(image: Array, matrix: Array, shift: Array) -> Array:
    """The image whose pixel at ``p`` is that of ``image`` at ``matrix (p - shift)``, interpolated bilinearly.

    Beyond its border the image goes on as its reflection, the border itself not repeated. Where ``matrix (p - shift)``
    is a pixel, that pixel is taken as it is.

    Args:
      image: float32 ``[H, W, C]``.
      matrix: float32 ``[2, 2]``, of (right, down) from the middle of the image.
      shift: float32 ``[2]``, (right, down) in pixels.
    """
    height, width, _ = image.shape
    middle_x, middle_y = (width - 1) / 2.0, (height - 1) / 2.0
    right = (jnp.arange(width, dtype=jnp.float32) - middle_x - shift[0])[None, :]
    down = (jnp.arange(height, dtype=jnp.float32) - middle_y - shift[1])[:, None]
    x = matrix[0, 0] * right + matrix[0, 1] * down + middle_x
    y = matrix[1, 0] * right + matrix[1, 1] * down + middle_y
    left, top = jnp.floor(x), jnp.floor(y)
    x, y = (x - left)[:, :, None], (y - top)[:, :, None]
    left, top = left.astype(jnp.int32), top.astype(jnp.int32)

    def at(row: Array, column: Array) -> Array:
        return image[_reflected(row, height), _reflected(column, width)]

    upper = (1.0 - x) * at(top, left) + x * at(top, left + 1)
    lower = (1.0 - x) * at(top + 1, left) + x * at(top + 1, left + 1)
    return (1.0 - y) * upper + y * lower


def _reflected(index: Array, size: int) -> Array:
    """The index in [0, size) that mirrors at both ends lead to."""
    last = size - 1
    return last - jnp.abs(last - index % max(2 * last, 1))
