"""Shapes of equal area, by the distance of each pixel from their edge.

A pixel's value is ``1/2 - distance``, cut to [0, 1], with the distance in pixels and negative inside: close to the
share of the pixel that the shape covers. Coordinates are the shape's own: (u, v) from its centre of mass, v down, with
an area of 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance from the edge of a square, of side 1."""
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.5)


def ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance from the edge of an ellipse twice as wide as high, to first order."""
    short = np.float32(1.0 / np.sqrt(2.0 * np.pi))
    wide = 2.0 * short
    x, y = u / wide, v / short
    radius = np.sqrt(x * x + y * y)
    # The gradient of the radius, which is nowhere below 1 / wide but for rounding in the middle.
    slope = np.sqrt(np.square(x / wide) + np.square(y / short)) / np.maximum(radius, np.float32(1e-6))
    return (radius - 1.0) / np.maximum(slope, 1.0 / wide)


_SIDE = float(1.0 / np.sqrt(1.0 + np.pi / 4.0))
# How far the centre of mass is above that of the square: half discs have theirs 4 r / (3 pi) from the side.
_ABOVE = float(np.pi / 4.0 * (0.5 + 2.0 / (3.0 * np.pi)) / np.sqrt(2.0) * _SIDE**3)


def heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance from the edge of a heart: a square on its corner, with half a disc on each of its upper sides."""
    u, v = np.abs(u), v - np.float32(_ABOVE)
    below = (u + np.abs(v)) / np.float32(np.sqrt(2.0)) - np.float32(_SIDE / 2.0)
    middle = np.float32(_SIDE / np.sqrt(8.0))
    disc = np.sqrt(np.square(u - middle) + np.square(v + middle)) - np.float32(_SIDE / 2.0)
    return np.minimum(below, disc)


SHAPES: dict[str, Distance] = {"square": square, "ellipse": ellipse, "heart": heart}


def draw(shape: str, scale: np.ndarray, turn: np.ndarray, centre: np.ndarray, size: int) -> np.ndarray:
    """Images of one shape.

    Args:
      shape: name of one.
      scale: ``[n]``, square root of the area in pixels.
      turn: ``[n, 2]``, cosine and sine of the counter-clockwise angle.
      centre: ``[n, 2]``, of the centre of mass: right and down from the image's corner, in pixels.
      size: of the images, in pixels.

    Returns:
      float32 ``[n, size, size]`` in [0, 1].
    """
    middles = np.arange(size) + 0.5
    right = ((middles - centre[:, :1]) / scale[:, None]).astype(np.float32)[:, None, :]
    down = ((middles - centre[:, 1:]) / scale[:, None]).astype(np.float32)[:, :, None]
    cosine, sine = turn.astype(np.float32).T[:, :, None, None]
    distance = SHAPES[shape](cosine * right - sine * down, sine * right + cosine * down)
    return np.clip(np.float32(0.5) - distance * scale.astype(np.float32)[:, None, None], 0.0, 1.0)


def turns(count: int) -> np.ndarray:
    """Cosine and sine of angles evenly around a full turn, float64 ``[count, 2]``.

    What is a quarter further has the same numbers, exchanged and signed, so that symmetric images are equal to the bit.
    """
    quarter, rest = np.divmod(4 * np.arange(count), count)
    angle = np.pi / 2.0 * rest / count
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack(
        [
            np.choose(quarter, [cosine, -sine, -cosine, sine]),
            np.choose(quarter, [sine, cosine, -sine, -cosine]),
        ],
        axis=1,
    )


def hues(count: int) -> np.ndarray:
    """Pure colours evenly around the circle from red, float32 ``[count, 3]`` in [0, 1]."""
    sixth = 6.0 * np.arange(count)[:, None] / count + np.array([0.0, 4.0, 2.0])
    return np.clip(np.abs(sixth % 6.0 - 3.0) - 1.0, 0.0, 1.0).astype(np.float32)
