"""Pictures for people: grids of samples, reconstructions beside originals, confusion matrices, curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genjax.types import UserError

_TILE = 56  # pixels: smaller images are enlarged to at least this
_SEPARATOR = 128  # mid-grey, to be seen beside black and white images alike
_MAX_NAMED = 20  # classes up to which a confusion matrix has its counts written into it


def grid(images: Any, columns: int | None = None, pad: int = 2, scale: int | None = None) -> np.ndarray:
    """Lays images out in rows.

    Args:
      images: uint8 ``[N, H, W, C]`` with 1 or 3 channels and N at least 1.
      columns: images per row; None makes the grid about square.
      pad: width of the grey separators, pixels.
      scale: whole factor of enlargement (nearest neighbour); None makes a tile at least 56 pixels high and wide.

    Returns:
      uint8 ``[H', W', 3]``.

    Raises:
      UserError: wrong type or shape, no image, or an argument out of range.
    """
    images = _checked(images, "grid")
    count = len(images)
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    if columns < 1:
        raise UserError(f"image grid: columns is {columns}, must be at least 1")
    columns = min(columns, count)
    places = [divmod(i, columns) for i in range(count)]
    return _lay_out(images, places, math.ceil(count / columns), columns, pad, scale)


def side_by_side(
    originals: Any, reconstructions: Any, columns: int = 8, pad: int = 2, scale: int | None = None
) -> np.ndarray:
    """Rows of originals, each with the row of its reconstructions below it.

    Args:
      originals: uint8 ``[N, H, W, C]``.
      reconstructions: uint8 of the same shape.
      columns, pad, scale: as in ``grid``.

    Returns:
      uint8 ``[H', W', 3]``.

    Raises:
      UserError: as ``grid``, or where the shapes differ.
    """
    originals, reconstructions = _checked(originals, "originals"), _checked(reconstructions, "reconstructions")
    if originals.shape != reconstructions.shape:
        raise UserError(
            f"originals are {list(originals.shape)} but reconstructions {list(reconstructions.shape)}; must be equal"
        )
    if columns < 1:
        raise UserError(f"image grid: columns is {columns}, must be at least 1")
    count = len(originals)
    columns = min(columns, count)
    places = [divmod(i, columns) for i in range(count)]
    above = [(2 * row, column) for row, column in places]
    below = [(2 * row + 1, column) for row, column in places]
    rows = 2 * math.ceil(count / columns)
    return _lay_out(np.concatenate([originals, reconstructions]), above + below, rows, columns, pad, scale)


def confusion_figure(matrix: Any, names: Sequence[str] = ()) -> np.ndarray:
    """Draws a confusion matrix: colour is the share of the true class, numbers are counts.

    Args:
      matrix: integers ``[K, K]``, at least 0; rows are true classes, columns predicted ones.
      names: K class names, or empty to number the classes. Beyond 20 classes counts are left out and only some
        classes are labelled.

    Returns:
      uint8 ``[H, W, 3]``.

    Raises:
      UserError: not a square matrix of counts, or the wrong number of names.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size or matrix.dtype.kind not in "iu":
        raise UserError(f"confusion matrix is {matrix.dtype}{list(matrix.shape)}, must be integers [K, K]")
    if matrix.min() < 0:
        raise UserError("confusion matrix has a negative count")
    classes = len(matrix)
    if len(names) not in (0, classes):
        raise UserError(f"confusion matrix of {classes} classes got {len(names)} names")
    labels = [name if len(name) <= 16 else name[:15] + "\N{HORIZONTAL ELLIPSIS}" for name in map(str, names)]
    labels = labels or [str(k) for k in range(classes)]
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)  # a class without examples stays blank

    # The object-oriented interface: pyplot would pick a backend and keep every figure alive.
    side = min(3.0 + 0.5 * classes, 10.0)  # inches, at 100 dots each
    figure = Figure(figsize=(side + 1.0, side), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn = axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest")
    figure.colorbar(drawn, ax=axes, label="share of the true class", shrink=0.8)
    shown = list(range(0, classes, max(1, math.ceil(classes / 40))))
    size = 9 if classes <= _MAX_NAMED else 6
    # A class may be called "$5": parse_math would read that as a formula.
    axes.set_xticks(shown, [labels[k] for k in shown], rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(shown, [labels[k] for k in shown], fontsize=size, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if classes <= _MAX_NAMED:
        for row in range(classes):
            for column in range(classes):
                if matrix[row, column]:
                    colour = "white" if share[row, column] > 0.5 else "black"
                    text = str(matrix[row, column])
                    axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=_fitting(text))
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


def curves_figure(x: Any, curves: Mapping[str, Any], x_label: str, y_label: str) -> np.ndarray:
    """Draws curves over one axis, with a legend of their names.

    Args:
      x: whole numbers ``[N]``.
      curves: finite numbers ``[N]`` by name, at least one of them.
      x_label, y_label: what the axes mean, with units.

    Returns:
      uint8 ``[H, W, 3]``.

    Raises:
      UserError: no curve, or one that has not N finite numbers.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    x = np.asarray(x)
    values = {name: np.asarray(curve, float) for name, curve in curves.items()}
    if not values or any(curve.shape != x.shape or not np.isfinite(curve).all() for curve in values.values()):
        raise UserError(
            f"curves {', '.join(values) or 'none'}: must be finite numbers, one for each of {len(x)} places"
        )
    figure = Figure(figsize=(6.0, 4.0), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (name, curve), style in zip(values.items(), itertools.cycle(("-", "--", ":", "-.")), strict=False):
        axes.plot(x, curve, style, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


def _fitting(text: str) -> int:
    return 9 if len(text) <= 3 else 7 if len(text) <= 5 else 5


def _checked(images: Any, what: str) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise UserError(
            f"{what}: {images.dtype}{list(images.shape)} are no images; "
            "must be uint8 [N, H, W, C] with 1 or 3 channels and at least one image"
        )
    return images


def _lay_out(
    images: np.ndarray, places: Sequence[tuple[int, int]], rows: int, columns: int, pad: int, scale: int | None
) -> np.ndarray:
    height, width = images.shape[1:3]
    scale = max(1, math.ceil(_TILE / min(height, width))) if scale is None else scale
    if scale < 1 or pad < 0:
        raise UserError(f"image grid: scale is {scale} and pad {pad}; must be at least 1 and at least 0")
    tile_height, tile_width = height * scale, width * scale
    shape = (rows * (tile_height + pad) + pad, columns * (tile_width + pad) + pad, 3)
    canvas = np.full(shape, _SEPARATOR, np.uint8)
    for image, (row, column) in zip(images, places, strict=True):
        top, left = pad + row * (tile_height + pad), pad + column * (tile_width + pad)
        tile = image.repeat(scale, axis=0).repeat(scale, axis=1)
        canvas[top : top + tile_height, left : left + tile_width] = tile  # one channel spreads over three
    return canvas
